"""The stretch of a dropped slot, decoded again, is what a slot says that was never dropped."""

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest

from fixtures.stacks.artifacts import Artifacts
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.cli.changes import show
from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError, TargetUnreachable
from pipeline.postgres.base import base_backup, decodable
from pipeline.postgres.redecode.decoding import place
from pipeline.postgres.redecode.pgoutput import Change, Committed, Event, Message, Truncation
from pipeline.postgres.redecode.standby import CataloguesPruned
from pipeline.postgres.redecode.telling import as_facts
from pipeline.postgres.replication import guard
from pipeline.postgres.wal import archiving
from pipeline.postgres.wal.lsn import SEGMENT_SIZE, Lsn, segments_between
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.redecoding import redecoded
from pipeline.runbooks.side import SideServer
from tests.quiet import QUIET
from tests.recovery.history import Source
from tests.recovery.redecoding import (
    CONTROL,
    LOST,
    PUBLICATION,
    RENEWED,
    WEARING,
    Life,
    confirmed,
    taken,
)


@pytest.fixture(scope="module")
def stack(artifacts: Artifacts) -> Iterator[NativeStack]:
    with NativeStack.launch(
        artifacts=artifacts,
        components=[Component.POSTGRES],
        settings=lambda config: {
            **archiving.settings(config),
            **QUIET,
            "max_prepared_transactions": "10",
        },
    ) as stack:
        yield stack


@dataclass
class Told:
    """A stretch, what is decoded of it, and what the control slot says."""

    source: Source
    start: Lsn
    end: Lsn
    control: list[Event] = field(default_factory=list)
    renewed: list[Event] = field(default_factory=list)

    def decoded(self, config: PipelineConfig | None = None) -> list[Event]:
        with redecoded(config or self.source.config, self.start, self.end, print) as events:
            return list(events)

    def expected(self) -> list[Event]:
        return [event for event in self.control if self.start <= place(event) < self.end]


def lived(source: Source, seed: int, acts: int) -> Told:
    """Lose a slot amid a life that goes on, and make it anew; the control slot stays."""
    with closing(Life(source, random.Random(seed)).begin()) as life:
        life.live(acts // 4)
        source.back_up("base")
        life.go_on(acts // 4)
        taken(source, LOST)  # while transactions are open, and prepared ones wait
        start = confirmed(source, LOST)
        life.go_on(acts // 4)
        source.archive()
        source.run(f"select pg_drop_replication_slot('{LOST}')", "checkpoint")
        life.live(acts // 4)
        source.archive()
        source.run(f"select pg_create_logical_replication_slot('{RENEWED}', 'pgoutput')")
        end = confirmed(source, RENEWED)
        life.live(acts // 10)
    source.archive()
    return Told(source, start, end, taken(source, CONTROL), taken(source, RENEWED))


@pytest.fixture(scope="module")
def told(stack: NativeStack) -> Told:
    return lived(Source(stack), seed=1, acts=400)


def test_the_stretch_of_a_dropped_slot_is_what_a_control_slot_says(told: Told) -> None:
    expected = told.expected()
    assert told.decoded() == expected
    assert len(expected) > 200
    assert {type(event) for event in expected} == {Change, Truncation, Message, Committed}
    assert told.renewed == [event for event in told.control if place(event) >= told.end]


def test_a_slot_begins_amid_a_segment(told: Told) -> None:
    """Its reader has opened the segment by then, and goes on as more of it is handed over."""
    source = told.source
    source.archive()
    source.run(
        "insert into unpublished select g, repeat('x', 100) from generate_series(10001, 11000) g"
    )
    source.run("delete from unpublished", "select pg_log_standby_snapshot()")
    start = source.position()
    source.run("insert into moving (id) values (-50)")
    end = source.position()
    source.archive()
    changes = [one for one in Told(source, start, end).decoded() if isinstance(one, Change)]
    assert [one.key for one in changes] == [{"id": "-50"}]


def test_a_missing_segment_is_named_and_nothing_is_begun(told: Told) -> None:
    (between,) = segments_between(1, told.start + SEGMENT_SIZE, told.start + SEGMENT_SIZE + 1)
    segment = told.source.config.repository.path / "wal" / between
    aside = segment.rename(segment.with_name("aside"))
    with pytest.raises(TargetUnreachable, match=f"segment {between} is missing, and"):
        told.decoded()
    aside.rename(segment)


def test_a_stretch_that_is_not_archived_yet_is_refused(told: Told) -> None:
    beyond = replace(told, end=Lsn(told.source.position() + 1))
    with pytest.raises(TargetUnreachable, match=r"is missing; WAL up to .* was asked for"):
        beyond.decoded()


def test_a_base_backup_behind_the_beginning_is_too_young(told: Told) -> None:
    base = told.source.backups["base"]
    early = replace(told, start=Lsn.parse(base.manifest.facts["start_lsn"]))
    with pytest.raises(TargetUnreachable, match=f"{base.label}: is consistent only from"):
        early.decoded()


def test_a_publication_that_never_was_is_no_empty_stretch(told: Told) -> None:
    cdc = told.source.config.cdc.model_copy(update={"publication": "misspelt"})
    with pytest.raises(RestoreError, match="publication 'misspelt' did not exist at"):
        told.decoded(told.source.config.model_copy(update={"cdc": cdc}))


def test_a_side_server_that_dies_amid_a_stretch_gives_no_short_answer(told: Told) -> None:
    side = SideServer.named(told.source.config, "redecode")
    with redecoded(told.source.config, told.start, told.end, print) as events:
        next(events)
        os.kill(side.server.pid() or 0, signal.SIGQUIT)
        with pytest.raises(RestoreError, match="the side server"):
            list(events)
    assert not side.folder.exists()


def test_a_publication_that_was_dropped_meanwhile_is_told(told: Told) -> None:
    source, insert = told.source, "insert into moving (id) values ({})"
    start = source.position()
    source.run(f"drop publication {PUBLICATION}", insert.format(-1))
    source.run(f"create publication {PUBLICATION} for table moving", insert.format(-2))
    end = source.position()
    source.archive()
    with pytest.raises(
        RestoreError, match=r"skipped loading publication|publication \"\w+\" does not exist"
    ):
        Told(source, start, end).decoded()


def test_catalogues_that_nobody_held_are_told_by_name(told: Told) -> None:
    source = told.source
    for slot in (CONTROL, RENEWED):
        source.run(f"select pg_drop_replication_slot('{slot}')")
    source.run("checkpoint")
    start = source.position()
    source.run(*WEARING)
    end = source.position()
    source.archive()
    with pytest.raises(CataloguesPruned, match=r"rows of the catalogues .* were removed by VACUUM"):
        Told(source, start, end).decoded()


def test_a_stretch_that_ends_within_a_record_is_refused(told: Told) -> None:
    cut = next(event for event in told.expected() if isinstance(event, Committed))
    within = Lsn(cut.end_lsn - 8)
    with pytest.raises(TargetUnreachable, match=f"{within}, the end .*: say {cut.transaction.lsn}"):
        replace(told, end=within).decoded()


def test_a_transaction_is_shown_row_by_row(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [event for event in told.expected() if isinstance(event, Change)]
    shown = next(event for event in changes if event.operation == "update" and event.old)
    config, xid = told.source.config, shown.transaction.xid
    show(config, begin=None, end=None, xid=xid, tables=[shown.relation.name], as_json=True)
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    alike = [event for event in changes if event.transaction == shown.transaction]
    wanted = [event for event in alike if event.relation.name == shown.relation.name]
    assert [one["op"] for one in facts] == [event.operation for event in wanted]
    assert facts[wanted.index(shown)] == as_facts(shown)


def test_a_guard_holds_the_catalogues_that_nobody_else_held(told: Told) -> None:
    source = told.source
    cdc = source.config.cdc.model_copy(update={"catalogue_guard": "guard"})
    config = source.config.model_copy(update={"cdc": cdc})
    repository = Repository(FolderStore(config.repository.path))
    source.backups["guarded"] = base_backup.take(config, repository)
    guarded = source.backups["guarded"].manifest.facts[decodable.FACT]["guard"]
    assert guarded["holds"] == guarded["now"]
    start = source.position()
    source.run(*WEARING)
    lowest = source.run("select min(id) from moving")
    end = source.position()
    source.next_second()
    later = base_backup.take(config, repository).manifest.facts[decodable.FACT]["guard"]
    assert later["holds"] == guarded["now"] < later["now"]
    with source.connect() as connection:
        assert guard.held(connection, "guard") == guarded["now"]
    source.archive()
    (inserted,) = (one for one in Told(source, start, end).decoded() if isinstance(one, Change))
    assert inserted.key == {"id": str(lowest)}
    assert "late" in {column.name for column in inserted.relation.columns}
    source.run("select pg_drop_replication_slot('guard')")


def test_a_stretch_goes_on_behind_a_promotion(stack: NativeStack, told: Told) -> None:
    source = told.source
    start = source.position()
    source.run("insert into moving (id) values (-100)")
    stack.stop(Component.POSTGRES)
    (source.data / "standby.signal").touch()
    source.tools.own(source.data / "standby.signal")
    stack.start(Component.POSTGRES)
    source.run("select pg_promote()", "insert into moving (id) values (-101)")
    end = source.position()
    source.run("checkpoint")
    source.back_up("promoted")  # or nobody knows of the timeline
    source.archive()
    events = Told(source, start, end).decoded()
    assert [one.key for one in events if isinstance(one, Change)] == [
        {"id": "-100"},
        {"id": "-101"},
    ]


@pytest.mark.slow
def test_a_long_life_is_decoded_again_as_well(stack: NativeStack) -> None:
    stack.make_clean()
    told = lived(Source(stack), seed=random.SystemRandom().randrange(1 << 32), acts=6000)
    assert told.decoded() == told.expected()
