"""From a promoted server to one that clients use: opened to us, examined, CDC brought back, judged.

The second half of a point-in-time recovery: until its last step nobody comes in but this package
and the connectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config import PipelineConfig
from pipeline.errors import BeginAgain, PipelineError, RestoreError, ServerError
from pipeline.postgres.base import configuration
from pipeline.postgres.server import clients
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal import archiving
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import held_subscriptions, parts, reconnect, reread, structure
from pipeline.runbooks.live import answering, archive_mode_and_timeline
from pipeline.runbooks.opened import prove_commit, settle_prepared
from pipeline.runbooks.plan import Plan
from pipeline.runbooks.runbook import Facts, Runbook

Gate = Callable[[], Sequence[str]]
"""Looks at the recovered pipeline before clients are let in; answers what is wrong, in words."""
CONNECTING = "connecting"
"""The line of a journal with the roles of connectors, where the fence did not learn of them."""
LEFT_OUT = "CDC is NOT brought back: connectors, offsets and topics were left out"


class Reopening(Runbook):
    """These steps, and what they need to know of the recovery that they belong to."""

    config: PipelineConfig
    data: Path
    tools: Tools
    store: FolderStore
    server: LocalServer
    plan: Plan | None
    structure: bool | None
    cdc: bool | None
    prepared: str | None
    without_topics: Sequence[str]
    gate: Gate

    def open(self) -> Facts:
        """Start at the public address, for this package and CDC only, with archiving back on."""
        placed = configuration.put_back(self._backup, self.tools)
        for name in placed["differing"]:
            self.progress(f"  {name} is not what the backup has: it stays as it is")
        self._keep_clients_out()
        opened = self._opened_server
        if opened.pid() is None:
            opened.start(self._started_by)
        else:
            self.server.reload()  # it runs since an earlier run was killed here, by its rules
        promoted = self.journal.done()["replay"]["timeline"]
        with answering(self.config.postgres, opened.log) as connection:
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
        with answering(self.config.postgres, opened.log) as connection:
            prove_commit(connection)
            settled = settle_prepared(
                connection, self.config.postgres, self.prepared, self.progress
            )
        address = f"{self.config.postgres.host}"
        return {"archive_mode": mode, "address": address, "prepared": settled, **placed}

    def _keep_clients_out(self) -> None:
        """Let in this package and the roles of the connectors that are known by now."""
        roles = set(self.done["fence"].get("roles", []))
        roles |= set((self.journal.last(CONNECTING) or {}).get("roles", ()))
        clients.keep_out(self.server, {self.config.postgres.user, *roles}, self._started_by)

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
            self._expect_every_part()
            if self.last in self.done:  # clients have been let in without CDC
                found = reread.every_row(
                    self.config, self.journal.recovery, self.progress, self.without_topics
                )
                return {"reconciliation": found.facts()}
            self._let_connectors_in()
            done, found = reconnect.after_restore(
                self.config,
                connection,
                facts,
                self.journal.recovery,
                self.progress,
                left_out=self.without_topics,
            )
        return {**done, "reconciliation": found.facts()}

    def _expect_every_part(self) -> None:
        """Raise ServerError where a part is down still that the recovery has begun without."""
        if down := parts.down(self.config):
            told = "; ".join(f"{part} is down: {why}" for part, why in sorted(down.items()))
            raise ServerError(
                f"{told}. The database is whole, and its clients wait: start these, then go on "
                "with --resume; or let clients in before, with --resume and --without-cdc"
            )

    def _let_connectors_in(self) -> None:
        """Let in roles of connectors that could not be asked for when the server was fenced."""
        stopped = reconnect.stopped(self.config)
        if set(stopped["roles"]) <= set(self.done["fence"].get("roles", [])):
            return
        self.journal.write("reconnect", CONNECTING, roles=stopped["roles"])
        self._keep_clients_out()
        self.server.reload()

    def _reconnected(self, facts: Facts) -> str | None:
        return LEFT_OUT if self.cdc and "left_out" in facts else None

    def verify(self) -> Facts:
        """Ask the pipeline and the gate; clients stay out while either names a problem."""
        reconnected = self.done["reconnect"]
        told = {"problems": 0, "of": reconnected.get("utc")}
        problems = list[str]()
        if "left_out" not in reconnected:
            with answering(self.config.postgres) as connection:
                problems = reconnect.problems(self.config, connection, self.without_topics)
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
    def _opened_server(self) -> LocalServer:
        """Our server with a log of its own: it writes on for years, not into the repository."""
        log = self.data / "log" / f"{self.journal.recovery}.log"
        if not log.parent.exists():  # where the server's own collector may write as well
            log.parent.mkdir(mode=0o700)
            self.tools.own(log.parent)
        return replace(self.server, log=log)

    @property
    def _backup(self) -> BackupSet:
        return Repository(self.store).get(self._plan.backup)

    @property
    def _started_by(self) -> dict[str, str]:
        return configuration.start_settings(self._backup, self.data)

    @property
    def _plan(self) -> Plan:
        if self.plan is None:
            raise PipelineError("a step ran before the plan was made")
        return self.plan
