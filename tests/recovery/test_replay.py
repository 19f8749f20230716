"""Replay stands where the plan says, and the server holds what was committed up to there."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError
from pipeline.postgres.base.restore import unpack
from pipeline.postgres.replay import asking
from pipeline.postgres.replay.replay import private_server, promote
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.journal import Journal
from pipeline.runbooks.plan import Plan, make
from pipeline.runbooks.point_in_time import PointInTimeRecovery
from pipeline.runbooks.replaying import order_of, replayed
from tests.recovery.history import SOON, History, copied, flipped, replaced

NOTES = ["zero", "one", "two", "three", "straddled", "four", "five", "six", "last"]
_NUMBERS = itertools.count(1)


class Trial:
    """A recovery in the scratch folder, by the steps that `pipeline recover postgres` runs."""

    def __init__(self, history: History, config: PipelineConfig) -> None:
        self.history = history
        self.folder = history.source.stack.folder / "scratch" / f"trial-{next(_NUMBERS)}"
        postgres = config.postgres.model_copy(update={"data": self.folder / "data"})
        self.config = config.model_copy(update={"postgres": postgres})
        self.folder.mkdir()
        history.source.tools.own(self.folder)
        self.seen: dict[str, Any] = {}

    def planned(self, target: str, accept_end: Lsn | None = None) -> PointInTimeRecovery:
        """A recovery whose plan is made and whose base backup is in place."""
        parsed = Target.parse(target)
        plan = make(self.config, parsed, accept_end=accept_end)
        journal = Journal(self.config.repository.path / "recoveries" / self.folder.name)
        journal.write("plan", "done", **plan.as_facts())
        recovery = PointInTimeRecovery(
            self.config, parsed, journal, plan.system_identifier, observe=self.seen.__setitem__
        )
        recovery.plan = plan
        self.history.source.tools.own(journal.folder)
        shutil.copytree(self._restored(plan), recovery.data, symlinks=True)
        self.history.source.tools.own(recovery.data)
        return recovery

    def _restored(self, plan: Plan) -> Path:
        """Each backup is unpacked once; the trials work on copies."""
        template = self.history.source.stack.folder / "scratch" / plan.backup
        if not template.exists():
            backup = next(b for b in self.history.source.backups.values() if b.label == plan.backup)
            unpack(backup, template, self.history.source.tools)
        return template

    def notes(self, recovery: PointInTimeRecovery) -> list[str]:
        """What a server on the recovered data answers."""
        return [note for (note,) in self.ask(recovery, "select note from notes order by id")]

    def ask(self, recovery: PointInTimeRecovery, query: str) -> list[Any]:
        with (
            private_server(recovery.server, user="postgres", port=5432, settings={}) as connect,
            connect() as connection,
        ):
            return connection.execute(query.encode()).fetchall()

    def promoted(self) -> bool:
        """Whether a history file of a new timeline, or a running server, was left."""
        data = self.folder / "data"
        found = list(data.glob("pg_wal/*.history"))
        return bool(found) or LocalServer(data, self.history.source.tools, data).pid() is not None


@pytest.fixture
def trial(history: History) -> Iterator[Trial]:
    made = Trial(history, history.config)
    yield made
    shutil.rmtree(made.folder)


@pytest.fixture
def damageable(history: History) -> Iterator[Trial]:
    """A trial on a repository of its own."""
    folder = history.source.stack.folder / "scratch" / f"repository-{next(_NUMBERS)}"
    repository = copied(history.repository, folder, history.source.tools)
    made = Trial(history, history.elsewhere(repository))
    yield made
    shutil.rmtree(made.folder)


TARGETS = {
    "latest": (lambda _: "latest", "last"),
    "immediate": (lambda _: "immediate", "four"),
    "a moment": (lambda h: f"time:{h.moments['between']}", "one"),
    "a commit's own moment": (lambda h: f"time:{h.source.commits['two'].time}", "two"),
    "before its moment": (lambda h: f"before:time:{h.source.commits['two'].time}", "one"),
    "after all": (lambda h: f"time:{h.moments['after']}", "last"),
    "a transaction": (lambda h: f"xid:{h.source.commits['three'].xid}", "three"),
    "before a transaction": (lambda h: f"before:xid:{h.source.commits['three'].xid}", "two"),
    "before one behind a switch": (
        lambda h: f"before:xid:{h.source.commits['straddled'].xid}",
        "three",
    ),
    "a position": (lambda h: f"lsn:{h.source.commits['three'].after}", "three"),
    "before a position": (lambda h: f"before:lsn:{h.source.commits['three'].after}", "three"),
    "the last position": (lambda h: f"lsn:{h.end}", "last"),
    "a restore point": (lambda _: "name:migration", "two"),
}


@pytest.mark.parametrize(("target", "last"), TARGETS.values(), ids=TARGETS)
def test_the_server_holds_what_was_committed_up_to_the_target_and_nothing_else(
    history: History, trial: Trial, target: Callable[[History], str], last: str
) -> None:
    recovery = trial.planned(target(history))
    facts = recovery.replay()
    assert trial.seen["replayed"]["lsn"] == facts["lsn"]
    assert Lsn.parse(facts["lsn"]) >= Lsn.parse(recovery._plan.stop)
    assert facts["timeline"] == 2
    assert trial.notes(recovery) == NOTES[: NOTES.index(last) + 1]


def test_the_end_of_the_archive_is_a_position_that_can_be_reached(trial: Trial) -> None:
    """An operator who reads the end from the plan and asks for it must get it."""
    end = make(trial.config, Target.parse("latest")).readable_end
    recovery = trial.planned(f"lsn:{end}")
    assert recovery.replay()["lsn"] == end
    assert trial.notes(recovery) == NOTES


def test_a_replay_that_was_promoted_is_not_repeated(history: History, trial: Trial) -> None:
    recovery = trial.planned(f"xid:{history.source.commits['two'].xid}")
    recovery.replay()
    recovery.server.start({"listen_addresses": "", "unix_socket_directories": str(trial.folder)})
    assert recovery.replay() == {"timeline": 2, "subscriptions": []}
    assert recovery.server.pid() is None, "what was killed left it, and nobody could connect"
    assert trial.notes(recovery) == NOTES[:3]


def test_a_server_that_somebody_promoted_elsewhere_is_not_taken_for_ours(trial: Trial) -> None:
    """Only the history of its timeline tells: it opens, and lacks what came after."""
    recovery = trial.planned("latest")
    order = order_of(trial.config, recovery._plan, recovery.journal.folder / "wal")
    order = replace(order, target=Target.parse("immediate"), stop=None)
    with (
        replayed(recovery.server, order, trial.config.postgres, print) as (_, connect),
        connect() as connection,
    ):
        promote(connection, order.target, SOON)
    told = f"expected timeline 2 to have left timeline 1 at {recovery._plan.stop}.* found that it"
    with pytest.raises(RestoreError, match=told):
        recovery.replay()


def test_a_server_that_an_interrupted_recovery_left_running_is_replaced(
    history: History, trial: Trial
) -> None:
    """Killed with kill -9, a recovery leaves its private server behind, on a socket nobody has."""
    recovery = trial.planned(f"xid:{history.source.commits['two'].xid}")
    nowhere = {"listen_addresses": "", "unix_socket_directories": str(trial.folder)}
    recovery.server.start(nowhere)
    left = recovery.server.pid()
    assert left is not None
    with private_server(recovery.server, user="postgres", port=5432, settings={}) as connect:
        connect().close()
        assert recovery.server.pid() != left
    assert recovery.server.pid() is None


def test_a_promotion_is_refused_where_the_server_stands_elsewhere_than_the_plan_says(
    history: History, trial: Trial
) -> None:
    recovery = trial.planned(f"xid:{history.source.commits['two'].xid}")
    assert recovery.plan is not None
    other = recovery.plan.as_facts() | {"stop": str(history.source.commits["three"].after)}
    recovery.plan = Plan.of_facts(other)
    with pytest.raises(RestoreError, match=r"the archived WAL says it must be .* promoted"):
        recovery.replay()
    assert not trial.promoted()


def test_a_record_that_rots_after_the_plan_was_made_ends_the_replay_unopened(
    history: History, damageable: Trial
) -> None:
    six = history.source.commits["six"]
    recovery = damageable.planned(f"xid:{six.xid}")
    flipped(_segment_of(damageable, six.after), six.after % (16 << 20) - 16)
    with pytest.raises(RestoreError, match="before configured recovery target was reached"):
        recovery.replay()
    assert not damageable.promoted()


@pytest.mark.parametrize("damage", ["removed", "flipped"])
def test_latest_never_opens_below_the_end_that_the_plan_named(
    history: History, damageable: Trial, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(asking, "STALLED", timedelta(seconds=1.5))
    last = history.source.commits["last"]
    recovery = damageable.planned("latest")
    segment = _segment_of(damageable, last.after)
    if damage == "removed":
        segment.unlink()
    else:
        flipped(segment, last.after % (16 << 20) - 16)
    with pytest.raises(RestoreError, match=f"and not at {recovery._plan.stop}"):
        recovery.replay()
    assert not damageable.promoted()


def test_an_archive_that_fails_is_not_an_archive_that_ends(
    history: History, damageable: Trial
) -> None:
    """restore_command answers 200 for what its user may not read: the server must not go on."""
    six = history.source.commits["six"]
    recovery = damageable.planned(f"xid:{six.xid}")
    segment = _segment_of(damageable, six.after)
    replaced(segment, segment.read_bytes())
    segment.chmod(0)
    with pytest.raises(RestoreError, match="Permission denied"):
        recovery.replay()
    assert not damageable.promoted()


FOREIGN = {
    "archive_cleanup_command": "touch {}/cleaned",
    "recovery_end_command": "touch {}/ended",
    "primary_conninfo": "host=127.0.0.1 port=1",
    "recovery_min_apply_delay": "1h",
    "synchronous_standby_names": "*",
    "recovery_target_name": "stale",
    "logging_collector": "on",
    "archive_mode": "always",
}


def test_settings_of_the_old_server_have_no_say_in_its_recovery(trial: Trial) -> None:
    """They come back with its files: commands that delete, servers to follow, delays."""
    recovery = trial.planned("latest")
    conf = recovery.data / "postgresql.auto.conf"
    settings = {name: value.format(trial.folder) for name, value in FOREIGN.items()}
    conf.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    recovery.replay()
    assert not {"cleaned", "ended"} & {path.name for path in trial.folder.iterdir()}
    assert trial.notes(recovery) == NOTES
    ((mode,),) = trial.ask(recovery, "show archive_mode")
    assert mode == "off"
    assert "recovery" in recovery.server.log.read_text()


def test_what_was_replayed_is_told_as_it_happens(history: History, trial: Trial) -> None:
    told: list[str] = []
    recovery = trial.planned(f"xid:{history.source.commits['two'].xid}")
    recovery.progress = told.append
    recovery.replay()
    assert [Lsn.parse(line.strip()) for line in told] == sorted(
        Lsn.parse(line.strip()) for line in told
    )
    assert told
    assert json.dumps(trial.seen)


def _segment_of(trial: Trial, lsn: Lsn) -> Path:
    wal = trial.config.repository.path / "wal"
    (found,) = [p for p in wal.glob("?" * 24) if int(p.name[16:], 16) == lsn // (16 << 20)]
    return found
