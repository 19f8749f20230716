"""What is inside a base backup: files, label, control data. No digest of ours is believed."""

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.links import named, of_every_link
from checks.subjects import BaseBackup
from fixtures.faults import backups, control, files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError
from pipeline.postgres.base import chain
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import BackupSet

SERVER_MANIFEST, LABEL, CONTROL = "backup_manifest", "backup_label", "global/pg_control"
_LABEL_START = re.compile(r"START WAL LOCATION: (\S+)")
_LABEL_TIMELINE = re.compile(r"START TIMELINE: (\d+)")
_LABEL_NAME = re.compile(r"LABEL: (.*)")
_LABEL_SINCE = re.compile(r"INCREMENTAL FROM LSN: (\S+)")
_OWN_SUM = re.compile(rb'"Manifest-Checksum": "([0-9a-f]{64})"\}\s*$')


@check(
    "base.files-match-server-manifest",
    on=BaseBackup,
    severity="blocker",
    advice="The backup was wrong before it was stored, or was rewritten with its seal: take a new "
    "one, restore from the one before it, and look for who can write to the repository.",
)
@of_every_link
def files_match_server_manifest(base: BaseBackup) -> Iterator[Observation]:
    """Every file in the base backup is the one that PostgreSQL listed while it was copied."""
    for key, trouble in base.contents.trouble.items():
        yield Observation(key, trouble)
    manifest = base.contents.kept.get(SERVER_MANIFEST)
    if manifest is None:
        yield Observation(SERVER_MANIFEST, "not in the backup")
        return
    yield Observation(SERVER_MANIFEST, _own_sum(manifest))
    expected = {
        entry["Path"]: (entry["Size"], entry["Checksum"]) for entry in json.loads(manifest)["Files"]
    }
    for name, listed in expected.items():
        yield Observation(name, _difference(listed, base.contents.files.get(name)))
    # WAL is not listed file by file: its positions are, and pg_waldump reads it
    for name in base.contents.files.keys() - expected.keys() - {SERVER_MANIFEST}:
        if not name.startswith("pg_wal/"):
            yield Observation(name, "PostgreSQL did not list it")


def _difference(listed: tuple[int, str], found: tuple[int, str] | None) -> str | None:
    if found is None:
        return "not in the backup"
    if found[0] != listed[0]:
        return f"expected {listed[0]} bytes, found {found[0]}"
    return None if found == listed else f"expected sha256 {listed[1]}, found {found[1]}"


def _own_sum(manifest: bytes) -> str | None:
    """Compare the manifest with the digest in its last line, over all lines before that one."""
    stated = _OWN_SUM.search(manifest)
    body = manifest[: manifest.rindex(b"\n", 0, -2) + 1]
    if stated is None:
        return "it has no checksum of its own"
    found = hashlib.sha256(body).hexdigest()
    return None if stated[1].decode() == found else f"its sha256 is {found}, it says {stated[1]!r}"


@files_match_server_manifest.detects
def file_bit_flipped_before_storing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Bad memory on the way: our own digest was taken of the damaged bytes."""
    name, what = _some_file(scratch, rng), "one bit was flipped, all digests of ours agree"
    return change_file(scratch, name, lambda content: files.flipped(content, rng), what).told_as(
        "expected sha256"
    )


@files_match_server_manifest.detects
def file_left_out(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """An exclude rule that matches too much."""
    return change_file(
        scratch, _some_file(scratch, rng), lambda _: None, "it was left out"
    ).told_as("not in the backup")


@files_match_server_manifest.detects
def file_truncated(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A file that was cut while it was read."""
    name = _some_file(scratch, rng)
    return change_file(
        scratch, name, lambda content: content[: len(content) // 2], "it was cut"
    ).told_as(" bytes, found")


@files_match_server_manifest.detects
def file_added(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Something that another program keeps in the data folder, or hid there."""
    name = f"base/{rng.randrange(100_000, 999_999)}"
    backups.repack(scratch, lambda _, content: content, added={name: rng.randbytes(100)})
    return Damage(name, "it is in the archive, and in no list", says="PostgreSQL did not list it")


def _some_file(scratch: Scratch[BaseBackup], rng: Random) -> str:
    """One of the files of tables and indexes, with content."""
    found = scratch.copy.contents.files.items()
    return rng.choice(sorted(name for name, (size, _) in found if name[:5] == "base/" and size))


def change_file(
    scratch: Scratch[BaseBackup],
    name: str,
    change: backups.Change,
    what: str = "it was changed",
    *,
    forged: bool = False,
    backup: BackupSet | None = None,
) -> Damage:
    """Change one file in the backup; `forged` changes PostgreSQL's list of files with it.

    In the newest base backup, unless one below it is named.
    """
    backups.repack(
        scratch,
        lambda found, content: change(content) if found == name else content,
        forged=forged,
        backup=backup,
    )
    return Damage(name if backup is None else named(backup.label, name), what)


@check(
    "base.label-agrees-with-manifest",
    on=BaseBackup,
    severity="blocker",
    advice="Do not start a server from it: without the right backup_label PostgreSQL replays from "
    "the wrong place and reports nothing. Restore from the set before it (`--without`).",
)
@of_every_link
def label_agrees_with_manifest(base: BaseBackup) -> Iterator[Observation]:
    """The backup_label says where replay must start, and it is the one of this backup."""
    content = base.contents.kept.get(LABEL)
    if content is None:
        yield Observation(LABEL, "not in the backup")
        return
    text = content.decode()
    facts = base.facts
    yield _agrees("start_lsn", facts["start_lsn"], _LABEL_START.search(text))
    yield _agrees("timeline", str(facts["timeline"]), _LABEL_TIMELINE.search(text))
    yield _agrees("label", base.manifest.label, _LABEL_NAME.search(text))
    stated = facts.get(chain.PARENT)
    since = None if stated is None else stated["start_lsn"]
    yield _agrees(chain.PARENT, since, _LABEL_SINCE.search(text))


def _agrees(name: str, expected: str | None, found: re.Match[str] | None) -> Observation:
    told = found[1] if found else None
    problem = None if told == expected else f"expected {expected} in {LABEL}, found {told}"
    return Observation(name, problem)


@label_agrees_with_manifest.detects
def label_left_out(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """The classic: a copy without backup_label starts, and misses data without a word."""
    return change_file(scratch, LABEL, lambda _: None, "it was left out").told_as(
        "not in the backup"
    )


@label_agrees_with_manifest.detects
def label_of_another_start(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """The label of another backup of the same server."""
    start = Lsn.parse(scratch.copy.facts["start_lsn"])
    other = Lsn(start - rng.randrange(1, start))

    def replace(content: bytes) -> bytes:
        return content.replace(str(start).encode(), str(other).encode())

    change_file(scratch, LABEL, replace, "")
    return Damage("start_lsn", f"the label names {other}", says="in backup_label, found")


@label_agrees_with_manifest.detects
def manifest_of_another_backup(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Two backups whose manifests were exchanged, each with a good seal."""
    timeline = scratch.copy.facts["timeline"] + rng.randrange(1, 9)
    return backups.change_fact(scratch, "timeline", timeline).told_as("in backup_label, found")


@check(
    "base.control-data-agrees",
    on=BaseBackup,
    severity="blocker",
    advice="This is not a copy of that server as it was then. Never use pg_resetwal on it; restore "
    "from the set before it (`--without`).",
)
@of_every_link
def control_data_agrees(base: BaseBackup) -> Iterator[Observation]:
    """The control file is intact and belongs to the server and the moment of the manifest."""
    if CONTROL not in base.contents.kept:
        yield Observation(CONTROL, "not in the backup")
        return
    told, damaged = control_told(base)
    yield Observation(CONTROL, "its checksum does not match its content" if damaged else None)
    facts = base.facts
    expected: dict[str, tuple[str, Any]] = {
        "system_identifier": ("Database system identifier", facts["system_identifier"]),
        "wal_segment_size": ("Bytes per WAL segment", facts["wal_segment_size"]),
    }
    for name, (line, value) in expected.items():
        same = told.get(line) == str(value)
        yield Observation(name, None if same else f"expected {value}, found {told.get(line)}")
    checksums = told.get("Data page checksum version") != "0"
    same = checksums == facts["data_checksums"]
    yield Observation("data_checksums", None if same else f"the control file says {checksums}")
    yield Observation("start_lsn", _checkpoint_problem(told, Lsn.parse(facts["start_lsn"])))
    state = told.get("Database cluster state", "")
    reset = f"the server was {state!r}: it ran while it was copied, so pg_resetwal wrote this"
    yield Observation("state", reset if "shut down" in state else None)
    checkpoint, end = Lsn.parse(told["Latest checkpoint location"]), Lsn.parse(facts["end_lsn"])
    late = f"the latest checkpoint, {checkpoint}, is after the end of the backup, {end}"
    yield Observation("end_lsn", late if checkpoint > end else None)


def control_told(base: BaseBackup) -> tuple[dict[str, str], bool]:
    """What pg_controldata tells, and whether it warns: it ends with 0 even for a bad checksum."""
    control = base.contents.kept.get(CONTROL)
    if control is None:
        raise BackupError(f"{base.manifest.label}: there is no {CONTROL}")
    with tempfile.TemporaryDirectory(prefix="checks-") as name:
        path = Path(name, CONTROL)
        path.parent.mkdir()
        path.write_bytes(control)
        base.tools.own(Path(name))
        with base.tools.popen("pg_controldata", name, stderr=subprocess.STDOUT) as process:
            output = process.communicate()[0].decode(errors="replace")
    pairs = (line.split(":", 1) for line in output.splitlines() if ":" in line)
    told = {name.strip(): value.strip() for name, value in pairs}
    if "Database system identifier" not in told:
        raise BackupError(f"pg_controldata does not tell a system identifier:\n{output}")
    return told, "warning:" in output


def _checkpoint_problem(told: dict[str, str], start: Lsn) -> str | None:
    checkpoint = Lsn.parse(told["Latest checkpoint location"])
    if checkpoint >= start:
        return None
    return f"the latest checkpoint, {checkpoint}, is before the start of the backup, {start}"


@control_data_agrees.detects
def control_file_bit_flipped(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Damage in the part that its checksum covers."""

    def flip(content: bytes) -> bytes:
        return files.flipped(content, rng, start=48, stop=200)

    return change_file(scratch, CONTROL, flip, "one bit was flipped").told_as(
        "its checksum does not match"
    )


@control_data_agrees.detects
def control_file_left_out(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """The file that must be copied last, and was not."""
    return change_file(scratch, CONTROL, lambda _: None, "it was left out").told_as(
        "not in the backup"
    )


@control_data_agrees.detects
def backup_of_another_server(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """The manifest names one server, the files come from another."""
    other = str(rng.randrange(1 << 62))
    return backups.change_fact(scratch, "system_identifier", other).told_as(f"expected {other}")


@control_data_agrees.detects
def control_file_reset(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """Somebody ran pg_resetwal on a copy that did not start, and stored it again."""
    copy = scratch.copy
    version = copy.contents.kept["PG_VERSION"]
    change_file(
        scratch,
        CONTROL,
        lambda content: control.reset(content, version, copy.tools),
        forged=True,
    )
    return Damage(
        "state",
        "pg_resetwal wrote a new control file, all lists agree",
        says="pg_resetwal wrote this",
    )


@control_data_agrees.detects
def control_file_of_a_later_day(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A control file copied after the backup had ended: recovery would begin in its future."""
    end = Lsn.parse(scratch.copy.facts["end_lsn"])
    checkpoint = Lsn.parse(control_told(scratch.copy)[0]["Latest checkpoint location"])
    earlier = Lsn(checkpoint - rng.randrange(1, 1 << 12))
    assert earlier < end
    backups.change_fact(scratch, "end_lsn", str(earlier))
    return Damage(
        "end_lsn",
        f"the set ends at {earlier}, its control file is of {checkpoint}",
        says="the latest checkpoint",
    )
