"""A chain of base backups that grows, and an archive that is waited for."""

from pathlib import Path

from checks.subjects import SourceServer
from fixtures.faults import backups, server
from fixtures.material import SOON
from fixtures.scratch import Chained, Material, Scratch
from pipeline.postgres.base import base_backup
from pipeline.postgres.wal.lsn import PAGE_SIZE, Lsn, segment_name
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.wait import wait_until


def chain_of(material: Material) -> Material:
    """The part of it whose newest base backups are incremental."""
    assert isinstance(material, Chained)
    return material.chained


def increment(source: Scratch[SourceServer], *, digests: bool = False) -> BackupSet:
    """Take one, and wait for the WAL before it: archiving comes after the backup."""
    repository = Repository(FolderStore(source.repository))
    backup = base_backup.take(source.config, repository, incremental=True, digests=digests)
    archived(source, Lsn.parse(backup.manifest.facts["start_lsn"]))
    return backup


def owned(source: Scratch[SourceServer], name: str) -> Path:
    """Make a folder beside the copy in which its server may write."""
    place = source.folder / name
    place.mkdir()
    server.own_server(source).tools.own(place)
    return place


def archived(source: Scratch[SourceServer], position: Lsn) -> None:
    """Wait for all WAL before a position."""
    facts = backups.latest_base(source).manifest.facts
    last = segment_name(facts["timeline"], Lsn(position - PAGE_SIZE), facts["wal_segment_size"])
    path = source.repository / "wal" / last
    wait_until(last, lambda: None if path.exists() else "not archived", within=SOON)


def switched(source: Scratch[SourceServer]) -> Lsn:
    """End the segment that is written, and wait for it; return where the next one begins."""
    with server.connected(source) as connection:
        row = connection.execute("select pg_switch_wal()::text").fetchone()
    assert row is not None
    size = backups.latest_base(source).manifest.facts["wal_segment_size"]
    position = Lsn.parse(row[0])
    end = Lsn(position + -position % size)
    archived(source, end)
    return end
