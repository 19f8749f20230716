"""Scenario 2 as code: slot, publication, connector or offset is in trouble.

Read the whole state, and all that could stop a later step; stop the connectors and see that nobody
reads the slot; mend Connect's own topics, and make again, STOPPED, connectors that are gone; look
once more, now that nothing moves; mend publication and slot; then go on where all is sound, else
read every row again and bury what has no row. Clients write all the while.

What is promised: behind the recovery each topic tells the last state of every row, and nothing
that has no row. Where it went on, or the lost stretch was decoded again, every event is there, once
or again. Where rows were read again, states in between are lost, and events of no row, as of an
outbox: the plan names the stretch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import ClassVar

import psycopg

from pipeline.cdc import claimed, needs, remade, signalled
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import other_connectors, own_connectors
from pipeline.cdc.needs import Need, Wanted
from pipeline.cdc.resnapshot import resnapshot, stop_connectors
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Reading
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError, RecoveryRefused, RestoreError
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.replay.target_topic import configure
from pipeline.postgres.replication.publications import differences, find_publication
from pipeline.postgres.replication.slots import find_slot
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.journal import Journal
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import cdc_preconditions, redelivery, reread
from pipeline.runbooks.cdc_asked import Asked, Way
from pipeline.runbooks.cdc_evidence import COMPACT, Evidence
from pipeline.runbooks.cdc_holder import set_free
from pipeline.runbooks.reconnect import not_stopped, problems
from pipeline.runbooks.redelivery import Redelivery
from pipeline.runbooks.runbook import Facts, Phase, Precondition, Runbook, Step
from pipeline.runbooks.slots import mend

POLICY = "cleanup.policy"

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
        now = self._evidence.now
        found = now.server and now.server.system_identifier
        if found != self.identity:
            told = found or "; ".join(map(str, now.unread[:1]))
            raise RecoveryRefused(f"typed {self.identity!r}, the server's identifier is {told}")

    def preconditions(self) -> Sequence[Precondition]:
        others = self._begun_by_others if self.asked.way is not Way.REREAD else ()
        return cdc_preconditions.listed(self._evidence, others)

    def steps(self) -> Sequence[Step]:
        return (
            Step("look", Phase.PREPARE, self.look),
            Step("fence", Phase.STOP, self.fence, self._fenced, until="reconnect"),
            Step("topics", Phase.RESTORE, self.topics),
            Step("connectors", Phase.RESTORE, self.connectors, self._made, until="reconnect"),
            Step("judge", Phase.PREPARE, self.judge),
            Step("source", Phase.RESTORE, self.source, self._prepared, until="reconnect"),
            Step("redecode", Phase.REPLAY, self.redecode, self._ends_there, until="reconnect"),
            Step("reconnect", Phase.RECONNECT, self.reconnect),
            Step("verify", Phase.VERIFY, self.verify),
        )

    def plan(self) -> Iterator[str]:
        """Say what is wrong, what would be done, and what each way loses; touches nothing."""
        return self._evidence.plan()

    def look(self) -> Facts:
        """Write down what was asked for and what was found; touches nothing."""
        seen = self._evidence
        with ConnectClient(self.config.connect) as client:
            for name, reads in other_connectors(self.config, client).items():
                self.progress(f"  {name} is left alone: it reads {reads}")
        for need in (found := seen.needs(seen.now)):
            self.progress(f"  {need}")
        for other in self._begun_by_others:  # every row is read again, or it was refused
            other.abandon(f"{self.journal.recovery} reads every row again")
        return {
            **self.asked.as_facts(),
            **seen.wish.facts(),
            "set": seen.backup.label if seen.backup else None,
            "found": [str(need) for need in found],
            "back": [one.name for one in seen.back],
        }

    def fence(self) -> Facts:
        """Stop our connectors, and see that nobody reads the slot."""
        with ConnectClient(self.config.connect) as client:
            names = sorted(set(own_connectors(self.config, client)) & set(client.names()))
            offsets = stop_connectors(client, names)
        redelivery.forget(self.config, names)
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
        found = self._evidence.needs(now)
        for each in (each for each in now.connectors if each.own):
            found += claimed.unfounded(self.config, now, each)
        for need in found:
            self.progress(f"  {need}")
        again = any(need.reread for need in found) or self.asked.way is Way.REREAD
        own = [each for each in now.connectors if each.own]
        gap = needs.stretch(self.config, now, own) if again else None
        exact = again and self._exactly(now, found)
        if again:
            self.progress(f"  events may be in no topic {gap}")
        return {
            "reread": again,
            "redecode": exact,
            "new_slot": any(need.new_slot for need in found),
            "needs": [str(need) for need in found],
            "lost_between": gap,
        }

    def source(self) -> Facts:
        """Publication first, then a new slot where the old one cannot be read."""
        wish, new_slot = Wanted.of(self.done["look"]), self.done["judge"]["new_slot"]
        with connect(self.config.postgres, autocommit=True) as connection:
            told = mend(connection, self.config.cdc.slot, wish, new_slot=new_slot)
        return {"mended": told, "new_slot": new_slot}

    def _prepared(self, _facts: Facts) -> str | None:
        wish = Wanted.of(self.done["look"])
        with connect(self.config.postgres, autocommit=True) as connection:
            slot = find_slot(connection, self.config.cdc.slot)
            found = find_publication(connection, self.config.cdc.publication)
        if slot is None or slot.lost:
            return f"slot {self.config.cdc.slot!r} is gone or lost"
        told = differences(wish.publication, found) if wish.publication else []
        return "; ".join(told) or None

    def _exactly(self, now: Reading, found: Sequence[Need]) -> bool:
        """Whether the lost stretch is decoded again; says why not, and refuses where it must be."""
        if self.asked.way not in {Way.NEEDED, Way.REDECODE}:
            return False
        told = list(redelivery.obstacles(self.config, now, found))
        if told and self.asked.way is Way.REDECODE:
            raise RestoreError(f"{'; '.join(told)}: what is left is --way reread")
        for each in told:
            self.progress(f"  the stretch is not decoded again: {each}")
        return not told

    def redecode(self) -> Facts:
        """Have the events of the lost stretch told, each once; where it cannot be, say why."""
        if not self.done["judge"].get("redecode") or self.asked.way is Way.REREAD:
            redelivery.forget(self.config, self.done["fence"]["connectors"])
            return {"to": None}
        each, end = redelivery.reader(self.config, read(self.config)), self._begins()
        if each is None or end is None:
            raise RestoreError(f"slot {self.config.cdc.slot!r} or its connector is gone")
        with closing(Redelivery(self.config, each.name, end, self.progress)) as owed:
            try:
                return {"connector": each.name, **owed.prove(), **owed.tell()}
            except (PipelineError, psycopg.Error) as error:
                if owed.began or self.asked.way is Way.REDECODE:
                    raise
                if not isinstance(error, redelivery.FOR_GOOD):
                    told = "no event was told yet. Go on with --resume once it has passed, or"
                    raise RestoreError(f"{error}: {told} add --way reread") from error
                self.progress(f"  every row is read again instead: {error}")
                return {"to": None, "why": str(error)}

    def _ends_there(self, facts: Facts) -> str | None:
        """A slot that somebody made again begins elsewhere."""
        begins = self._begins()
        if facts["to"] in {None, str(begins)}:
            return None
        if redelivery.went_on(self.config, facts["connector"], Lsn.parse(facts["to"]), begins):
            return None
        return f"slot {self.config.cdc.slot!r} begins at {begins}, and not at {facts['to']}"

    def _begins(self) -> Lsn | None:
        with connect(self.config.postgres, autocommit=True) as connection:
            slot = find_slot(connection, self.config.cdc.slot)
        return slot.confirmed_flush_lsn if slot is not None else None

    def reconnect(self) -> Facts:
        """Go on where nothing is missing, else read every row again and bury what has no row."""
        told = self.done["redecode"]
        if told["to"] is not None:
            redelivery.hand_over(self.config, told["connector"], Lsn.parse(told["to"]))
        if told["to"] is not None or not self.done["judge"]["reread"]:
            reread.go_on(self.config)
            return {"reread": False}
        with ConnectClient(self.config.connect) as client:  # an earlier run may have resumed them
            stop_connectors(client, own_connectors(self.config, client))
        found = reread.every_row(
            self.config,
            self.journal.recovery,
            self.progress,
            self._evidence.left_out,
            read_again=signalled.read_again if self.asked.way is Way.SIGNAL else resnapshot,
        )
        return {"reread": True, "reconciliation": found.facts()}

    def verify(self) -> Facts:
        """Ask slot, connectors, topics and gate."""
        with connect(self.config.postgres, autocommit=True) as connection:
            wrong = problems(self.config, connection, self._evidence.left_out)
        wrong += self.gate()
        if wrong:
            raise RestoreError("not recovered: " + "; ".join(wrong))
        return {"problems": 0}

    @property
    def _begun_by_others(self) -> list[Journal]:
        """Recoveries that were to read every row again, and may have mended what told so."""
        return [
            other
            for other in self.unfinished(self.config.repository.path)
            if other.recovery != self.journal.recovery
            and other.done().get("judge", {}).get("reread")
            and "reconnect" not in other.done()
        ]

    def _known_connector(self, name: str) -> Connector:
        known = self._evidence.known
        if known is not None and (found := known.known(name)) is not None:
            return found
        raise RestoreError(f"no set tells how connector {name!r} was configured")

    @cached_property
    def _evidence(self) -> Evidence:
        return Evidence(
            self.config, self._repository, self.asked, self.progress, self.done.get(self.first)
        )
