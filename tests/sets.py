"""Backup sets of any facts, committed without a server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.repository.sets import BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore

DAY = timedelta(days=1)


def committed(
    root: Path, kind: str, age: timedelta = timedelta(0), facts: dict[str, Any] | None = None
) -> BackupSet:
    """Commit a set of one object, taken so long ago."""
    repository, at = Repository(FolderStore(root)), datetime.now(UTC) - age
    label = repository.new_label(kind, at)
    entry = repository.store.put(f"sets/{kind}/{label}/a", [b"x"])
    manifest = Manifest(
        kind=kind,
        label=label,
        started=at,
        finished=at,
        made_by="test",
        facts=facts or {},
        objects=(entry,),
    )
    return repository.commit(manifest)


def topics(cluster: str = "A", scope: str = "all topics", **lives: str) -> dict[str, Any]:
    """Facts of an archive of topics, by topic id; an id that ends in - has no records."""
    return {
        "cluster_id": cluster,
        "scope": scope,
        "limit": None,
        "topics": {
            name: {
                "topic_id": life.rstrip("-"),
                "replication": 1,
                "overrides": {},
                "defaults": {"retention.ms": "-1", "cleanup.policy": "delete"},
                "partitions": {"0": {"records": 0 if life.endswith("-") else 7}},
            }
            for name, life in lives.items()
        },
    }


def groups(cluster: str = "A", **of: str) -> dict[str, Any]:
    """Facts of a backup of offsets: groups with the topics in which they have some."""
    told = {
        name: {"offsets": len(topics.split()), "topics": topics.split()}
        for name, topics in of.items()
    }
    return {"cluster_id": cluster, "groups": told}
