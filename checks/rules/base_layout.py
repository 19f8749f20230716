"""Whether the parts of a base backup belong together: server, version, WAL, tablespaces."""

import json
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.links import of_every_link
from checks.rules.base import (
    CONTROL,
    SERVER_MANIFEST,
    change_file,
    control_data_agrees,
    control_told,
)
from checks.subjects import BaseBackup
from checks.wal_pages import FirstPage, first_page
from fixtures.faults import backups, control
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError
from pipeline.postgres.base import tablespaces
from pipeline.postgres.base.base_backup import archives, tablespace_of
from pipeline.postgres.wal.lsn import PAGE_SIZE, Lsn, is_segment, parse_segment, segments_between

VERSION = "PG_VERSION"
SINCE_17 = 2  # version of PostgreSQL's manifest that names the server


def _server_list(base: BaseBackup) -> dict[str, Any]:
    manifest = base.contents.kept.get(SERVER_MANIFEST)
    if manifest is None:
        raise BackupError(f"{base.manifest.label}: there is no {SERVER_MANIFEST}")
    listed: dict[str, Any] = json.loads(manifest)
    return listed


@check(
    "base.server-manifest-is-its-own",
    on=BaseBackup,
    severity="blocker",
    advice="PostgreSQL's list of files is that of another backup, and vouches for nothing here: "
    "do not restore from this set; take a new one, and find out what copies into the sets.",
)
@of_every_link
def server_manifest_is_its_own(base: BaseBackup) -> Iterator[Observation]:
    """PostgreSQL's list of files names this server, and the WAL from start to end of this set."""
    listed, facts = _server_list(base), base.facts
    if listed["PostgreSQL-Backup-Manifest-Version"] >= SINCE_17:
        yield _same("System-Identifier", facts["system_identifier"], listed["System-Identifier"])
    ranges = listed["WAL-Ranges"]
    yield _same("Start-LSN", Lsn.parse(facts["start_lsn"]), Lsn.parse(ranges[0]["Start-LSN"]))
    yield _same("End-LSN", Lsn.parse(facts["end_lsn"]), Lsn.parse(ranges[-1]["End-LSN"]))
    yield _same("Timeline", facts["timeline"], ranges[-1]["Timeline"])


def _same(subject: str, expected: object, found: object) -> Observation:
    same = str(expected) == str(found)
    return Observation(subject, None if same else f"expected {expected}, found {found}")


@server_manifest_is_its_own.detects
def list_of_the_backup_before(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """The stale list of an earlier backup, with a good checksum of its own."""
    earlier = rng.randrange(1 << 20, 1 << 22)

    def stale(listed: dict[str, Any]) -> None:
        for span in listed["WAL-Ranges"]:
            for end in ("Start-LSN", "End-LSN"):
                span[end] = str(Lsn(Lsn.parse(span[end]) - earlier))

    backups.change_server_list(scratch, stale)
    return Damage("End-LSN", "the list of files is that of an earlier backup", says=", found ")


@server_manifest_is_its_own.detects
def list_of_another_server(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Two servers back up into one place."""
    other = rng.randrange(1 << 62)
    backups.change_server_list(scratch, lambda listed: listed.update({"System-Identifier": other}))
    return Damage(
        "System-Identifier", f"the list of files names server {other}", says=f"found {other}"
    )


@check(
    "base.version-and-sizes",
    on=BaseBackup,
    severity="blocker",
    advice="The programs at hand cannot start this backup. Restore it with PostgreSQL of the "
    "version and build that took it (postgres.bin), and keep that build for as long as the set.",
)
@of_every_link
def version_and_sizes(base: BaseBackup) -> Iterator[Observation]:
    """Files, manifest and programs at hand are of one major version and one size of pages."""
    major = base.facts["server_version_num"] // 10_000
    found = base.contents.kept.get(VERSION)
    told = "nothing" if found is None else found.decode(errors="replace").strip()
    yield _same(VERSION, major, told)
    program = base.tools.run("pg_controldata", "--version").split()[-1]
    yield _same("postgres.bin", major, program.partition(".")[0])
    sizes, _ = control_told(base)
    for line in ("Database block size", "WAL block size"):
        yield _same(line, PAGE_SIZE, sizes.get(line))


@version_and_sizes.detects
def files_of_another_major_version(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """An upgrade that stopped half way: the folder says one version, the server was another."""
    other = scratch.copy.facts["server_version_num"] // 10_000 - rng.randrange(1, 5)
    change_file(scratch, VERSION, lambda _: f"{other}\n".encode(), forged=True)
    return Damage(VERSION, f"it says {other}", says=f"found {other}")


@version_and_sizes.detects
def programs_of_another_major_version(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """This machine was upgraded, and the backup was not."""
    number = scratch.copy.facts["server_version_num"] - rng.randrange(1, 5) * 10_000
    backups.change_fact(scratch, "server_version_num", number)
    return Damage(
        "postgres.bin", f"the backup is of {number}", says=f"expected {number // 10_000}, found"
    )


@version_and_sizes.detects
def built_with_other_pages(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A server that was built with --with-blocksize."""
    size = rng.choice((4096, 16384, 32768))
    blocks = int(control_told(scratch.copy)[0]["Blocks per segment of large relation"])
    change_file(
        scratch,
        CONTROL,
        lambda content: control.with_block_size(content, PAGE_SIZE, blocks, size),
        forged=True,
    )
    return Damage(
        "Database block size", f"the control file says {size}", says="expected 8192, found"
    )


@version_and_sizes.detects
def written_in_the_other_byte_order(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """Copied from a machine of another architecture."""
    change_file(scratch, CONTROL, control.with_other_byte_order, forged=True)
    return Damage(
        "Database block size", "the control file has its bytes in the other order", says=", found "
    )


@control_data_agrees.detects
def built_with_other_segments(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """The files are of a server that initdb gave other WAL segments."""
    size = scratch.copy.facts["wal_segment_size"]
    other = size << rng.randrange(1, 5)
    change = partial(control.with_wal_segment_size, old=size, new=other)
    change_file(scratch, CONTROL, change, forged=True)
    return Damage("wal_segment_size", f"the control file says {other}", says=f"found {other}")


@check(
    "base.own-wal-complete",
    on=BaseBackup,
    severity="blocker",
    advice="Without it the backup is consistent only where the archive has the same segments: "
    "check them (`-k wal.archive-complete`), and take a new base backup.",
)
@of_every_link
def own_wal_complete(base: BaseBackup) -> Iterator[Observation]:
    """The WAL from start to end of the backup lies in it, in whole segments of this server."""
    facts = base.facts
    size, end = facts["wal_segment_size"], Lsn.parse(facts["end_lsn"])
    for name in segments_between(facts["timeline"], Lsn.parse(facts["start_lsn"]), end, size):
        key = f"pg_wal/{name}"
        held = base.contents.files.get(key)
        if held is None:
            yield Observation(key, "not in the backup")
        elif held.size != size:
            yield Observation(key, f"expected {size} bytes, found {held.size}")
        else:
            found = first_page(base.contents.wal_heads[key])
            yield Observation(key, _foreign(name, found, facts))


def _foreign(name: str, found: FirstPage | None, facts: dict[str, Any]) -> str | None:
    size = facts["wal_segment_size"]
    timeline, start = parse_segment(name, size)
    expected = FirstPage(timeline, start, facts["system_identifier"], size)
    # the first segment of a timeline begins with pages of the one before it
    if found is not None and found._replace(timeline=timeline) == expected:
        return None if found.timeline <= timeline else f"it is of timeline {found.timeline}"
    return f"its first page says {found}, expected {expected}"


@own_wal_complete.detects
def last_wal_left_out(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """A backup whose end never came: pg_backup_stop failed, and somebody kept what was there."""
    return _change_wal(scratch, lambda _: None, "it was left out").told_as("not in the backup")


@own_wal_complete.detects
def last_wal_empty(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """A segment whose size was reserved, and whose content never came."""
    return _change_wal(scratch, lambda content: bytes(len(content)), "it is zero").told_as(
        "its first page says FirstPage(timeline=0"
    )


@own_wal_complete.detects
def last_wal_of_another_place(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A segment of another server, or of another position, under this name."""

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[rng.randrange(8, 16)] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return _change_wal(scratch, flip, "its header was changed").told_as("its first page says")


def _change_wal(scratch: Scratch[BaseBackup], change: backups.Change, what: str) -> Damage:
    files = scratch.copy.contents.files
    name = max(name for name in files if name.startswith("pg_wal/") and is_segment(name[7:]))
    return change_file(scratch, name, change, what)


@check(
    "base.tablespaces-complete",
    on=BaseBackup,
    severity="blocker",
    advice="The tables of that tablespace would be lost, and a restore stops at its link: do not "
    "restore from this set; take a new one.",
)
@of_every_link
def tablespaces_complete(base: BaseBackup) -> Iterator[Observation]:
    """The newest base backup, and each below it, holds every tablespace of its server, no other."""
    stated = {each["oid"] for each in base.facts.get(tablespaces.FACT, [])}
    held = {tablespace_of(entry) for entry in archives(base.backup)} - {""}
    links = (tablespaces.LINKS,)
    paths = (entry["Path"].split("/") for entry in _server_list(base)["Files"] if "Path" in entry)
    listed = {path[1] for path in paths if path[0] in links and len(path) > 2}
    yield Observation("data folder", None if base.contents.files else "it is not in the backup")
    for oid in sorted(stated | held | listed):
        places = {"server": stated, "archives": held, "PostgreSQL's list of files": listed}
        lacking = [place for place, known in places.items() if oid not in known]
        told = f"unknown to: {', '.join(lacking)}"
        # one without a file is in no list, and is an empty folder after a restore
        yield Observation(oid, told if set(lacking) - {"PostgreSQL's list of files"} else None)


@tablespaces_complete.detects
def archive_of_a_tablespace_missing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A copy of the set that took only the archive of the data folder."""
    oid = str(rng.randrange(16_384, 99_999))
    place = {"oid": oid, "name": "fast", "location": "/mnt/fast"}
    backups.change_fact(scratch, tablespaces.FACT, [place])
    return Damage(
        oid,
        "the server had that tablespace, the set has no archive of it",
        says="unknown to: archives",
    )


@tablespaces_complete.detects
def listed_files_of_an_unknown_tablespace(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A tablespace that was made while the backup ran, outside of what it copied."""
    oid = str(rng.randrange(16_384, 99_999))
    path = f"{tablespaces.LINKS}/{oid}/PG_18_202506291/5/16401"

    def add(listed: dict[str, Any]) -> None:
        listed["Files"].append({**listed["Files"][0], "Path": path})

    backups.change_server_list(scratch, add)
    return Damage(
        oid, "PostgreSQL lists its files, the set has none of them", says="unknown to: server"
    )
