"""Where a recovery will end, decided from the archive alone, against a history that is known."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, LossNotAccepted, TargetUnreachable
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.receiver import EXPECTED_END, ExpectedEnd
from pipeline.repository.sets import Manifest
from pipeline.runbooks.plan import Plan, make
from tests.recovery.history import History, flipped, replaced, segment_at

MOMENT = timedelta(microseconds=1)
SYSTEM_IDENTIFIER = slice(24, 32)  # in the header of a segment


def of_server(path: Path, system_identifier: int) -> None:
    """Say in a segment that it is of another server."""
    content = bytearray(path.read_bytes())
    content[SYSTEM_IDENTIFIER] = system_identifier.to_bytes(8, "little")
    replaced(path, bytes(content))


def plan(config: PipelineConfig, target: str, accept_end: Lsn | None = None) -> Plan:
    return make(config, Target.parse(target), accept_end=accept_end)


def label(history: History, name: str) -> str:
    return history.source.backups[name].label


@dataclass(frozen=True)
class Case:
    """A target, the backup that leads there, and between which commits replay will stand."""

    target: Callable[[History], str]
    backup: str
    after: str
    before: str


def at(text: str, note: str = "") -> Callable[[History], str]:
    def target(history: History) -> str:
        commit = history.source.commits.get(note)
        return text.format(c=commit, h=history)

    return target


CASES = {
    "latest": Case(at("latest"), "second", "last", ""),
    "immediate": Case(at("immediate"), "second", "four", "five"),
    "a moment between commits": Case(at("time:{h.moments[between]}"), "first", "one", "two"),
    "the very moment of a commit": Case(at("time:{c.time}", "two"), "first", "two", "three"),
    "before its moment": Case(at("before:time:{c.time}", "two"), "first", "one", "two"),
    "a moment after all commits": Case(at("time:{h.moments[after]}"), "second", "last", ""),
    "a transaction": Case(at("xid:{c.xid}", "two"), "first", "two", "three"),
    "before a transaction": Case(at("before:xid:{c.xid}", "two"), "first", "one", "two"),
    "before one that committed after a switch": Case(
        at("before:xid:{c.xid}", "straddled"), "first", "three", "straddled"
    ),
    "the last transaction": Case(at("xid:{c.xid}", "last"), "second", "last", ""),
    "a position": Case(at("lsn:{c.after}", "two"), "first", "two", "three"),
    "before a position": Case(at("before:lsn:{c.after}", "two"), "first", "two", "three"),
    "a restore point": Case(at("name:migration"), "first", "two", "three"),
    "the last position": Case(at("lsn:{h.end}"), "second", "last", ""),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_target_leads_to_its_place_from_the_newest_backup_before_it(
    history: History, case: Case
) -> None:
    found = plan(history.config, case.target(history))
    assert found.backup == label(history, case.backup)
    commits = history.source.commits
    stop = Lsn.parse(found.stop)
    assert commits[case.after].after <= stop
    assert not case.before or stop < commits[case.before].after
    assert found.shortfall == ""


@pytest.mark.parametrize(
    ("target", "note"), [("xid:{c.xid}", "two"), ("xid:{c.xid}", "straddled"), ("latest", "last")]
)
def test_a_stop_right_after_a_commit_is_known_to_the_byte(
    history: History, target: str, note: str
) -> None:
    if target == "latest":
        assert Lsn.parse(plan(history.config, target).stop) >= history.end
    else:
        found = plan(history.config, at(target, note)(history))
        assert Lsn.parse(found.stop) == history.source.commits[note].after


def test_a_target_before_every_backup_names_each_and_from_where_on_it_is_consistent(
    history: History,
) -> None:
    zero = history.source.commits["zero"]
    with pytest.raises(TargetUnreachable) as refused:
        plan(history.config, f"lsn:{zero.after}")
    for name in ("first", "second"):
        end = history.source.backups[name].manifest.facts["end_lsn"]
        told = f"{label(history, name)}: is consistent only from {end} on"
        assert told in str(refused.value)


def test_a_transaction_before_every_backup_is_not_found_in_the_wal(history: History) -> None:
    zero = history.source.commits["zero"]
    for target in (f"xid:{zero.xid}", "name:never"):
        with pytest.raises(TargetUnreachable, match=rf"nothing in the WAL to .* is {target}"):
            plan(history.config, target)


def test_a_moment_before_every_backup_is_refused_although_commits_follow_it(
    history: History,
) -> None:
    """Replay would stop at the next commit, with all in it that the backup's files hold."""
    zero = history.source.commits["zero"]
    with pytest.raises(TargetUnreachable, match="is consistent only from"):
        plan(history.config, f"time:{zero.time}")


def test_targets_beyond_the_archive_are_refused(history: History) -> None:
    for target, told in (
        (f"time:{history.moments['after'] + timedelta(hours=1)}", "lies beyond the archive"),
        (f"lsn:{history.end + (32 << 20)}", "the WAL ends at"),
        ("xid:4000000", "nothing in the WAL to"),
    ):
        with pytest.raises(TargetUnreachable, match=told):
            plan(history.config, target)


def test_an_empty_repository_says_that_there_is_no_backup(history: History, tmp_path: Path) -> None:
    with pytest.raises(TargetUnreachable, match="there is no base backup"):
        plan(history.elsewhere(tmp_path), "latest")


def test_a_hole_before_the_target_is_refused_by_the_name_of_the_segment(
    history: History, archive: PipelineConfig
) -> None:
    missing = history.segments["behind"]
    (archive.repository.path / "wal" / missing).unlink()
    six = history.source.commits["six"]
    for target in (f"xid:{six.xid}", f"lsn:{six.after}", f"before:xid:{six.xid}"):
        with pytest.raises(TargetUnreachable, match=f"segment {missing} is missing"):
            plan(archive, target)
    for target in ("latest", f"time:{six.time}"):
        with pytest.raises(LossNotAccepted, match=f"segment {missing} is missing"):
            plan(archive, target)


def test_a_hole_before_the_newest_backup_or_behind_the_target_does_not_matter(
    history: History, archive: PipelineConfig
) -> None:
    (archive.repository.path / "wal" / history.segments["switched"]).unlink()
    assert plan(archive, "latest").backup == label(history, "second")
    with pytest.raises(TargetUnreachable, match=f"segment {history.segments['switched']} is"):
        plan(archive, f"xid:{history.source.commits['four'].xid}")


def test_what_the_server_still_holds_counts_because_a_recovery_saves_it_first(
    history: History, archive: PipelineConfig
) -> None:
    (archive.repository.path / "wal" / history.segments["behind"]).unlink()
    beside = archive.model_copy(update={"postgres": history.config.postgres})
    assert plan(beside, "latest").shortfall == ""
    for path in (archive.repository.path / "sets").rglob("manifest.json"):
        backup = Manifest.unsealed(path.read_bytes(), "")
        facts = {**backup.facts, "system_identifier": "4711"}
        path.write_bytes(backup.model_copy(update={"facts": facts}).sealed())
    known = ExpectedEnd.read(archive.repository.path)
    ExpectedEnd("4711", known.timeline, known.lsn, known.time).write(archive.repository.path)
    for path in (archive.repository.path / "wal").glob("?" * 24):
        of_server(path, 4711)
    with pytest.raises(LossNotAccepted, match="is missing"):
        plan(beside, "latest")


def shortened(path: Path) -> str:
    replaced(path, path.read_bytes()[:100])
    return "holds 100 of 16,777,216 bytes"


def emptied(path: Path) -> str:
    replaced(path, b"")
    return "holds 0 of 16,777,216 bytes"


def zeroed(path: Path) -> str:
    replaced(path, bytes(path.stat().st_size))
    return "begins with nothing"


def foreign(path: Path) -> str:
    of_server(path, 4711)
    return "is of the server with system identifier 4711, not "


def renamed(path: Path) -> str:
    replaced(path, path.with_name(f"{int(path.name, 16) - 1:024X}").read_bytes())
    return "begins at "


@pytest.mark.parametrize("damage", [shortened, emptied, zeroed, foreign, renamed])
def test_a_segment_that_is_none_is_told_by_its_name_and_a_whole_copy_of_it_is_read(
    history: History, archive: PipelineConfig, damage: Callable[[Path], str]
) -> None:
    """Moments before it stay in reach, and what lies behind it is not blamed on another one."""
    six = history.source.commits["six"]
    path = segment_at(archive.repository.path, six.after)
    whole = path.read_bytes()
    told = damage(path)
    named = f"segment {path.name} cannot be used: wal/{path.name} {told}"
    with pytest.raises(TargetUnreachable, match=named):
        plan(archive, f"xid:{six.xid}")
    with pytest.raises(LossNotAccepted, match=named):
        plan(archive, "latest")
    assert plan(archive, f"xid:{history.source.commits['two'].xid}").backup
    streamed = archive.repository.path / "stream" / "1"
    streamed.mkdir(parents=True, exist_ok=True)
    (streamed / path.name).write_bytes(whole)
    found = plan(archive, "latest")
    assert found.shortfall == ""
    assert f"read from another copy, as wal/{path.name} {told}" in found.readable_reason


def test_a_damaged_record_before_the_target_is_refused_by_its_segment(
    history: History, archive: PipelineConfig
) -> None:
    six = history.source.commits["six"]
    damaged = segment_at(archive.repository.path, six.after)
    flipped(damaged, six.after % (16 << 20) - 16)
    for target, refusal in (
        (f"xid:{six.xid}", TargetUnreachable),
        ("latest", LossNotAccepted),
    ):
        with pytest.raises(refusal, match=f"the WAL is damaged in {damaged.name}"):
            plan(archive, target)


def test_a_backup_brings_its_own_wal_so_that_immediate_needs_no_archive(
    history: History, archive: PipelineConfig
) -> None:
    for segment in (archive.repository.path / "wal").iterdir():
        segment.unlink()
    found = plan(archive, "immediate")
    assert found.backup == label(history, "second")
    assert found.stop == history.source.backups["second"].manifest.facts["end_lsn"]


def test_latest_without_an_expected_end_is_refused_until_that_end_is_accepted_by_name(
    archive: PipelineConfig,
) -> None:
    (archive.repository.path / EXPECTED_END).unlink()
    with pytest.raises(LossNotAccepted, match="how far the server had come is unknown") as refused:
        plan(archive, "latest")
    end = Lsn.parse(str(refused.value).rpartition("--accept-end ")[2])
    assert plan(archive, "latest", accept_end=end).stop == str(end)
    assert plan(archive, "latest", accept_end=Lsn(end - 8)).stop == str(end)  # or later
    with pytest.raises(LossNotAccepted, match=f"{end + 8} was accepted, which lies behind it"):
        plan(archive, "latest", accept_end=end + 8)


def test_a_moment_that_no_commit_follows_needs_an_expected_end(
    history: History, archive: PipelineConfig
) -> None:
    (archive.repository.path / EXPECTED_END).unlink()
    with pytest.raises(TargetUnreachable, match="no receiver wrote how far"):
        plan(archive, f"time:{history.moments['after']}")


def test_wal_short_of_the_expected_end_is_a_loss_in_bytes_to_be_accepted(
    history: History, archive: PipelineConfig
) -> None:
    known = ExpectedEnd.read(archive.repository.path)
    wanted = Lsn(known.lsn + (32 << 20))
    ExpectedEnd(known.system_identifier, known.timeline, wanted, known.time).write(
        archive.repository.path
    )
    with pytest.raises(LossNotAccepted, match=rf"had come to {wanted}.*bytes of WAL are missing"):
        plan(archive, "latest")
    with pytest.raises(LossNotAccepted):
        plan(archive, f"time:{history.moments['after']}")
    assert plan(archive, f"xid:{history.source.commits['last'].xid}").shortfall == ""


def test_a_backup_of_another_server_is_passed_over(
    history: History, archive: PipelineConfig
) -> None:
    known = ExpectedEnd.read(archive.repository.path)
    ExpectedEnd("4711", known.timeline, known.lsn, known.time).write(archive.repository.path)
    with pytest.raises(TargetUnreachable, match="is of another server") as refused:
        plan(archive, "latest")
    assert label(history, "first") in str(refused.value)


def test_an_expected_end_that_cannot_be_read_is_not_taken_for_none(
    archive: PipelineConfig,
) -> None:
    (archive.repository.path / EXPECTED_END).write_text('{"lsn": "0/3')
    with pytest.raises(BackupError, match=f"{EXPECTED_END} cannot be read"):
        plan(archive, "latest")


def test_an_expected_end_of_an_older_timeline_says_nothing_about_a_newer_one(
    history: History, archive: PipelineConfig
) -> None:
    """After a recovery into the past the abandoned timeline had come further: that is no loss."""
    repository = archive.repository.path
    known = ExpectedEnd.read(repository)
    left = history.source.commits["three"].after
    (repository / "wal" / "00000002.history").write_text(f"1\t{left}\tbefore a mistake\n")
    found = plan(archive, f"xid:{history.source.commits['two'].xid}")
    assert (found.timeline, found.shortfall) == (1, "")
    ExpectedEnd(known.system_identifier, 2, Lsn(left + 8), known.time).write(repository)
    assert plan(archive, f"xid:{history.source.commits['two'].xid}").timeline == 2


def test_a_plan_tells_people_what_it_will_do_and_is_read_back_from_a_journal(
    history: History,
) -> None:
    found = plan(history.config, "latest")
    lines = "\n".join(found.lines())
    for told in (found.target, found.backup, found.stop, found.expected_end):
        assert told in lines
    assert f"of the server     with system identifier {found.system_identifier}" in lines
    assert Plan.of_facts(found.as_facts()) == found
    earlier = found.as_facts()
    del earlier["passed_over"]
    assert Plan.of_facts(earlier) == found
