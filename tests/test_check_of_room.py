"""What the room for the next backup is measured by."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from checks.rules.repository import room_for_the_next_backup
from checks.subjects import BackupRepository
from pipeline.postgres.base import chain
from pipeline.repository.sets import Manifest, Repository
from pipeline.repository.store import FolderStore, StoredObject

FIRST = datetime(2026, 3, 1, 2, tzinfo=UTC)
TOO_MUCH = 1 << 60


def taken(
    root: Path, kind: str, day: int, size: int, *shared: StoredObject, **facts: str
) -> StoredObject:
    """Commit a set of one object that states its size, and of those that older sets hold."""
    repository, at = Repository(FolderStore(root)), FIRST + timedelta(days=day)
    label = repository.new_label(kind, at)
    own = replace(repository.store.put(f"sets/{kind}/{label}/content", [b"x"]), size=size)
    repository.commit(
        Manifest(
            kind=kind,
            label=label,
            started=at,
            finished=at,
            made_by="test",
            facts=facts,
            objects=(*shared, own),
        )
    )
    return own


def tight(root: Path) -> bool:
    (seen,) = room_for_the_next_backup.examine(BackupRepository(root))
    return seen.problem is not None


def test_segments_that_an_older_set_holds_are_not_stored_again(tmp_path: Path) -> None:
    segment = taken(tmp_path, "topics", 0, TOO_MUCH)
    assert tight(tmp_path)
    taken(tmp_path, "topics", 1, 1, segment)
    assert not tight(tmp_path)


def test_the_next_full_backup_is_like_the_newest_full_one(tmp_path: Path) -> None:
    """An older one does not count, whatever it was, and an increment does not stand for it."""
    taken(tmp_path, "base", 0, TOO_MUCH)
    taken(tmp_path, "base", 1, 1, **{chain.PARENT: "the first"})
    assert tight(tmp_path)
    taken(tmp_path, "base", 2, 1)
    taken(tmp_path, "base", 3, 1, **{chain.PARENT: "the second"})
    assert not tight(tmp_path)
