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
from pipeline.errors import ConfigError, RecoveryRefused
from pipeline.postgres.base import configuration, place, tablespaces
from pipeline.postgres.base.restore import unmark
from pipeline.postgres.replay.replay import private_server
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server.control import system_identifier
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.timelines import prove_branch
from pipeline.repository.journal import Journal
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import held_subscriptions, parts, postgres_preconditions, reconnect
from pipeline.runbooks.base_restore import restore_base
from pipeline.runbooks.fencing import as_it_lay, running, stop_server
from pipeline.runbooks.parts import Part
from pipeline.runbooks.plan import Plan, make
from pipeline.runbooks.reopening import Gate, Reopening
from pipeline.runbooks.replaying import Connect, branch_off, compare_digests, order_of, replayed
from pipeline.runbooks.runbook import Facts, Observe, Phase, Precondition, Step
from pipeline.runbooks.salvage import salvage

ASKED = ("accept_end", "structure", "digests", "cdc", "prepared", "without_topics", "without_slots")
"""What the operator need not say again when the recovery is resumed."""


def new_recovery(config: PipelineConfig) -> Journal:
    """Open the log of a new recovery in the repository."""
    return Journal.new(config.repository.path, PointInTimeRecovery.kind)


@dataclass
class PointInTimeRecovery(Reopening):
    """One recovery. `observe` hears of each step when it is done, with what was read back.

    `identity` is what the operator typed: the system identifier of what will be replaced. With
    `structure` amcheck reads every database before clients are let in. With `digests` replay first
    stops where those of the backup were taken, if it has any, and every table is held against them.
    `without` names base backups to pass over; a recovery that is resumed has it from its journal.
    Without `cdc` connectors are left alone, and a later run of the same recovery brings CDC back.
    `prepared` says how prepared transactions end that stand open at the target. Topics named in
    `without_topics` are not compared with their tables, and nothing is buried in them. Slots and
    standbys named in `without_slots` read the server, and are not brought back.
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
    without_slots: Sequence[str] = ()
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
        asked = self._recall()
        begun = self.done.get("check_identity")
        if begun is None:
            self.shown = self.shown or self._made()
            found = {"the backup": self.shown.system_identifier}
        else:
            self._refuse_an_older_one(begun["utc"])
            found = {self.journal.recovery: begun["system_identifier"]}
        if self._damaged == self.data and (self.data / "global/pg_control").exists():
            found[f"{self.data}"] = system_identifier(self.data, self.tools)
        for where, identifier in found.items():
            if self.identity != identifier:
                raise RecoveryRefused(
                    f"typed {self.identity!r}, but {where} has the system identifier {identifier}: "
                    "nothing was touched"
                )
        kept = self.journal.asked
        if asked != {name: kept.get(name) for name in ASKED}:
            self.journal.write(self.first, "asked", **asked)

    def _refuse_an_older_one(self, begun: str) -> None:
        """Refuse to go on where a later recovery has stopped servers: ours is what it put there."""
        for other in Journal.every(self.config.repository.path, self.kind):
            fenced = other.done().get("fence", {}).get("utc", "")
            if other.recovery != self.journal.recovery and fenced > begun:
                raise RecoveryRefused(
                    f"{self.journal.recovery} began at {begun}, and {other.recovery} has stopped "
                    f"the server at {fenced}: what runs now is not what was to be replaced, and "
                    "nothing was touched. Resume the later one, or begin a new recovery"
                )

    def _recall(self) -> Facts:
        """Take what an earlier run was told where this one was told nothing, and answer it all."""
        kept = self.journal.asked
        if self.accept_end is None and kept.get("accept_end"):
            self.accept_end = Lsn.parse(kept["accept_end"])
        self.prepared = self.prepared or kept.get("prepared")
        self.without_topics = sorted(self.without_topics or kept.get("without_topics", ()))
        self.without_slots = sorted({*self.without_slots, *kept.get("without_slots", ())})
        self.structure = _said(self.structure, kept.get("structure"))
        self.digests = _said(self.digests, kept.get("digests"))
        # once clients are in, all that is left to do is to bring CDC back
        self.cdc = _said(self.cdc, None if self.last in self.done else kept.get("cdc"))
        asked: Facts = {name: getattr(self, name) for name in ASKED}
        return asked | {"accept_end": str(self.accept_end) if self.accept_end else None}

    def preconditions(self) -> Sequence[Precondition]:
        return postgres_preconditions.listed(
            self.config,
            self.shown or self._made(),
            cdc=self.cdc is not False,
            without_slots=self.without_slots,
            without_topics=self.without_topics,
            prepared=self.prepared,
        )

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
        plan = self.shown or self._made()
        left = [str(one) for one in postgres_preconditions.left_behind(self.config, plan)]
        for one in left:
            self.progress(f"  NOT brought back: {one}")
        down = parts.down(self.config) if self.cdc else {}
        for line in parts.lines(down):
            self.progress(f"  {line}")
        if not self._damaged.exists():
            self.progress(f"  no data folder at {self.data}: nothing can be saved from it")
        backup = Repository(self.store).get(plan.backup)
        places, facts = tablespaces.original_places(backup), backup.manifest.facts
        tablespaces.refuse_misplaced(places, self.data, facts["server_version_num"] // 10_000)
        for name in configuration.lacking(backup):
            self.progress(f"  {backup.label} brings no {name}: have it ready for the end")
        asked = {"target": str(self.target), "without": list(self.without)}
        return {"system_identifier": self.identity, "left_behind": left, "down": down, **asked}

    def fence(self) -> Facts:
        """Stop connectors and the old server, and see that clients are refused.

        Of a Connect that is down no connector is stopped: with the server fenced none of them gets
        anything to deliver, and the step that reconnects stops them before all else.
        """
        down = parts.down(self.config) if self.cdc else {}
        stopped = reconnect.stopped(self.config) if self.cdc and Part.CONNECT not in down else {}
        told = {"connectors": [], "roles": [], "offsets": {}, "down": down} | stopped
        return told | {"refused": self.stop_servers()}

    def stop_servers(self) -> str:
        """Stop the old server, and ours where an interrupted run had opened it; the address."""
        if "restore" in self.done:
            self.server.stop()
        return stop_server(self.config.postgres, self._damaged, self.tools, self.server.log)

    def _fenced(self, facts: Facts) -> str | None:
        """Whether the old server is still down and no connector was started again."""
        restored = self.server if "replay" in self.done else None
        if told := running(self.config.postgres, self._damaged, self.tools, restored):
            return told
        if Part.CONNECT in parts.down(self.config):
            return None  # nothing delivers, and nothing is there to be delivered
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
        with replayed(self.server, order, postgres, lambda lsn: self.progress(f"  {lsn}")) as (
            stood,
            connect,
        ):
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

    def _made(self, damaged: Collection[str] = ()) -> Plan:
        without = (*self.without, *damaged)
        return make(self.config, self.target, accept_end=self.accept_end, without=without)


def _said(*words: bool | None) -> bool:
    """What counts of a question: the word of this run, else of an earlier one, else yes."""
    return next((word for word in words if word is not None), True)
