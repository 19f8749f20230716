"""Every file of a base backup is compared with PostgreSQL's own list while it is unpacked."""

import copy
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import crc32c
import pytest
import zstandard

from fixtures.faults import control
from fixtures.faults.backups import sealed_list
from pipeline.errors import RestoreError
from pipeline.postgres.base import server_manifest
from pipeline.postgres.base.file_list import FileList
from pipeline.postgres.base.restore import unpack
from pipeline.repository.sets import BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore
from tests.recovery.history import History, copied
from tests.recovery.repacked import Change, repacked

Members = list[tuple[tarfile.TarInfo, bytes]]
CONTROL = "global/pg_control"


@pytest.fixture
def own(history: History, tmp_path: Path) -> tuple[BackupSet, Path]:
    """A backup set in a repository of its own."""
    folder = history.source.stack.folder / "scratch" / tmp_path.name
    root = copied(history.repository, folder, history.source.tools)
    return Repository(FolderStore(root)).get(history.source.backups["second"].label), root


def only(name: str, change: Callable[[bytes], Members | bytes | None]) -> Change:
    """Change one file; None leaves it out, several members stand in its place."""

    def changed(member: tarfile.TarInfo, content: bytes) -> Members:
        if member.name.removeprefix("./") != name:
            return [(member, content)]
        new = change(content)
        if isinstance(new, list):
            return [(member, content), *new]
        return [] if new is None else [(member, new)]

    return changed


def file(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Members:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return [(member, b"")]


def bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGES: dict[str, tuple[Change, str]] = {
    "a bit of a file": (only("PG_VERSION", bit), "PG_VERSION: backup_manifest lists 3 bytes"),
    "a shorter file": (only("global/1262", lambda c: c[:-1]), "global/1262: backup_manifest lists"),
    "its own configuration": (
        only("postgresql.auto.conf", lambda c: c + b"fsync = off\n"),
        "postgresql.auto.conf: backup_manifest lists",
    ),
    "a missing file": (
        only("global/1262", lambda _: None),
        "global/1262: in backup_manifest, and in no archive",
    ),
    "a file too many": (
        only("PG_VERSION", lambda _: file("global/extra")),
        "global/extra is not in backup_manifest",
    ),
    "a file twice": (only("PG_VERSION", lambda _: file("PG_VERSION")), "PG_VERSION is there twice"),
    "a way out": (only("PG_VERSION", lambda _: file("base/../../stray")), "leads out of the"),
    "a full path": (only("PG_VERSION", lambda _: file("/etc/stray")), "leads out of the"),
    "a link": (
        only("PG_VERSION", lambda _: file("base/link", tarfile.SYMTYPE, "/etc")),
        "'base/link' is of type b'2'",
    ),
    "another list": (
        only("backup_manifest", bit),
        "backup_manifest: backup_manifest lists",
    ),
}


@pytest.mark.parametrize(("change", "told"), DAMAGES.values(), ids=DAMAGES)
def test_what_differs_from_the_list_is_refused_by_name(
    history: History, own: tuple[BackupSet, Path], into: Path, change: Change, told: str
) -> None:
    """The stored object is intact each time; PostgreSQL's list knows that its content is not."""
    backup, root = own
    damaged = repacked(backup, root, change)
    with pytest.raises(RestoreError, match=told):
        unpack(damaged, into, history.source.tools)
    assert not into.exists()


def test_a_control_file_that_was_reset_is_refused_whatever_its_checksum(
    history: History, own: tuple[BackupSet, Path], into: Path
) -> None:
    """It ends with its own CRC-32C: by CRC-32C, PostgreSQL's default, any sound one is the same."""
    backup, root = own
    version = (history.source.data / "PG_VERSION").read_bytes()
    seen: list[bytes] = []

    def swapped(content: bytes) -> bytes:
        seen.extend((content, control.reset(content, version, history.source.tools)))
        return seen[1]

    damaged = repacked(backup, root, only(CONTROL, swapped))
    assert seen[0] != seen[1]
    assert crc32c.crc32c(seen[0]) == crc32c.crc32c(seen[1])
    with pytest.raises(RestoreError, match=f"{CONTROL}: backup_manifest lists 8192 bytes"):
        unpack(damaged, into, history.source.tools)
    assert not into.exists()


def lists(backup: BackupSet, content: bytes) -> BackupSet:
    """The set with another list of PostgreSQL's, sealed."""
    entry = server_manifest.of(backup)
    assert entry is not None
    backup.store.delete(entry.key)
    stored = backup.store.put(entry.key, [zstandard.ZstdCompressor().compress(content)])
    body = backup.manifest.model_dump() | {"objects": (backup.manifest.objects[0], stored)}
    return BackupSet(Manifest(**body), backup.store)


def listed(backup: BackupSet, path: Path) -> bytes:
    server_manifest.extract(backup, path)
    return path.read_bytes()


def test_only_sha256_proves_a_file(own: tuple[BackupSet, Path], tmp_path: Path) -> None:
    content = listed(own[0], tmp_path / "list")
    identity = own[0].manifest.facts["system_identifier"]
    assert FileList.parse("set", content, identity).ranges
    told = json.loads(content)
    weak = copy.deepcopy(told)
    weak["Files"][0]["Checksum-Algorithm"] = "CRC32C"
    bad = {
        "has a checksum by CRC32C, expected SHA256": sealed_list(weak),
        "has sha256 .*, it says": content.replace(b'"Size": 3,', b'"Size": 4,'),
        "cannot be read": content[:-50],
        "is of system identifier": sealed_list(told | {"System-Identifier": 7}),
    }
    for expected, changed in bad.items():
        with pytest.raises(RestoreError, match=f"set: backup_manifest.*{expected}"):
            FileList.parse("set", changed, identity)


def test_a_damaged_list_is_refused_by_name(
    history: History, own: tuple[BackupSet, Path], into: Path
) -> None:
    """As RestoreError, which has a recovery fall back to an older backup."""
    backup, root = own
    entry = server_manifest.of(backup)
    assert entry is not None
    (root / entry.key).write_bytes(b"")
    with pytest.raises(RestoreError, match=f"{entry.key}: expected {entry.size} bytes"):
        unpack(backup, into, history.source.tools)


def test_wal_that_cannot_be_read_is_refused(
    history: History, own: tuple[BackupSet, Path], into: Path
) -> None:
    """It is in no list: pg_waldump reads the range that the backup needs."""
    backup, root = own
    start = backup.manifest.facts["start_lsn"]

    def overwritten(member: tarfile.TarInfo, content: bytes) -> Members:
        if not member.name.startswith("pg_wal/0"):
            return [(member, content)]
        at = int(start.partition("/")[2], 16) % (16 << 20)
        return [(member, content[:at] + b"\xff" * 64 + content[at + 64 :])]

    damaged = repacked(backup, root, overwritten)
    with pytest.raises(RestoreError, match=f"{backup.label}: pg_waldump cannot read"):
        unpack(damaged, into, history.source.tools)
    assert not into.exists()


def test_a_set_without_the_list_beside_it_is_read_again_by_pg_verifybackup(
    history: History, own: tuple[BackupSet, Path], into: Path
) -> None:
    backup, root = own
    damaged = repacked(backup, root, only("global/1262", bit), listed=False)
    with pytest.raises(RestoreError, match=f"{backup.label}: pg_verifybackup refuses"):
        unpack(damaged, into, history.source.tools)
    assert not into.exists()
