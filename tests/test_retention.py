"""Retention follows the plan, and never takes what a kept recovery window still needs."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import PlanConfig
from pipeline.errors import RestoreError
from pipeline.keeping.retention import carry_out, decide
from pipeline.postgres.wal.lsn import parse_segment, segment_name
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.repository.sets import MANIFEST
from tests import sets
from tests.retention_cases import DAY, NOW, Archive, position


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_the_default_plan_on_a_month_of_daily_backups(archive: Archive) -> None:
    for age in range(30):
        archive.take(age)
        archive.take(age, "logical")
        archive.archive(age)
    decision = archive.retain()
    left = {
        kind: [(NOW - found.manifest.finished).days for found in archive.repository.sets(kind)]
        for kind in ("base", "logical")
    }
    assert left == {"base": list(range(7, -1, -1)), "logical": list(range(14, -1, -1))}
    assert archive.wal() == {segment_name(1, position(age)) for age in range(8)}
    told = "\n".join(decision.lines())
    assert "kept 7 days" in told
    assert "kept 14 days" in told
    assert "remove  22 WAL files" in told


def test_a_kept_increment_keeps_its_chain_and_says_so(archive: Archive) -> None:
    full = archive.take(20)
    first = archive.take(15, on=full)
    second = archive.take(5, on=first)
    alone = archive.take(12)
    archive.take(1)
    archive.take(10, on=alone)  # the window of seven days starts from it
    for age in range(25):
        archive.archive(age)
    decision = archive.retain()
    told = dict(decision.spared)
    assert told[full.label] == told[first.label] == f"{second.label} builds on it"
    assert len(archive.repository.labels("base")) == 6
    assert archive.wal() == {segment_name(1, position(age)) for age in range(21)}


def test_a_chain_goes_from_its_end(archive: Archive) -> None:
    """Half way through what is left of it can still be restored."""
    full = archive.take(40)
    links = [full, archive.take(39, on=full)]
    links.append(archive.take(38, on=links[-1]))
    archive.take(20)
    archive.take(1)
    gone = [removal.subject for removal in decide(archive.config, NOW).removals]
    assert gone == [link.label for link in reversed(links)]


def test_deciding_deletes_nothing(archive: Archive) -> None:
    for age in (30, 20, 1):
        archive.take(age)
        archive.archive(age)
    before = sorted(archive.root.rglob("*"))
    assert decide(archive.config, NOW).removals
    assert sorted(archive.root.rglob("*")) == before


def test_the_last_of_a_kind_stays_at_any_age_and_says_why(archive: Archive) -> None:
    base, logical = archive.take(40), archive.take(40, "logical")
    archive.archive(40)
    decision = archive.retain()
    assert {found.label for found in archive.repository} == {base.label, logical.label}
    assert len(archive.wal()) == 1
    told = dict(decision.spared)
    assert "recovery window" in told[base.label]
    assert told[logical.label] == "the newest logical backup"


def test_a_dump_of_one_table_does_not_take_the_place_of_the_database(archive: Archive) -> None:
    whole = archive.take(40, "logical", scope="database")
    part = archive.take(30, "logical", scope="tables")
    archive.take(35, "logical", scope="tables")
    decision = archive.retain()
    assert archive.repository.labels("logical") == [whole.label, part.label]
    assert dict(decision.spared)[whole.label] == "the newest logical backup (database)"


def test_a_kind_without_a_plan_is_left_alone(archive: Archive) -> None:
    kept = [archive.take(age, "notes").label for age in (400, 300)]
    archive.file("sets/notes/notes-20200101T000000Z-aaaa/a", 900)
    assert archive.retain().removals == ()
    assert archive.repository.labels() == kept


def test_a_backup_that_is_being_written_is_not_taken_for_a_leftover(archive: Archive) -> None:
    archive.take(20)
    for age, kept in ((1, True), (20, False)):
        label = archive.repository.new_label("base", NOW - age * DAY)
        archive.file(f"sets/base/{label}/base.tar.zst", age)
        archive.retain()
        assert (archive.root / "sets/base" / label / "base.tar.zst").exists() is kept


def test_without_a_base_backup_no_wal_goes(archive: Archive) -> None:
    archive.archive(40)
    assert archive.retain().removals == ()


def test_histories_salvage_and_foreign_names_stay_what_belongs_to_a_segment_goes_with_it(
    archive: Archive,
) -> None:
    archive.take(1)
    gone = [
        archive.archive(40),
        archive.archive(39, tail=".00000028.backup"),
        archive.archive(38, tail=".partial"),
        archive.archive(37, folder="stream/00000001"),
    ]
    kept = [
        archive.archive(40, folder="salvage/recovery-1/pg_wal"),
        archive.file("wal/00000002.history", 40, "1\t0/1\tx\n"),
        archive.file("wal/0000000100000000000009FF", 40),  # no segment of 16 MiB
        archive.file("wal/notes.txt", 40),
    ]
    archive.retain()
    left = {path.name for path in archive.root.rglob("*") if path.is_file()}
    assert left.isdisjoint(gone[1:])
    assert set(kept) <= left
    assert not (archive.root / "wal" / gone[0]).exists()


def test_wal_before_the_only_base_backup_stays_as_long_as_the_plan_says(archive: Archive) -> None:
    archive.take(1)
    young, old = archive.archive(6), archive.archive(8)
    archive.retain()
    assert archive.wal() == {young}
    assert parse_segment(old).start < parse_segment(young).start


def test_after_a_recovery_into_the_past_the_window_starts_on_the_lineage_of_now(
    archive: Archive,
) -> None:
    """The backup of day 9 lies on the branch that was left: nothing leads from it to now."""
    on_it, abandoned, recent = archive.take(10), archive.take(9), archive.take(2, timeline=2)
    fork = position(10) + (1 << 10)
    archive.file("wal/00000002.history", 3, f"1\t{fork}\tbefore a mistake\n")
    archive.retain()
    assert archive.repository.labels("base") == [on_it.label, recent.label]
    assert abandoned.label not in archive.repository.labels()


def test_what_cannot_be_judged_is_not_thinned_out(archive: Archive) -> None:
    archive.take(20), archive.take(10), archive.take(1)
    archive.archive(40)
    ExpectedEnd("7", 3, position(0), NOW).write(archive.root)
    with pytest.raises(RestoreError, match=r"no 00000003\.history"):
        decide(archive.config, NOW)


def test_an_object_that_another_run_removed_meanwhile_is_no_error(archive: Archive) -> None:
    for age in (30, 20, 1):
        archive.take(age)
    decision = decide(archive.config, NOW)
    assert carry_out(archive.repository.store, decision) == 3
    assert carry_out(archive.repository.store, decision) == 0


def test_the_command_removes_only_when_told(archive: Archive) -> None:
    configuration = archive.root / "pipeline.toml"
    configuration.write_text(f'[repository]\npath = "{archive.root}"\n')
    old, recent = archive.take(900), archive.take(800)
    archive.take(700)
    arguments = ["retain", "--config", str(configuration)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0
    assert f"remove  {old.label}" in told.output
    assert "nothing was removed; to do it: pipeline retain --yes" in told.output
    assert old.label in archive.repository.labels()
    told = CliRunner().invoke(app, [*arguments, "--yes"])
    assert "removed 6 objects" in told.output
    assert {old.label, recent.label}.isdisjoint(archive.repository.labels())


def test_what_a_recovery_salvaged_stays_and_takes_nothings_place(archive: Archive) -> None:
    old = archive.take(40, "topics", **sets.topics(orders="1"))
    kept = archive.take(35, "topics", **sets.topics(orders="1") | {"evidence": "topics-1"})
    told = dict(archive.retain().spared)
    assert told == {
        old.label: "the newest topics backup (all topics)",
        kept.label: "what topics-1 salvaged: the only copy",
    }
    limited = replace(archive, plan=PlanConfig(evidence=34 * DAY))
    assert set(dict(limited.retain().spared)) == {old.label}


def test_the_newest_set_that_holds_anything_of_a_topic_or_group_stays(archive: Archive) -> None:
    """The nightly job went on after the disaster, and nobody noticed for a month."""
    taken = [
        archive.take(60, "topics", **sets.topics(orders="1", sales="2")),
        archive.take(59, "topics", **sets.topics(orders="1", sales="2")),
        archive.take(58, "topics", **sets.topics(orders="3-")),
        archive.take(50, "offsets", **sets.groups(a="orders")),
        archive.take(49, "offsets", **sets.groups(b="orders")),
        archive.take(1, "topics", **sets.topics(orders="3")),
        archive.take(1, "offsets", **sets.groups(b="orders")),
    ]
    told = dict(archive.retain().spared)
    assert told == {
        taken[1].label: "nothing newer holds orders, sales",
        taken[3].label: "nothing newer holds a in orders",
    }
    archive.take(0, "topics", **sets.topics(orders="3") | {"accepted": ["orders", "sales"]})
    archive.take(0, "offsets", **sets.groups(b="orders") | {"accepted": ["a"]})
    assert archive.retain().spared == ()


def test_no_cluster_and_no_database_takes_the_place_of_another(archive: Archive) -> None:
    kept = {
        archive.take(90, "topics", **sets.topics(cluster="A")).label,
        archive.take(80, "topics", **sets.topics(cluster="B")).label,
        archive.take(90, "logical", database="shop", scope="database").label,
        archive.take(80, "logical", database="bank", scope="database").label,
    }
    archive.retain()
    assert set(archive.repository.labels()) == kept


def test_a_set_from_the_future_does_not_take_the_place_of_todays(archive: Archive) -> None:
    old, ahead = archive.take(40, "logical"), archive.take(-30, "logical")
    archive.retain()
    assert archive.repository.labels("logical") == [old.label, ahead.label]


def test_a_manifest_that_cannot_be_read_keeps_what_it_may_need_and_nothing_else(
    archive: Archive,
) -> None:
    old, anchor, bad, recent = (archive.take(age) for age in (20, 15, 5, 1))
    dump = archive.take(60, "logical")
    archive.take(1, "logical")
    archive.archive(40), archive.archive(21), archive.archive(19)
    (archive.root / bad.prefix / MANIFEST).write_text("{")
    decision = archive.retain()
    told = dict(decision.spared)
    assert told[bad.label].startswith("it cannot be read: ")
    assert told[old.label] == f"{bad.label} cannot be read, and may need it"
    assert archive.repository.labels("base") == [*(one.label for one in (old, anchor, bad, recent))]
    assert dump.label not in archive.repository.labels()
    assert len(archive.wal()) == 1


def test_one_that_is_past_its_age_stays_and_holds_nothing_up(archive: Archive) -> None:
    bad, old = archive.take(900), archive.take(20)
    archive.take(9), archive.take(1)
    (archive.root / bad.prefix / MANIFEST).write_text("{")
    archive.archive(30)
    assert set(dict(archive.retain().spared)) >= {bad.label}
    assert old.label not in archive.repository.labels()
    assert bad.label in archive.repository.labels()
    assert archive.wal() == set()


def test_without_an_older_one_a_manifest_that_cannot_be_read_keeps_all_wal(
    archive: Archive,
) -> None:
    bad = archive.take(5)
    archive.take(1)
    (archive.root / bad.prefix / MANIFEST).write_text("{")
    archive.archive(40)
    archive.retain()
    assert len(archive.wal()) == 1
