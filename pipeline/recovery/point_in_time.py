"""Scenario 1 as code: the database is lost or wrong; bring the whole pipeline back to a moment.

Stop the connectors, fence the server, save what it still holds, restore a base backup, replay to
the target and prove it, open, make publication and slot, restart the connectors, reconcile topics
and tables in both directions, and only then let the clients in. Every step can be repeated: a
recovery that was interrupted is resumed from its journal.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors
from pipeline.cdc.resnapshot import stop_connectors
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, PipelineError, RecoveryRefused, RestoreError
from pipeline.postgres import archiving, clients, tablespaces
from pipeline.postgres.control import system_identifier
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.replay import PRIVATE_HBA
from pipeline.postgres.restore import unmark
from pipeline.postgres.server import LocalServer, not_refused
from pipeline.postgres.targets import Target
from pipeline.postgres.timelines import prove_branch
from pipeline.postgres.tools import Tools
from pipeline.recovery import reconnect, structure
from pipeline.recovery.base_restore import restore_base
from pipeline.recovery.journal import Journal
from pipeline.recovery.live import answering, archive_mode_and_timeline
from pipeline.recovery.plan import Plan, make
from pipeline.recovery.replaying import branch_off, compare_digests, order_of, replayed
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
    name = f"point-in-time-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    return Journal(config.repository.path / "recoveries" / name)


@dataclass
class PointInTimeRecovery:
    """One recovery. `observe` hears of each step when it is done, with what was read back.

    `identity` is what the operator typed: the system identifier of what will be replaced. With
    `structure` amcheck reads every database before clients are let in. With `digests` replay first
    stops where those of the backup were taken, if it has any, and every table is held against them.
    `without` names base backups to pass over; a recovery that is resumed has it from its journal.
    `shown` is the plan that was before the operator's eyes: it is not made again before the
    salvage, for it reads all WAL since the base backup.
    """

    config: PipelineConfig
    target: Target
    journal: Journal
    identity: str
    accept_end: Lsn | None = None
    without: Sequence[str] = ()
    structure: bool = True
    digests: bool = True
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
        self.without = done.get("check_identity", {}).get("without", self.without)
        if "plan" in done:
            self.plan = Plan.of_facts(done["plan"])
        if "open" in done and self.server.pid() is None:
            self.server.start()  # it went down with the recovery that was interrupted
        for step in (
            self.check_identity,
            self.fence,
            self.salvage,
            self.make_plan,
            self.restore,
            self.compare_digests,
            self.replay,
            self.open,
            self.examine,
            self.reconnect,
            self.verify,
            self.let_clients_in,
        ):
            name = step.__name__.removeprefix("make_")
            if name not in done:
                self._run(name, step)

    def _run(self, name: str, step: Callable[[], Facts]) -> None:
        self.progress(name.replace("_", " "))
        self.observe(name, self.journal.run(name, step))

    def check_identity(self) -> Facts:
        """Refuse unless the operator typed the identity of what will be replaced."""
        plan = self.shown or self._made()
        found = {"the backup": plan.system_identifier}
        if (self.data / "global/pg_control").exists():
            found[f"{self.data}"] = system_identifier(self.data, self.tools)
        for where, identifier in found.items():
            if self.identity != identifier:
                raise RecoveryRefused(
                    f"typed {self.identity!r}, but {where} has the system identifier {identifier}: "
                    "nothing was touched"
                )
        asked = {"target": str(self.target), "without": list(self.without)}
        return {"system_identifier": self.identity, **asked}

    def fence(self) -> Facts:
        """Stop connectors and the old server, and see that clients are refused."""
        postgres = self.config.postgres
        with ConnectClient(self.config.connect.url) as connect:
            names = own_connectors(self.config, connect)
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
        self.plan = self._made()
        return self.plan.as_facts()

    def restore(self) -> Facts:
        """Bring the base backup back into an empty place; an older one where it is damaged."""
        plan, aside = self._plan, self.journal.done().get("salvage", {}).get("set_aside")
        # without the damaged folder's links only the backup tells where its tablespaces were
        links_known = aside is not None and Path(aside, tablespaces.LINKS).is_dir()
        self.plan, facts = restore_base(
            plan,
            self.store,
            self.data,
            self.tools,
            recovery=self.journal.recovery,
            kept_as=None if links_known else f"damaged-{self.journal.recovery}",
            again=self._plan_without,
            progress=self.progress,
        )
        return facts

    def _plan_without(self, damaged: dict[str, str]) -> Plan:
        """Plan again without the sets that turned out to be damaged."""
        plan = self._made(damaged)
        self.journal.write("plan", "done", **plan.as_facts())
        return plan

    def compare_digests(self) -> Facts:
        """Replay to where the backup's digests were taken, and hold every table against them."""
        plan, late = self._plan, "replay" in self.journal.done()
        if late or not self.digests:
            why = "replay had gone on before" if late else "not wanted"
            self.progress(f"  NOT compared with digests: {why}")
            return {"not_examined": [f"rows: {why}"]}
        unmark(self.data)
        backup = Repository(self.store).get(plan.backup)
        order = order_of(self.config, plan, self.journal.folder / "wal")
        facts = compare_digests(
            self.server, order, self.config.postgres, backup, Lsn.parse(plan.stop)
        )
        self.progress(f"  {plan.backup}: {facts['told']}")
        return facts

    def replay(self) -> Facts:
        """Replay on a private server, prove the target, promote."""
        plan = self._plan
        unmark(self.data)
        newest = max((int(p.stem, 16) for p in self.data.glob("pg_wal/*.history")), default=0)
        if newest > plan.timeline:  # promoted by this recovery before it was interrupted
            left = (self.journal.last("stands") or {"lsn": plan.stop})["lsn"]
            prove_branch(self.data, newest, plan.ends_on, Lsn.parse(left))
            self.server.stop()  # it may run on, on a socket that nobody has
            (self.data / PRIVATE_HBA).unlink(missing_ok=True)
            return {"timeline": newest}
        postgres = self.config.postgres
        order = order_of(self.config, plan, self.journal.folder / "wal")
        with replayed(self.server, order, postgres, self._stands_at) as (stood, connect):
            facts: Facts = {"lsn": str(stood.lsn), "last_commit": stood.last_commit}
            self.observe("replayed", facts)
            self.journal.write("replay", "stands", lsn=facts["lsn"])
            with connect() as connection:
                timeline = branch_off(self.server, order, stood, connection)
            self.observe("promoted", {"timeline": timeline})
        return facts | {"timeline": timeline}

    def _stands_at(self, lsn: Lsn) -> None:
        self.progress(f"  {lsn}")

    def open(self) -> Facts:
        """Start at the public address, for this package and CDC only, with archiving back on."""
        connecting = self.journal.done()["fence"].get("roles", [])
        clients.keep_out(self.data, {self.config.postgres.user, *connecting}, self.tools)
        if self.server.pid() is None:
            self.server.start()
        promoted = self.journal.done()["replay"]["timeline"]
        with answering(self.config.postgres) as connection:
            mode, timeline = archive_mode_and_timeline(connection)
        if timeline != promoted:
            self.server.stop()  # what it would write is of a history that nobody wants
            raise RestoreError(
                f"the opened server is on timeline {timeline}, expected {promoted}, to which it "
                "was promoted: that did not last, and it may have replayed past the target. Begin "
                "a new recovery"
            )
        archiving.hand_over_history(self.config, self.data, timeline)
        return {"archive_mode": mode, "address": f"{self.config.postgres.host}"}

    def examine(self) -> Facts:
        """Have amcheck read every database; say what it did not read."""
        if not self.structure:
            facts: Facts = {"not_examined": ["tables and indexes: amcheck was not wanted"]}
        else:
            with answering(self.config.postgres) as connection:
                facts = structure.examine(connection, self.config.postgres, self.progress)
        for one in facts["not_examined"]:
            self.progress(f"  NOT examined: {one}")
        return facts

    def reconnect(self) -> Facts:
        """Publication and slot, connectors from the first row on, topics equal to tables."""
        facts = Repository(self.store).get(self._plan.backup).manifest.facts
        with answering(self.config.postgres) as connection:
            done, found = reconnect.after_restore(
                self.config, connection, facts, self.journal.recovery, self.progress
            )
        return {**done, "reconciliation": found.facts()}

    def verify(self) -> Facts:
        """Ask the pipeline and the gate; clients stay out while either names a problem."""
        with answering(self.config.postgres) as connection:
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

    def _made(self, damaged: Collection[str] = ()) -> Plan:
        without = (*self.without, *damaged)
        return make(self.config, self.target, accept_end=self.accept_end, without=without)

    @property
    def _plan(self) -> Plan:
        if self.plan is None:
            raise PipelineError("a step ran before the plan was made")
        return self.plan
