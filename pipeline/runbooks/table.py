"""One table or several are wrong or gone: bring back their rows of a moment while all else goes on.

A base backup is replayed on a server of its own, up to the target. Tables that are gone are made
again, and rows are put back as differences, in one transaction that is proven before it commits:
a live table is as it was before, or as it was at the target. Consumers of changes see those
differences as events; at last each topic is compared with its table. Killed anywhere, it is
resumed from its journal, or begun again: what was left behind is swept first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import psycopg

from pipeline.cdc.debezium import idle
from pipeline.cdc.delivered import delivery
from pipeline.cdc.reconcile import reconcile, topic_ends
from pipeline.config import PipelineConfig
from pipeline.errors import (
    ConfigError,
    RecoveryRefused,
    RestoreError,
)
from pipeline.postgres.logical.proof import unsound
from pipeline.postgres.logical.relations import family, family_if_there
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server import session
from pipeline.postgres.server.amcheck import amcheck
from pipeline.postgres.table.copied import Copied
from pipeline.postgres.table.putback import Contended, PutBack, publications, put_back, validate
from pipeline.postgres.table.renamed import refuse_renamed
from pipeline.postgres.table.staging import Staging, refuse_early, schema_for
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.rest import POLL
from pipeline.runbooks.live import committed, handed_over, has_schema, identity
from pipeline.runbooks.plan import Plan, make
from pipeline.runbooks.reconnect import published
from pipeline.runbooks.replaying import Connect
from pipeline.runbooks.runbook import Facts, Observe, Phase, Precondition, Runbook, Step
from pipeline.runbooks.side import SideServer, alone
from pipeline.wait import wait_until

CONTENDED = timedelta(minutes=2)
DELIVERED = timedelta(minutes=5)
ARRIVING = timedelta(seconds=30)
"""How long an event of a client may take that began to write while the tables were compared."""


def new_restore(config: PipelineConfig) -> Journal:
    """Open the log of a new restore of tables in the repository."""
    return Journal.new(config.repository.path, TableRecovery.kind)


@dataclass
class TableRecovery(Runbook):
    """One restore of tables. `observe` hears of each step when it is done, with what it read back.

    Without a `target` the rows are those of the logical backup `label`; with one `without` names
    base backups to pass over. `topics` compares the topics of published tables in the end; False
    where no Kafka is at hand. `without_topics` names those that are not compared.
    """

    kind: ClassVar[str] = "tables"
    first: ClassVar[str] = "plan"
    last: ClassVar[str] = "reconcile"
    config: PipelineConfig
    target: Target | None
    tables: Sequence[str]
    journal: Journal
    accept_end: Lsn | None = None
    without: Sequence[str] = ()
    topics: bool = True
    without_topics: Sequence[str] = ()
    observe: Observe = lambda _step, _facts: None
    progress: Callable[[str], None] = lambda _: None
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.tables:
            raise ConfigError("--table: name at least one")
        if (self.target is None) == (self.label is None):
            raise ConfigError("say from where: either --to MOMENT or --from LABEL")
        self.side = SideServer.named(self.config, self.journal.recovery)

    def run(self) -> None:
        """Do what is not yet true; the side server is gone afterwards, however it ends."""
        with alone(self.config):
            try:
                super().run()
            finally:
                self.side.forget()

    def identify(self) -> None:
        """Refuse a live server that is not the one for which it was begun."""
        if (begun := self.done.get("plan")) is None:
            return
        with self._connect() as live:
            system = identity(live, self.config.postgres.user)
        if system != (expected := begun.get("system_identifier", system)):
            raise RecoveryRefused(
                f"{self.journal.recovery} is of the server with system identifier {expected}, the "
                f"live one has {system}: nothing was touched"
            )

    def preconditions(self) -> Sequence[Precondition]:
        return (
            Precondition(
                "connectors",
                lambda: idle(self.config) if self._compares else (),
                "Its events would be waited for in vain: resume or mend it",
                "--no-topics",
            ),
        )

    @property
    def _compares(self) -> bool:
        """Whether a table is published, as far as is known: one that is gone may have been."""
        if not self.topics:
            return False
        with self._connect() as live:
            known = set(published(live, self.config.cdc.publication))
            there = [family_if_there(live, name) for name in self.tables]
        wanted = {".".join(one.place) for found in there for one in found}
        return bool(known) and not (all(there) and known.isdisjoint(wanted))

    def steps(self) -> Sequence[Step]:
        return (
            Step("plan", Phase.PREPARE, self.plan),
            Step("stage", Phase.REPLAY, self.stage, self._staged, until="apply"),
            Step("apply", Phase.RESTORE, self.apply),
            Step("prove", Phase.VERIFY, self.prove),
            Step("reconcile", Phase.RECONNECT, self.reconcile),
        )

    def plan(self) -> Facts:
        """Have the live server hand over its WAL, and see that the backup is one of it."""
        with self._connect() as live:
            system = identity(live, self.config.postgres.user)
            refuse_early(live, self.tables)
            if self.target is None:
                return self._plan_dump(system)
            handed_over(live, self.config)
        # the live server goes on: what only it holds cannot be replayed elsewhere
        postgres = self.config.postgres.model_copy(update={"data": None})
        config = self.config.model_copy(update={"postgres": postgres})
        plan = make(config, self.target, accept_end=self.accept_end, without=self.without)
        if plan.system_identifier != system:
            raise RecoveryRefused(
                f"{plan.backup} is of the server with system identifier "
                f"{plan.system_identifier}, the live one has {system}: nothing was touched"
            )
        return plan.as_facts() | {"tables": list(self.tables)}

    def lines(self) -> Iterator[str]:
        """Say whence rows would come and what becomes of each table; WAL is handed over for it."""
        facts = self.plan()
        if self.target is None:
            yield f"rows come from    {facts['label']}"
        else:
            yield from Plan.of_facts(facts).lines()
        with self._connect() as live:
            there = {name: family_if_there(live, name) for name in self.tables}
        for name, family_now in there.items():
            if not family_now:
                yield f"{name} is gone: it is made again"
            for one in family_now:
                yield f"{one} gets the rows of the moment: what was written to it since is lost"

    def _plan_dump(self, system: str) -> Facts:
        """See that a logical backup is one of the whole database, and of the live server."""
        facts = self._dump.manifest.facts
        found = facts["scope"], facts["system_identifier"]
        if found != ("database", system):
            raise RecoveryRefused(
                f"{self._dump.label}: expected a dump of the whole database of the server "
                f"{system}, found one of {found[0]}, of the server {found[1]}"
            )
        told = {"label": self._dump.label, "tables": list(self.tables)}
        return told | {"system_identifier": system}

    def stage(self) -> Facts:
        """Make the side server, and copy the tables into a schema of the live server's own."""
        with self._side() as (lsn, connect), connect() as side, self._connect() as live:
            if self.target is not None:  # a dump does not keep the OIDs
                refuse_renamed(live, side, self.tables)
            staging = Staging(live, self.config.postgres, schema_for(self.journal.recovery))
            copied = staging.fill(side, self.tables)
        self.side.forget()
        self.progress(f"  {copied.rows:,} rows of {len(copied.digests)} tables are staged")
        return {"lsn": lsn, "copied": copied.facts()}

    def _staged(self, _facts: Facts) -> str | None:
        """Whether the staged rows are still there; where a commit was sent they need not be."""
        schema = self._copied.schema
        with self._connect() as live:
            there = has_schema(live, schema) or self.journal.last("sent") is not None
        return None if there else f"the staged rows in schema {schema} are gone"

    @contextmanager
    def _side(self) -> Iterator[tuple[str, Connect]]:
        """Run a server that holds the rows of the target; its LSN and a way to connect."""
        if self.target is None:
            with self.side.loaded(self._dump) as connect:
                yield self._dump.manifest.facts["lsn"], connect
            return
        plan = Plan.of_facts(self.done["plan"])
        self.observe("restored", {"backup": plan.backup, "bytes": self.side.unpack(plan.backup)})
        with self.side.at_target(plan, lambda lsn: self.progress(f"  {lsn}")) as (stood, connect):
            self.observe("replayed", {"lsn": str(stood.lsn), "last_commit": stood.last_commit})
            yield str(stood.lsn), connect

    @property
    def _dump(self) -> BackupSet:
        return Repository(FolderStore(self.config.repository.path)).get(str(self.label))

    def apply(self) -> Facts:
        """Put the rows back in one transaction; who was interrupted here asks what became of it."""
        copied = self._copied
        with self._connect() as live:
            # what `apply` wrote right before its COMMIT, if it came that far
            if (sent := self.journal.last("sent")) is not None and committed(live, sent["xid"]):
                return {**sent["facts"], "found": "committed before the interruption"}
            if not has_schema(live, copied.schema):
                raise RecoveryRefused(
                    f"the staged rows in schema {copied.schema} are gone: begin a new restore"
                )
            ends = self._topic_ends(copied)
            found: list[tuple[PutBack, Facts]] = []

            def tried() -> str | None:
                try:
                    found.append(self._put_back(live, copied, ends))
                except Contended as error:  # we have let go of everything: they can end
                    return str(error)
                return None

            wait_until("commit between clients", tried, within=CONTENDED)
            done, facts = found[0]
            end = live.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        self._tell(done)
        return facts | {"end": end[0] if end else None}

    def _put_back(
        self, live: psycopg.Connection[Any], copied: Copied, ends: Facts
    ) -> tuple[PutBack, Facts]:
        with live.transaction():
            done = put_back(live, copied)
            row = live.execute("SELECT pg_current_xact_id()::text").fetchone()
            facts: Facts = done.facts() | {"changed": done.changed, "ends": ends}
            self.observe("proven", facts)
            self.journal.write("apply", "sent", xid=row[0] if row else None, facts=facts)
        return done, facts

    def prove(self) -> Facts:
        """Validate the foreign keys, and examine indexes, tables, sequences and publications."""
        copied = self._copied
        with self._connect() as live:
            oids = [family(live, one.quoted)[0].oid for one in copied.relations]
            validated = validate(live, oids)
            broken, not_examined, (indexes, heaps) = amcheck(live, oids)
            wrong = [*broken, *unsound(live, oids), *publications(live, copied)]
        if wrong:
            raise RestoreError("restored, but: " + "; ".join(wrong))
        self.progress(f"  proven: {indexes} indexes and {heaps} tables by amcheck, digests before")
        for one in not_examined:
            self.progress(f"  NOT examined: {one}")
        return {
            "validated": validated,
            "indexes": indexes,
            "heaps": heaps,
            "not_examined": not_examined,
        }

    def reconcile(self) -> Facts:
        """Wait for the events, then compare each published table with its topic."""
        applied = self.done["apply"]
        since = {
            table: {int(partition): end for partition, end in ends.items()}
            for table, ends in applied["ends"].items()
        }
        if not since:
            why = "not asked for" if not self.topics else "no table of these is published"
            self.progress(f"  NOT compared with topics: {why}")
            return {"not_compared": why}
        with self._connect() as live:
            if applied["changed"] and "end" in applied:
                end = Lsn.parse(applied["end"])
                arriving = partial(self._undelivered, delivery(self.config, live, end))
                wait_until("events", arriving, within=DELIVERED, every=POLL)
        recovery = self.journal.recovery
        found = reconcile(
            self.config,
            since=since,
            recovery=recovery,
            arriving=ARRIVING,
            left_out=self.without_topics,
        )
        if found.missing:
            told = "; ".join(f"{t.table}: {t.missing_examples}" for t in found.topics if t.missing)
            raise RestoreError(f"{found.missing} rows have no event: {told}")
        self.progress(f"  {found.told}")
        return found.facts()

    def _undelivered(self, missing: Callable[[], str | None]) -> str | None:
        """Tell why not every event is there; RestoreError where none will come by itself."""
        if (why := missing()) is not None and (told := "; ".join(idle(self.config))):
            raise RestoreError(f"{why}: {told}. Resume or mend it, then --resume, or --no-topics")
        return why

    @property
    def _copied(self) -> Copied:
        return Copied.of(self.done["stage"]["copied"])

    def _connect(self) -> psycopg.Connection[Any]:
        postgres = self.config.postgres
        name = f"pipeline {self.journal.recovery}"
        connection = session.connect(postgres, application_name=name, autocommit=True)
        connection.execute(session.NO_EVENT_TRIGGERS)
        return connection

    def _topic_ends(self, copied: Copied) -> dict[str, Any]:
        """Where the topics of tables end whose every row must have an event from now on.

        A live table's rows that do not change have none: there any event counts.
        """
        if not self.topics:
            return {}
        publication = self.config.cdc.publication
        published = {(s, t) for p, s, t in copied.published if p == publication}
        ends: dict[str, Any] = {}
        for one in (table.relation for table in copied.rewound):
            if one.place in published:
                gone = one.place in copied.missing
                ends |= topic_ends(self.config, [str(one)]) if gone else {str(one): {}}
        return ends

    def _tell(self, done: PutBack) -> None:
        for table, kinds in done.counts.items():
            self.progress(f"  {table}: " + ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()))
        for key in done.keys:
            self.progress(f"  {key} is back")
        for name in done.absent:
            self.progress(f"  NOT as at the target, and not brought back: {name}")
        for told in done.otherwise:
            self.progress(f"  NOT as at the target, and left as it is: {told}")
