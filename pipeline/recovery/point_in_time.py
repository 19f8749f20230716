"""Scenario 1 as code: the database is lost or wrong; bring the whole pipeline back to a moment.

Stop the connectors, fence the server, save what it still holds, restore a base backup, replay to
the target and prove it, open, make publication and slot, restart the connectors, reconcile topics
and tables in both directions, and only then let the clients in. Every step can be repeated: a
recovery that was interrupted is resumed from its journal.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.resnapshot import stop_connectors
from pipeline.config import PipelineConfig
from pipeline.errors import (
    ConfigError,
    ObjectMissing,
    PipelineError,
    RecoveryRefused,
    RestoreError,
    TargetUnreachable,
)
from pipeline.postgres import archiving, clients, tablespaces
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.replay import (
    ReplayOrder,
    private_server,
    promote,
    recovery_settings,
    replay,
    signal_file,
)
from pipeline.postgres.restore import finish, unpack
from pipeline.postgres.segments import merged_wal
from pipeline.postgres.server import LocalServer, not_refused
from pipeline.postgres.targets import Target
from pipeline.postgres.tools import Tools
from pipeline.recovery import reconnect
from pipeline.recovery.journal import Journal
from pipeline.recovery.plan import Plan, make
from pipeline.recovery.salvage import salvage
from pipeline.repository import Repository
from pipeline.store import FolderStore
from pipeline.wait import wait_until

Facts = dict[str, Any]
Observe = Callable[[str, Facts], None]
Gate = Callable[[], Sequence[str]]
"""Looks at the recovered pipeline before clients are let in; answers what is wrong, in words."""


def new_recovery(config: PipelineConfig) -> Journal:
    """Open the log of a new recovery in the repository."""
    name = f"point-in-time-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return Journal(config.repository.path / "recoveries" / name)


@dataclass
class PointInTimeRecovery:
    """One recovery. `observe` hears of each step when it is done, with what was read back.

    `identity` is what the operator typed: the system identifier of what will be replaced. `shown`
    is the plan that was before the operator's eyes: it is not made again before the salvage, for
    it reads all WAL since the base backup.
    """

    config: PipelineConfig
    target: Target
    journal: Journal
    identity: str
    accept_end: Lsn | None = None
    shown: Plan | None = None
    observe: Observe = lambda _step, _facts: None
    gate: Gate = list
    progress: Callable[[str], None] = lambda _: None
    plan: Plan | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.config.postgres.data is None:
            raise ConfigError("postgres.data is not set: recover runs on the machine that holds it")
        self.data: Path = self.config.postgres.data
        self.tools = Tools.of(self.config.postgres)
        self.store = FolderStore(self.config.repository.path)
        self.server = LocalServer(self.data, self.tools, self.journal.folder / "postgres.log")

    def run(self) -> None:
        """Run every step that the journal does not know as done.

        Raises the step's own error after writing it into the journal; nothing is let in then.
        """
        done = self.journal.done() if self.journal.path.exists() else {}
        if "plan" in done:
            self.plan = Plan.of_facts(done["plan"])
        for step in (
            self.check_identity,
            self.fence,
            self.salvage,
            self.make_plan,
            self.restore,
            self.replay,
            self.open,
            self.reconnect,
            self.verify,
            self.let_clients_in,
        ):
            name = step.__name__.removeprefix("make_")
            if name not in done:
                self._run(name, step)

    def _run(self, name: str, step: Callable[[], Facts]) -> None:
        self.progress(name.replace("_", " "))
        self.journal.write(name, "started")
        try:
            facts = step()
        except BaseException as error:
            self.journal.write(name, "failed", error=f"{type(error).__name__}: {error}")
            raise
        self.journal.write(name, "done", **facts)
        self.observe(name, facts)

    def check_identity(self) -> Facts:
        """Refuse unless the operator typed the identity of what will be replaced."""
        plan = self.shown or make(self.config, self.target, accept_end=self.accept_end)
        found = {"the backup": plan.system_identifier}
        if (self.data / "global/pg_control").exists():
            found[f"{self.data}"] = system_identifier(self.data, self.tools)
        for where, identifier in found.items():
            if self.identity != identifier:
                raise RecoveryRefused(
                    f"typed {self.identity!r}, but {where} has the system identifier {identifier}: "
                    "nothing was touched"
                )
        return {"system_identifier": self.identity, "target": str(self.target)}

    def fence(self) -> Facts:
        """Stop connectors and the old server, and see that clients are refused."""
        postgres = self.config.postgres
        with ConnectClient(self.config.connect.url) as connect:
            names = reconnect.connectors(self.config, connect)
            roles = sorted(reconnect.roles(connect, names))
            offsets = stop_connectors(connect, names)
        self.server.stop()
        wait_until(
            f"fence of {postgres.host}:{postgres.port}",
            lambda: not_refused(postgres.host, postgres.port),
            within=timedelta(seconds=30),
        )
        told = {name: [asdict(offset) for offset in kept] for name, kept in offsets.items()}
        return {
            "connectors": names,
            "roles": roles,
            "offsets": told,
            "refused": f"{postgres.host}:{postgres.port}",
        }

    def salvage(self) -> Facts:
        """Save what the damaged server still holds, and keep its folder under another name."""
        saved: Facts = {**salvage(self.data, self.store, self.journal.recovery)}
        if self.data.exists():
            name = f"damaged-{self.journal.recovery}"
            saved["tablespaces_set_aside"] = tablespaces.set_aside(self.data, name)
            aside = self.data.with_name(f"{self.data.name}.damaged-{self.journal.recovery}")
            self.data.rename(aside)
            saved["set_aside"] = str(aside)
        return saved

    def make_plan(self) -> Facts:
        """Decide again, now with the salvaged WAL."""
        self.plan = make(self.config, self.target, accept_end=self.accept_end)
        return self.plan.as_facts()

    def restore(self) -> Facts:
        """Bring the base backup back into an empty place; an older one where it is damaged."""
        if self.data.exists() and any(self.data.iterdir()):
            # unpack puts a folder in place only when it is proven: then ours, from before a crash
            finish(self.data)
            return {"backup": self._plan.backup, "bytes": 0, "found": "restored before"}
        damaged: dict[str, str] = {}
        while True:
            backup = Repository(self.store).get(self._plan.backup)
            places = tablespaces.original_places(backup)
            try:
                size = unpack(backup, self.data, self.tools, places)
            except (RestoreError, ObjectMissing) as error:
                damaged[backup.label] = str(error)
                self._fall_back(damaged, error)
                continue
            return {"backup": backup.label, "bytes": size, "damaged": damaged}

    def _fall_back(self, damaged: dict[str, str], error: PipelineError) -> None:
        """Plan again without the sets that turned out to be damaged; raise when none is left."""
        self.progress(f"  {error}")
        try:
            self.plan = make(self.config, self.target, accept_end=self.accept_end, without=damaged)
        except TargetUnreachable as refusal:
            raise RestoreError(f"{error}; no other backup leads there:\n{refusal}") from error
        self.progress(f"  going on from {self.plan.backup}, which is older")
        self.journal.write("plan", "done", **self.plan.as_facts())

    def replay(self) -> Facts:
        """Replay on a private server, prove the target, promote."""
        plan = self._plan
        view = self.journal.folder / "wal"
        shutil.rmtree(view, ignore_errors=True)
        view.mkdir()
        merged_wal(self.config.repository.path, view, plan.timeline)
        order = ReplayOrder(
            restore_command=archiving.get_command(self.config, view),
            timeline=plan.timeline,
            target=Target.parse(plan.replay),
            stop=Lsn.parse(plan.stop) if plan.stop else None,
        )
        newest = max((int(p.stem, 16) for p in self.data.glob("pg_wal/*.history")), default=0)
        if newest > plan.timeline:  # promoted by this recovery before it was interrupted
            return {"timeline": newest}
        signal = self.data / signal_file(order)
        signal.touch()
        self.tools.own(signal)
        with private_server(
            self.server,
            user=self.config.postgres.user,
            port=self.config.postgres.port,
            dbname=self.config.postgres.dbname,
            settings=recovery_settings(order),
        ) as connect:
            replayed = replay(self.server, order, connect, lambda lsn: self.progress(f"  {lsn}"))
            facts: Facts = {"lsn": str(replayed.lsn), "last_commit": replayed.last_commit}
            self.observe("replayed", facts)
            with connect() as connection:
                timeline = promote(connection, order.target, timedelta(minutes=5))
        return facts | {"timeline": timeline}

    def open(self) -> Facts:
        """Start at the public address, for this package and CDC only, with archiving back on."""
        connecting = self.journal.done()["fence"].get("roles", [])
        clients.keep_out(self.data, {self.config.postgres.user, *connecting}, self.tools)
        if self.server.pid() is None:
            self.server.start()
        connection = self._connect()
        with connection:
            row = connection.execute(
                "select pg_is_in_recovery(), current_setting('archive_mode')"
            ).fetchone()
            if row is None or row[0]:
                raise RestoreError("the opened server is in recovery, expected a primary")
            archiving.hand_over_history(self.config, self.data, timeline_of(self.data, self.tools))
        return {"archive_mode": row[1], "address": f"{self.config.postgres.host}"}

    def reconnect(self) -> Facts:
        """Publication and slot, connectors from the first row on, topics equal to tables."""
        facts = Repository(self.store).get(self._plan.backup).manifest.facts
        with self._connect() as connection:
            done, found = reconnect.after_restore(
                self.config, connection, facts, self.journal.recovery, self.progress
            )
        return {**done, "reconciliation": found.facts()}

    def verify(self) -> Facts:
        """Ask the pipeline and the gate; clients stay out while either names a problem."""
        with self._connect() as connection:
            problems = reconnect.problems(self.config, connection)
        problems += self.gate()
        if problems:
            raise RestoreError("the gate is closed: " + "; ".join(problems))
        return {"problems": 0}

    def let_clients_in(self) -> Facts:
        """Give the server its own access rules back."""
        clients.let_in(self.data)
        self.server.reload()
        return {"next": "pipeline backup base"}

    @property
    def _plan(self) -> Plan:
        if self.plan is None:
            raise PipelineError("a step ran before the plan was made")
        return self.plan

    def _connect(self) -> psycopg.Connection[Any]:
        """Connect at the public address, as soon as the server takes connections."""
        found: list[psycopg.Connection[Any]] = []

        def answers() -> str | None:
            try:
                found.append(psycopg.connect(**self.config.postgres.conninfo(), autocommit=True))
            except psycopg.OperationalError as error:
                return str(error).strip()
            return None

        wait_until("connection to the opened server", answers, within=timedelta(seconds=60))
        return found[0]


def system_identifier(data: Path, tools: Tools) -> str:
    """Identity of a data folder, read from its control file."""
    return _control(data, tools)["Database system identifier"]


def timeline_of(data: Path, tools: Tools) -> int:
    """Timeline of a data folder's latest checkpoint."""
    return int(_control(data, tools)["Latest checkpoint's TimeLineID"])


def _control(data: Path, tools: Tools) -> dict[str, str]:
    lines = tools.run("pg_controldata", f"--pgdata={data}").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
