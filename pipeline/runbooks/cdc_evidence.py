"""What a recovery of CDC goes by: the state as it is, the set it is held against, and the plan."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from pipeline.cdc import needs, remade
from pipeline.cdc.include_lists import left_out
from pipeline.cdc.needs import Need, Wanted
from pipeline.cdc.state import kept
from pipeline.cdc.state.classify import classify
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.state.states import REREAD, Gravity
from pipeline.config import PipelineConfig
from pipeline.errors import NoBackup
from pipeline.postgres.replication.publications import changed_tables
from pipeline.postgres.server.session import connect
from pipeline.repository.kinds import LATEST, SYSTEM, chosen
from pipeline.repository.sets import BackupSet, Repository
from pipeline.runbooks import redelivery
from pipeline.runbooks.cdc_asked import Asked, Way
from pipeline.runbooks.runbook import Facts

COMMANDS = {"signals", "outbox"}
"""Tables whose rows are no data: an event is no row of these."""
BEATS = "heartbeats"
UNWRAP = "ExtractNewRecordState"
COMPACT = "compact"
NARROWED = "S33"
"""The state of a publication that is smaller than it was."""


@dataclass
class Evidence:
    """Read once for each run; `begun` is what an earlier run wrote down before it began."""

    config: PipelineConfig
    repository: Repository
    asked: Asked
    progress: Callable[[str], None]
    begun: Facts | None = None

    @cached_property
    def now(self) -> Reading:
        return read(self.config)

    @cached_property
    def backup(self) -> BackupSet | None:
        """The set that was named, else the newest of this server; None where there is none."""
        label = (self.begun or {}).get("set") or self.asked.source or LATEST
        server = self.now.server
        here = {SYSTEM: server.system_identifier} if server else dict[str, str]()
        try:
            return chosen(
                self.repository,
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
    def known(self) -> Reading | None:
        return kept.read(self.backup) if self.backup else None

    @cached_property
    def newest(self) -> Reading | None:
        """The newest set, of whatever server: it alone knows of which history an offset is."""
        return kept.earlier(self.repository)

    @cached_property
    def wish(self) -> Wanted:
        if self.begun is not None:
            return Wanted.of(self.begun)
        keep = self.asked.keep_publication
        return needs.wanted(self.config, self.now, self.known, keep_publication=keep)

    @property
    def back(self) -> list[Connector]:
        """Connectors that are gone, and are made again."""
        return remade.missing(self.config, self.now, self.known)

    @property
    def names(self) -> list[str]:
        """Whatever is not read of these concerns us."""
        own = [each.name for each in self.now.connectors if each.own]
        return [self.config.postgres.dbname, *self.config.connect.connectors, *own]

    @property
    def own(self) -> list[Connector]:
        """Our connectors, those that are made again too."""
        return [*(each for each in self.now.connectors if each.own), *self.back]

    @cached_property
    def tables(self) -> list[str]:
        """Tables whose changes are published once the publication is mended."""
        if self.wish.publication is None:
            return []
        with connect(self.config.postgres, autocommit=True) as connection:
            return changed_tables(connection, self.wish.publication)

    @property
    def left_out(self) -> list[str]:
        """Tables that are not compared: as the operator wants, and those that hold no data."""
        names = {each.name: each.config for each in self.own}
        told = [each for each in self.now.service_tables if each.connector in names]
        no_data = {each.table for each in told if each.use in COMMANDS}
        for each in told:  # the slot goes on by its changes, whether or not they are in a topic
            if each.use == BEATS and left_out(names[each.connector], each.table):
                no_data.add(each.table)
        return sorted({*self.asked.without_topics, *no_data.intersection(self.tables)})

    def needs(self, now: Reading) -> list[Need]:
        """What is wrong by a reading, that of this run or a later one."""
        now = kept.with_histories(now, self.newest)
        found = list(needs.of_source(self.config, now, self.wish))
        for each in (each for each in now.connectors if each.own):
            found += needs.of_offset(self.config, now, each)
        return found if any(need.reread for need in found) else [*found, *self._of_states(now)]

    def _of_states(self, now: Reading) -> Iterator[Need]:
        """States of our connectors that lose events, and that positions alone do not tell."""
        for verdict in classify(now, self.newest).verdicts:
            for one in verdict.findings:
                meant = self.asked.keep_publication and one.state.id == NARROWED
                loses = one.gravity is Gravity.LOSES and REREAD in one.state.command
                if verdict.own and loses and not meant:
                    yield Need(f"{verdict.name}: {one.state.id}, {one.said}", reread=True)

    def plan(self) -> Iterator[str]:
        """Say what is wrong, what would be done, and what each way loses."""
        found = self.needs(self.now)
        own = [each for each in self.now.connectors if each.own]
        yield from map(str, found)
        for one in self.back:
            yield f"connector {one.name!r} is gone: it is made again, STOPPED"
            yield "its offset is looked at once it is there; rows are read again if need be"
        for topic in self.now.internal_topics:
            if topic.policy != COMPACT:
                told = f"{topic.name}: cleanup.policy is {topic.policy!r}"
                yield f"{told}: it is compacted from now on"
        for each in own:
            for task in (task for task in each.tasks if task.state == "FAILED"):
                told = f"{each.name}: task {task.id} is {task.state} {task.cause}"
                yield f"{told}: it is restarted"
        again = any(need.reread for need in found) or self.asked.way is Way.REREAD
        if again and self.asked.way in {Way.NEEDED, Way.REDECODE}:
            obstacles = list(redelivery.obstacles(self.config, self.now, found))
            yield from (f"the stretch cannot be decoded again: {each}" for each in obstacles)
            if not obstacles:
                gap = needs.stretch(self.config, self.now, own)
                yield f"by redecode: every event is told {gap}; where it cannot be decoded, by"
        if again:
            yield (
                "by re-read: each topic gets the last state of every row, and a tombstone where a "
                "row is gone; states in between, and events of no row (an outbox), are lost "
                + needs.stretch(self.config, self.now, own)
            )
        else:
            yield "by going on: nothing is lost; events may come twice"
            for each in (each for each in own if UNWRAP in str(each.config)):
                yield (
                    f"but {each.name} sends events without their source ({UNWRAP}): where its "
                    "offset says that more was delivered than its slot has confirmed, rows are "
                    "read again"
                )
