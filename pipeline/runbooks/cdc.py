"""Scenario 2 as code: slot, publication, connector or offset is in trouble.

Read the whole state, and all that could stop a later step; stop the connectors and see that nobody
reads the slot; mend Connect's own topics, and make again, STOPPED, connectors that are gone; look
once more, now that nothing moves; mend publication and slot; then go on where all is sound, else
read every row again and bury what has no row. Clients write all the while.

What is promised: behind the recovery each topic tells the last state of every row, and nothing
that has no row. Where it went on, every event is there, once or again. Where rows were read again,
states in between are lost, and events of no row, as of an outbox: the plan names the stretch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import ClassVar

from pipeline.cdc import claimed, needs, remade
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import other_connectors, own_connectors
from pipeline.cdc.needs import Need, Wanted
from pipeline.cdc.resnapshot import prepare_source, stop_connectors
from pipeline.cdc.state import kept
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Connector, Reading
from pipeline.config import PipelineConfig
from pipeline.errors import NoBackup, RecoveryRefused, RestoreError
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.replay.target_topic import configure
from pipeline.postgres.replication.publications import differences, find_publication, recreate
from pipeline.postgres.replication.slots import Slot, find_slot
from pipeline.postgres.server.session import connect
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import LATEST, SYSTEM, chosen
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import cdc_preconditions, reread
from pipeline.runbooks.cdc_asked import Asked, Way
from pipeline.runbooks.cdc_holder import set_free
from pipeline.runbooks.reconnect import not_stopped, problems
from pipeline.runbooks.runbook import Facts, Phase, Precondition, Runbook, Step
from pipeline.wait import wait_until

SETTLES = timedelta(seconds=30)
POLICY, COMPACT = "cleanup.policy", "compact"

__all__ = ["Asked", "CdcRecovery", "Way", "new_recovery"]


def new_recovery(config: PipelineConfig) -> Journal:
    """Open the log of a new recovery in the repository."""
    return Journal.new(config.repository.path, CdcRecovery.kind)


@dataclass
class CdcRecovery(Runbook):
    """One recovery of CDC. `observe` hears of each step when it is done.

    `identity` is what the operator typed: the system identifier of the source. What was asked for
    is in the journal of a recovery that is resumed, and read from there.
    """

    kind: ClassVar[str] = "cdc"
    first: ClassVar[str] = "look"
    last: ClassVar[str] = "verify"
    config: PipelineConfig
    asked: Asked
    journal: Journal
    identity: str
    observe: Callable[[str, Facts], None] = lambda _step, _facts: None
    gate: Callable[[], Sequence[str]] = list
    progress: Callable[[str], None] = lambda _: None
    _repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        self._repository = Repository(FolderStore(self.config.repository.path))
        if (begun := self.done.get(self.first)) is not None:
            self.asked = Asked.of(begun).resumed(self.asked)

    def identify(self) -> None:
        """Refuse unless the operator typed the identity of the server whose slot it is."""
        found = self._now.server and self._now.server.system_identifier
        if found != self.identity:
            told = found or "; ".join(map(str, self._now.unread[:1]))
            raise RecoveryRefused(f"typed {self.identity!r}, the server's identifier is {told}")

    def preconditions(self) -> Sequence[Precondition]:
        return cdc_preconditions.listed(self.config, self.asked, self._now, self._known, self._wish)

    def steps(self) -> Sequence[Step]:
        return (
            Step("look", Phase.PREPARE, self.look),
            Step("fence", Phase.STOP, self.fence, self._fenced, until="reconnect"),
            Step("topics", Phase.RESTORE, self.topics),
            Step("connectors", Phase.RESTORE, self.connectors, self._made, until="reconnect"),
            Step("judge", Phase.PREPARE, self.judge),
            Step("source", Phase.RESTORE, self.source, self._prepared, until="reconnect"),
            Step("reconnect", Phase.RECONNECT, self.reconnect),
            Step("verify", Phase.VERIFY, self.verify),
        )

    def plan(self) -> Iterator[str]:
        """Say what is wrong, what would be done, and what each way loses; touches nothing."""
        found = self._needs(self._now)
        yield from map(str, found)
        back = remade.missing(self.config, self._now, self._known)
        yield from (f"connector {one.name!r} is gone: it is made again, STOPPED" for one in back)
        yield from (
            f"{one.name}: cleanup.policy is {one.policy!r}: it is compacted from now on"
            for one in self._now.internal_topics
            if one.policy != COMPACT
        )
        own = [each for each in self._now.connectors if each.own]
        yield from (
            f"{one.name}: task {task.id} is {task.state} {task.cause}: it is restarted"
            for one in own
            for task in one.tasks
            if task.state == "FAILED"
        )
        gap = needs.stretch(self.config, self._now, own)
        if back:
            yield "its offset is looked at once it is there; rows are read again if need be"
        if any(need.reread for need in found) or self.asked.way is Way.REREAD:
            yield (
                "by re-read: each topic gets the last state of every row, and a tombstone where a "
                f"row is gone; states in between, and events of no row (an outbox), are lost {gap}"
            )
        else:
            yield "by going on: nothing is lost; events may come twice"

    def look(self) -> Facts:
        """Write down what was asked for and what was found; touches nothing."""
        for name, reads in self._others():
            self.progress(f"  {name} is left alone: it reads {reads}")
        for need in self._needs(self._now):
            self.progress(f"  {need}")
        label = self._set.label if self._set else None
        wish = self._wish
        return {
            **self.asked.as_facts(),
            "set": label,
            "publication": wish.publication.facts() if wish.publication else None,
            "failover": wish.failover,
            "two_phase": wish.two_phase,
            "found": [str(need) for need in self._needs(self._now)],
            "back": [one.name for one in remade.missing(self.config, self._now, self._known)],
        }

    def fence(self) -> Facts:
        """Stop our connectors, and see that nobody reads the slot."""
        with ConnectClient(self.config.connect) as client:
            names = sorted(set(own_connectors(self.config, client)) & set(client.names()))
            offsets = stop_connectors(client, names)
        with connect(self.config.postgres, autocommit=True) as connection:
            ended = set_free(connection, self.config.cdc.slot, self.asked.terminate)
        told = {name: [asdict(one) for one in stored] for name, stored in offsets.items()}
        return {"connectors": names, "offsets": told, "ended": ended}

    def _fenced(self, facts: Facts) -> str | None:
        if told := not_stopped(self.config, facts["connectors"]):
            return told
        with connect(self.config.postgres, autocommit=True) as connection:
            slot = find_slot(connection, self.config.cdc.slot)
        return f"slot {slot.name!r} is active" if slot is not None and slot.active else None

    def topics(self) -> Facts:
        """Have Connect's own topics compacted: by age they lose offsets and configurations."""
        mended = [one.name for one in read(self.config).internal_topics if one.policy != COMPACT]
        for topic in describe(self.config.kafka, mended) if mended else ():
            self.progress(f"  {topic.name} is compacted from now on, and not deleted by age")
            configure(self.config.kafka, topic.name, topic.overrides | {POLICY: COMPACT})
        return {"mended": mended}

    def connectors(self) -> Facts:
        """Make connectors again that are gone, STOPPED."""
        made = list[str]()
        with ConnectClient(self.config.connect) as client:
            for name in self.done["look"]["back"]:
                self.progress(f"  {name} is made again, STOPPED")
                remade.make(client, self._known_connector(name), self.asked.secrets or {})
                made.append(name)
        return {"made": made}

    def _made(self, facts: Facts) -> str | None:
        return not_stopped(self.config, facts["made"])

    def judge(self) -> Facts:
        """Look again, now that nobody moves anything, and decide how to go on."""
        now = read(self.config)
        found = self._needs(now)
        for each in (each for each in now.connectors if each.own):
            found += claimed.unfounded(self.config, now, each)
        for need in found:
            self.progress(f"  {need}")
        again = any(need.reread for need in found) or self.asked.way is Way.REREAD
        own = [each for each in now.connectors if each.own]
        gap = needs.stretch(self.config, now, own) if again else None
        if again:
            self.progress(f"  every row is read again; states in between are lost {gap}")
        return {
            "reread": again,
            "new_slot": any(need.new_slot for need in found),
            "needs": [str(need) for need in found],
            "lost_between": gap,
        }

    def source(self) -> Facts:
        """Publication first, then a new slot where the old one cannot be read."""
        name, wish = self.config.cdc.slot, Wanted.of(self.done["look"])
        with connect(self.config.postgres, autocommit=True) as connection:
            if wish.publication is None:
                return {"mended": []}
            if not self.done["judge"]["new_slot"]:
                return {"mended": recreate(connection, wish.publication)}
            flags = Slot.of({"name": name, "failover": wish.failover, "two_phase": wish.two_phase})
            prepared = prepare_source(connection, wish.publication, name, like=flags)
        return {"mended": prepared.mended, "slot": prepared.slot.facts()}

    def _prepared(self, _facts: Facts) -> str | None:
        wish = Wanted.of(self.done["look"])
        with connect(self.config.postgres, autocommit=True) as connection:
            slot = find_slot(connection, self.config.cdc.slot)
            found = find_publication(connection, self.config.cdc.publication)
        if slot is None or slot.lost:
            return f"slot {self.config.cdc.slot!r} is gone or lost"
        told = differences(wish.publication, found) if wish.publication else []
        return "; ".join(told) or None

    def reconnect(self) -> Facts:
        """Go on where all is sound, else read every row again and bury what has no row."""
        if not self.done["judge"]["reread"]:
            reread.go_on(self.config)
            return {"reread": False}
        with ConnectClient(self.config.connect) as client:  # an earlier run may have resumed them
            stop_connectors(client, own_connectors(self.config, client))
        found = reread.every_row(
            self.config, self.journal.recovery, self.progress, self.asked.without_topics
        )
        return {"reread": True, "reconciliation": found.facts()}

    def verify(self) -> Facts:
        """Ask slot, connectors, topics and gate; Debezium opens its slot twice when it starts."""
        with connect(self.config.postgres, autocommit=True) as connection:

            def wrong() -> str | None:
                left_out = self.asked.without_topics
                return "; ".join(problems(self.config, connection, left_out)) or None

            wait_until("recovered", wrong, within=SETTLES)
        if told := self.gate():
            raise RestoreError("not recovered: " + "; ".join(told))
        return {"problems": 0}

    def _needs(self, now: Reading) -> list[Need]:
        found = list(needs.of_source(self.config, now, self._wish))
        for each in (each for each in now.connectors if each.own):
            found += needs.of_offset(self.config, now, self._with_history(each))
        return found

    def _with_history(self, connector: Connector) -> Connector:
        """Take the history of its offset from the newest set, of whatever server it is."""
        then = self._newest.known(connector.name) if self._newest else None
        return connector.model_copy(update={"history": then.history if then else None})

    def _known_connector(self, name: str) -> Connector:
        if self._known is not None and (found := self._known.known(name)) is not None:
            return found
        raise RestoreError(f"no set tells how connector {name!r} was configured")

    def _others(self) -> Iterator[tuple[str, str]]:
        with ConnectClient(self.config.connect) as client:
            yield from other_connectors(self.config, client).items()

    @cached_property
    def _now(self) -> Reading:
        return read(self.config)

    @cached_property
    def _set(self) -> BackupSet | None:
        """The set that was named, else the newest of this server; None where there is none."""
        label = self.done.get(self.first, {}).get("set") or self.asked.source or LATEST
        server = self._now.server
        here = {SYSTEM: server.system_identifier} if server else dict[str, str]()
        try:
            return chosen(
                self._repository,
                kept.KIND,
                label,
                origin=lambda: here,
                typed=self.asked.origin,
                say=lambda line: self.progress(f"  {line}"),
            )
        except NoBackup:
            self.progress("  no backup of slots: what they were is known from the server alone")
            return None

    @cached_property
    def _known(self) -> Reading | None:
        return kept.read(self._set) if self._set else None

    @cached_property
    def _newest(self) -> Reading | None:
        try:
            return kept.read(kept.newest(self._repository))
        except NoBackup:
            return None

    @cached_property
    def _wish(self) -> Wanted:
        if (begun := self.done.get(self.first)) is not None:
            return Wanted.of(begun)
        keep = self.asked.keep_publication
        return needs.wanted(self.config, self._now, self._known, keep_publication=keep)
