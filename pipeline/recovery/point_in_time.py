"""Scenario 1 as code: the database is lost or wrong; bring the whole pipeline back to a moment.

Stop the connectors, fence the server, save what it still holds, restore a base backup, replay to
the target and prove it, open, make publication and slot, restart the connectors, reconcile topics
and tables in both directions, and only then let the clients in. Every step can be repeated: a
recovery that was interrupted is resumed from its journal.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pipeline.config import PipelineConfig
from pipeline.errors import BeginAgain, ConfigError, PipelineError, RecoveryRefused, RestoreError
from pipeline.postgres import archiving, clients, configuration, place, tablespaces
from pipeline.postgres.control import system_identifier
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.replay import private_server
from pipeline.postgres.restore import unmark
from pipeline.postgres.server import LocalServer
from pipeline.postgres.targets import Target
from pipeline.postgres.timelines import prove_branch
from pipeline.postgres.tools import Tools
from pipeline.recovery import (
    held_subscriptions,
    postgres_preconditions,
    reconnect,
    reread,
    structure,
)
from pipeline.recovery.base_restore import restore_base
from pipeline.recovery.fencing import as_it_lay, running, stop_server
from pipeline.recovery.journal import Journal
from pipeline.recovery.live import answering, archive_mode_and_timeline
from pipeline.recovery.opened import prove_commit, settle_prepared
from pipeline.recovery.plan import Plan, make
from pipeline.recovery.replaying import Connect, branch_off, compare_digests, order_of, replayed
from pipeline.recovery.runbook import Facts, Observe, Phase, Precondition, Runbook, Step
from pipeline.recovery.salvage import salvage
from pipeline.repository import BackupSet, Repository
from pipeline.store import FolderStore

Gate = Callable[[], Sequence[str]]
"""Looks at the recovered pipeline before clients are let in; answers what is wrong, in words."""


ASKED = ("accept_end", "structure", "digests", "cdc", "prepared", "without_topics")
"""What the operator need not say again when the recovery is resumed."""
LEFT_OUT = "CDC is NOT brought back: connectors, offsets and topics were left out"


def new_recovery(config: PipelineConfig) -> Journal:
    """Open the log of a new recovery in the repository."""
    return Journal.new(config.repository.path, PointInTimeRecovery.kind)


@dataclass
class PointInTimeRecovery(Runbook):
    """One recovery. `observe` hears of each step when it is done, with what was read back.

    `identity` is what the operator typed: the system identifier of what will be replaced. With
    `structure` amcheck reads every database before clients are let in. With `digests` replay first
    stops where those of the backup were taken, if it has any, and every table is held against them.
    `without` names base backups to pass over; a recovery that is resumed has it from its journal.
    Without `cdc` connectors are left alone, and a later run of the same recovery brings CDC back.
    `prepared` says how prepared transactions end that stand open at the target. Topics named in
    `without_topics` are not compared with their tables, and nothing is buried in them.
    `shown` is the plan that was before the operator's eyes: it is not made again before the
    salvage, for it reads all WAL since the base backup.

    What is None was not said: then an earlier run's word counts, which the journal has, else yes.
    """

    kind: ClassVar[str] = "point-in-time"
    first: ClassVar[str] = "check_identity"
    last: ClassVar[str] = "let_clients_in"
    config: PipelineConfig
    target: Target
    journal: Journal
    identity: str
    accept_end: Lsn | None = None
    without: Sequence[str] = ()
    structure: bool | None = None
    digests: bool | None = None
    cdc: bool | None = None
    prepared: str | None = None
    without_topics: Sequence[str] = ()
    shown: Plan | None = None
    observe: Observe = lambda _step, _facts: None
    gate: Gate = list
    progress: Callable[[str], None] = lambda _: None
    plan: Plan | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.config.postgres.data is None:
            raise ConfigError("postgres.data is not set: recover runs on the machine that holds it")
        self.data: Path = self.config.postgres.data.resolve()  # a link to it stays where it is
        self.aside = place.aside_of(self.data, self.journal.recovery)
        self.tools = Tools.of(self.config.postgres)
        self.store = FolderStore(self.config.repository.path)
        self.server = LocalServer(self.data, self.tools, self.journal.folder / "postgres.log")
        self.without = self.done.get("check_identity", {}).get("without", self.without)
        if "plan" in self.done:
            self.plan = Plan.of_facts(self.done["plan"])

    def identify(self) -> None:
        """Refuse unless the operator typed the identity of what will be replaced."""
        self._recall()
        begun = self.done.get("check_identity")
        if begun is None:
            self.shown = self.shown or self._made()
            found = {"the backup": self.shown.system_identifier}
        else:
            found = {self.journal.recovery: begun["system_identifier"]}
        if self._damaged == self.data and (self.data / "global/pg_control").exists():
            found[f"{self.data}"] = system_identifier(self.data, self.tools)
        for where, identifier in found.items():
            if self.identity != identifier:
                raise RecoveryRefused(
                    f"typed {self.identity!r}, but {where} has the system identifier {identifier}: "
                    "nothing was touched"
                )

    def _recall(self) -> None:
        """Take what an earlier run was told where this one was told nothing, and keep it."""
        before = self.journal.last("asked") if self.journal.path.exists() else None
        kept = before or {}
        if self.accept_end is None and kept.get("accept_end"):
            self.accept_end = Lsn.parse(kept["accept_end"])
        self.prepared = self.prepared or kept.get("prepared")
        self.without_topics = sorted({*self.without_topics, *kept.get("without_topics", ())})
        self.structure = _said(self.structure, kept.get("structure"))
        self.digests = _said(self.digests, kept.get("digests"))
        # once clients are in, all that is left to do is to bring CDC back
        self.cdc = _said(self.cdc, None if self.last in self.done else kept.get("cdc"))
        asked = {name: getattr(self, name) for name in ASKED}
        asked["accept_end"] = str(self.accept_end) if self.accept_end else None
        if asked != {name: kept.get(name) for name in ASKED}:
            self.journal.write(self.first, "asked", **asked)

    def preconditions(self) -> Sequence[Precondition]:
        wanted = self.cdc is not False
        return postgres_preconditions.listed(self.config, self.shown or self._made(), cdc=wanted)

    def steps(self) -> Sequence[Step]:
        return (
            Step("check_identity", Phase.PREPARE, self.check_identity),
            Step("fence", Phase.STOP, self.fence, self._fenced, until="open"),
            Step("salvage", Phase.KEEP, self.salvage, self._salvaged, until="replay"),
            Step("plan", Phase.PREPARE, self.make_plan, self._planned, until="restore"),
            Step("restore", Phase.RESTORE, self.restore, self._restored, until="replay"),
            Step("compare_digests", Phase.REPLAY, self.compare_digests),
            Step("replay", Phase.REPLAY, self.replay),
            Step("open", Phase.OPEN, self.open, self._opened, until="let_clients_in"),
            Step("examine", Phase.VERIFY, self.examine),
            Step("reconnect", Phase.RECONNECT, self.reconnect, self._reconnected),
            Step("verify", Phase.VERIFY, self.verify, self._verified),
            Step("let_clients_in", Phase.SERVE, self.let_clients_in),
        )

    def check_identity(self) -> Facts:
        """Write down what was asked for, before anything is touched."""
        backup = Repository(self.store).get((self.shown or self._made()).backup)
        places, facts = tablespaces.original_places(backup), backup.manifest.facts
        tablespaces.refuse_misplaced(places, self.data, facts["server_version_num"] // 10_000)
        for name in configuration.lacking(backup):
            self.progress(f"  {backup.label} brings no {name}: have it ready for the end")
        asked = {"target": str(self.target), "without": list(self.without)}
        return {"system_identifier": self.identity, **asked}

    def fence(self) -> Facts:
        """Stop connectors and the old server, and see that clients are refused."""
        stopped = reconnect.stopped(self.config) if self.cdc else {}
        told = {"connectors": [], "roles": [], "offsets": {}} | stopped
        return told | {"refused": self.stop_servers()}

    def stop_servers(self) -> str:
        """Stop the old server, and ours where an interrupted run had opened it; the address."""
        if "restore" in self.done:
            self.server.stop()
        return stop_server(self.config.postgres, self._damaged, self.tools, self.server.log)

    def _fenced(self, facts: Facts) -> str | None:
        """Whether the old server is still down and no connector was started again."""
        if told := running(self.config.postgres, self._damaged, self.tools):
            return told
        return reconnect.not_stopped(self.config, facts.get("connectors", []))

    def salvage(self) -> Facts:
        """Save what the damaged server still holds, and keep its folder under another name."""
        lies = self._damaged
        begun = self.journal.count("salvage", "started")
        again = f"-{begun}" if begun > 1 else ""  # what was saved before is not overwritten
        saved: Facts = {**salvage(lies, self.store, self.journal.recovery + again)}
        if lies == self.data and self.data.exists():
            name = f"damaged-{self.journal.recovery}"
            saved["tablespaces_set_aside"] = tablespaces.set_aside(self.data, name)
            place.set_aside(self.data, self.journal.recovery)
        if self.aside.exists():
            saved |= {"set_aside": str(self.aside), "lay": as_it_lay(self.aside)}
        return saved

    @property
    def _damaged(self) -> Path:
        """Where the old server's folder is: once it is aside, what lies in its place is another."""
        return self.aside if self.aside.exists() or "salvage" in self.done else self.data

    def _salvaged(self, facts: Facts) -> str | None:
        """Whether the damaged folder is as it was when its WAL was saved."""
        if "lay" not in facts or not self.aside.exists():
            return None
        same = as_it_lay(self.aside) == facts["lay"]
        return None if same else f"a server has worked in {self.aside} since it was saved"

    def make_plan(self) -> Facts:
        """Decide again, now with the salvaged WAL."""
        self.plan = self._made()
        return self.plan.as_facts() | {"salvaged": self._saved_at}

    def _planned(self, facts: Facts) -> str | None:
        stale = facts.get("salvaged", self._saved_at) != self._saved_at
        return "more WAL was saved since" if stale else None

    @property
    def _saved_at(self) -> str | None:
        return self.done.get("salvage", {}).get("utc")

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

    def _restored(self, _facts: Facts) -> str | None:
        return None if (self.data / "PG_VERSION").exists() else f"{self.data} is gone"

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
            with private_server(
                self.server,
                user=self.config.postgres.user,
                port=self.config.postgres.port,
                settings={},
            ) as connect:
                return {"timeline": newest, **self._hold(connect)}
        postgres = self.config.postgres
        order = order_of(self.config, plan, self.journal.folder / "wal")
        with replayed(self.server, order, postgres, self._stands_at) as (stood, connect):
            facts: Facts = {"lsn": str(stood.lsn), "last_commit": stood.last_commit}
            self.observe("replayed", facts)
            self.journal.write("replay", "stands", lsn=facts["lsn"])
            with connect() as connection:
                timeline = branch_off(self.server, order, stood, connection)
            self.observe("promoted", {"timeline": timeline})
            facts |= self._hold(connect)
        return facts | {"timeline": timeline}

    def _hold(self, connect: Connect) -> Facts:
        with connect() as connection:
            return held_subscriptions.hold(self.journal, connection, self.progress)

    def _stands_at(self, lsn: Lsn) -> None:
        self.progress(f"  {lsn}")

    def open(self) -> Facts:
        """Start at the public address, for this package and CDC only, with archiving back on."""
        connecting = self.journal.done()["fence"].get("roles", [])
        placed = configuration.put_back(self._backup, self.tools)
        for name in placed["differing"]:
            self.progress(f"  {name} is not what the backup has: it stays as it is")
        clients.keep_out(self.server, {self.config.postgres.user, *connecting})
        if self.server.pid() is None:
            self.server.start(self._started_by)
        promoted = self.journal.done()["replay"]["timeline"]
        with answering(self.config.postgres, self.server.log) as connection:
            mode, timeline = archive_mode_and_timeline(connection)
        if timeline != promoted:
            self.server.stop()  # what it would write is of a history that nobody wants
            raise BeginAgain(
                f"the opened server is on timeline {timeline}, expected {promoted}, to which it "
                "was promoted: that did not last, and it may have replayed past the target. Begin "
                "a new recovery"
            )
        clients.refuse_unless_kept_out(self.config.postgres)
        archiving.hand_over_history(self.config, self.data, timeline)
        with answering(self.config.postgres, self.server.log) as connection:
            prove_commit(connection)
            settled = settle_prepared(
                connection, self.config.postgres, self.prepared, self.progress
            )
        address = f"{self.config.postgres.host}"
        return {"archive_mode": mode, "address": address, "prepared": settled, **placed}

    def _opened(self, _facts: Facts) -> str | None:
        return None if self.server.pid() is not None else "the server went down"

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
            if not self.cdc:
                slot = reconnect.source_only(self.config, connection, facts)
                self.progress(f"  {LEFT_OUT}")
                return slot | {"left_out": LEFT_OUT}
            if self.last in self.done:  # clients have been let in without CDC
                found = reread.every_row(
                    self.config, self.journal.recovery, self.progress, self.without_topics
                )
                return {"reconciliation": found.facts()}
            done, found = reconnect.after_restore(
                self.config,
                connection,
                facts,
                self.journal.recovery,
                self.progress,
                left_out=self.without_topics,
            )
        return {**done, "reconciliation": found.facts()}

    def _reconnected(self, facts: Facts) -> str | None:
        return LEFT_OUT if self.cdc and "left_out" in facts else None

    def verify(self) -> Facts:
        """Ask the pipeline and the gate; clients stay out while either names a problem."""
        reconnected = self.done["reconnect"]
        told = {"problems": 0, "of": reconnected.get("utc")}
        problems = list[str]()
        if "left_out" not in reconnected:
            with answering(self.config.postgres) as connection:
                problems = reconnect.problems(self.config, connection)
        problems += self.gate()
        if problems:
            raise RestoreError("the gate is closed: " + "; ".join(problems))
        return told

    def _verified(self, facts: Facts) -> str | None:
        now = self.done["reconnect"].get("utc")
        return None if facts.get("of", now) == now else "CDC was brought back since"

    def let_clients_in(self) -> Facts:
        """Give the server its own access rules back."""
        rules = clients.let_in(self.server, self._started_by)
        with answering(self.config.postgres) as connection:
            held = held_subscriptions.release(self.journal, connection, self.progress)
        left = self.done["reconnect"].get("left_out")
        return {"next": "pipeline backup base", "rules": str(rules), **held} | (
            {"left": left} if left else {}
        )

    @property
    def _backup(self) -> BackupSet:
        return Repository(self.store).get(self._plan.backup)

    @property
    def _started_by(self) -> dict[str, str]:
        return configuration.start_settings(self._backup, self.data)

    def _made(self, damaged: Collection[str] = ()) -> Plan:
        without = (*self.without, *damaged)
        return make(self.config, self.target, accept_end=self.accept_end, without=without)

    @property
    def _plan(self) -> Plan:
        if self.plan is None:
            raise PipelineError("a step ran before the plan was made")
        return self.plan


def _said(*words: bool | None) -> bool:
    """What counts of a question: the word of this run, else of an earlier one, else yes."""
    return next((word for word in words if word is not None), True)
