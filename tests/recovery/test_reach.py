"""What each base backup leads to, against a history that is known, and against the plan."""

import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from fixtures.stacks import toml
from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.errors import TargetUnreachable
from pipeline.postgres.base.reach import Reach, reach
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.lsn import Lsn, segment_start, segments_between
from pipeline.postgres.wal.receiver import EXPECTED_END, ExpectedEnd
from pipeline.runbooks.plan import make
from tests.recovery.history import History, flipped, replaced, segment_at


def answers(history: History, config: PipelineConfig) -> tuple[Reach, Reach]:
    """Of the first and the second backup."""
    first, second = reach(config)
    labels = [history.source.backups[name].label for name in ("first", "second")]
    assert [first.backup, second.backup] == labels
    return first, second


def test_both_backups_lead_from_their_end_to_the_expected_end(history: History) -> None:
    found = answers(history, history.elsewhere(history.repository))
    for name, answer in zip(("first", "second"), found, strict=True):
        facts = history.source.backups[name].manifest.facts
        assert (str(answer.first_lsn), answer.missing) == (facts["end_lsn"], ())
        assert answer.first_time.isoformat() == facts["end_time"]
        assert answer.complete
        assert answer.last_lsn >= history.end
        assert answer.until == ExpectedEnd.read(history.repository).time
    assert found[0].last_lsn == found[1].last_lsn


def test_the_plan_agrees_on_both_sides_of_the_last_position(
    history: History, archive: PipelineConfig
) -> None:
    (archive.repository.path / "wal" / history.segments["behind"]).unlink()
    for answer in answers(history, archive):
        plan = make(archive, Target.parse(f"lsn:{answer.last_lsn}"))
        assert plan.readable_end == str(answer.last_lsn)
        with pytest.raises(TargetUnreachable):
            make(archive, Target.parse(f"lsn:{answer.last_lsn + 8}"))


def test_a_hole_behind_both_ends_both_and_is_named(
    history: History, archive: PipelineConfig
) -> None:
    missing = history.segments["behind"]
    (archive.repository.path / "wal" / missing).unlink()
    commits = history.source.commits
    for answer in answers(history, archive):
        assert not answer.complete
        assert answer.missing == (missing,)
        assert commits["four"].after <= answer.last_lsn < commits["five"].after
        assert f"segment {missing} is missing" in answer.reason
        assert answer.until < commits["five"].time


def test_a_hole_between_the_backups_ends_only_the_older(
    history: History, archive: PipelineConfig
) -> None:
    missing = history.segments["switched"]
    (archive.repository.path / "wal" / missing).unlink()
    first, second = answers(history, archive)
    assert (first.complete, first.missing) == (False, (missing,))
    assert (second.complete, second.missing) == (True, ())


def test_a_damaged_record_ends_the_reach_in_the_segment_that_holds_it(
    history: History, archive: PipelineConfig
) -> None:
    six = history.source.commits["six"]
    damaged = segment_at(archive.repository.path, six.after)
    flipped(damaged, six.after % (16 << 20) - 16)
    for answer in answers(history, archive):
        assert not answer.complete
        assert f"the WAL is damaged in {damaged.name}" in answer.reason
        assert answer.last_lsn < six.after


def test_two_holes_are_both_named(history: History, archive: PipelineConfig) -> None:
    gone = sorted(history.segments[name] for name in ("switched", "behind"))
    for name in gone:
        (archive.repository.path / "wal" / name).unlink()
    first, second = answers(history, archive)
    assert list(first.missing) == gone
    assert list(second.missing) == [history.segments["behind"]]


def test_without_wal_a_backup_leads_to_its_own_end(
    history: History, archive: PipelineConfig
) -> None:
    for segment in (archive.repository.path / "wal").iterdir():
        segment.unlink()
    for answer in answers(history, archive):
        assert answer.first_lsn == answer.last_lsn
        assert answer.reason.startswith("only `immediate`: ")
        assert not answer.complete
        assert answer.missing


def test_what_the_server_wrote_beyond_the_archive_is_missing_by_name(
    history: History, archive: PipelineConfig
) -> None:
    known = ExpectedEnd.read(archive.repository.path)
    _, intact = answers(history, archive)
    further = Lsn(segment_start(intact.last_lsn) + (32 << 20) + 8)
    later = known.time + timedelta(hours=1)
    ExpectedEnd(known.system_identifier, 1, further, later).write(archive.repository.path)
    _, answer = answers(history, archive)
    assert not answer.complete
    assert answer.missing == tuple(segments_between(1, intact.last_lsn, further))
    assert f"the server had come to {further}" in answer.reason
    assert answer.until < later


def test_without_an_expected_end_the_last_transaction_is_the_last_known_moment(
    history: History, archive: PipelineConfig
) -> None:
    (archive.repository.path / EXPECTED_END).unlink()
    for answer in answers(history, archive):
        assert answer.until == history.source.commits["last"].time
        assert "no receiver wrote an expected end" in answer.reason


def test_a_backup_on_a_branch_that_was_left_leads_to_its_own_end(
    history: History, archive: PipelineConfig
) -> None:
    repository, left = archive.repository.path, history.source.commits["three"].after
    (repository / "wal" / "00000002.history").write_text(f"1\t{left}\tbefore a mistake\n")
    known = ExpectedEnd.read(repository)
    ExpectedEnd(known.system_identifier, 2, Lsn(left + 8), known.time).write(repository)
    first, second = answers(history, archive)
    assert first.first_lsn < first.last_lsn <= left
    assert f"timeline 1 was left at {left}" in second.reason
    assert second.first_lsn == second.last_lsn


def test_a_lineage_that_nobody_knows_leaves_each_backup_its_own_end(
    history: History, archive: PipelineConfig
) -> None:
    known = ExpectedEnd.read(archive.repository.path)
    ExpectedEnd(known.system_identifier, 2, known.lsn, known.time).write(archive.repository.path)
    for answer in answers(history, archive):
        assert "no 00000002.history" in answer.reason
        assert not answer.complete


def test_a_set_whose_object_is_gone_or_cut_leads_nowhere_and_the_older_one_is_chosen(
    history: History, archive: PipelineConfig
) -> None:
    """A plan is made before anything is read: what its own list names must be there at least."""
    first, second = (history.source.backups[name] for name in ("first", "second"))
    entry = next(one for one in second.manifest.objects if one.key.endswith(".tar.zst"))
    stored = archive.repository.path / entry.key
    replaced(stored, stored.read_bytes()[:-1])
    told = f"{second.label}: {entry.key} has {entry.size - 1} bytes, expected {entry.size}"
    assert told in answers(history, archive)[1].reason
    assert not answers(history, archive)[1].restorable
    assert make(archive, Target.parse("latest")).backup == first.label
    stored.unlink()
    with pytest.raises(TargetUnreachable, match=f"{second.label}: no object '{entry.key}'"):
        make(archive, Target.parse("latest"), without=[first.label])


def test_the_command_tells_people_and_programs(history: History, archive: PipelineConfig) -> None:
    (archive.repository.path / "wal" / history.segments["behind"]).unlink()
    configuration = archive.repository.path / "pipeline.toml"
    toml.write(archive, configuration, password_file=history.source.stack.password_file)
    told = CliRunner().invoke(app, ["reach", "--config", str(configuration)])
    assert told.exit_code == 0
    assert told.output.count(f"missing  {history.segments['behind']}") == 2
    told = CliRunner().invoke(app, ["reach", "--json", "--config", str(configuration)])
    found = [json.loads(line) for line in told.output.splitlines()]
    assert found == [answer.as_facts() for answer in answers(history, archive)]
    assert [facts["complete"] for facts in found] == [False, False]
