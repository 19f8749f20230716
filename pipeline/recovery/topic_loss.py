"""Scenario 3 as code: topics or the offsets of groups are lost; bring back what was acknowledged.

Find the extent and prove the archive before anything is touched; stop who writes; keep what the
damaged topics still hold in the repository; replay the archive to its old offsets, and behind it
what was kept; bring the groups back; let CDC go on, from the first row where events are missing.

What is promised of a topic that CDC feeds: up to the archive's end, or where it was kept to its
old end, every event at its offset, once. Beyond that a re-read brings each row's last state and
buries what is gone; the states in between are not told again. Of other topics: everything up to
the archive's end, and what was kept; what lay between is lost and named.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

import psycopg
from confluent_kafka import KafkaException

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.resnapshot import stop_connectors
from pipeline.config import PipelineConfig
from pipeline.errors import ObjectMissing, RecoveryRefused, RestoreError, ServerError
from pipeline.kafka import archive, groups, proof, target_topic
from pipeline.kafka.group_moves import Exact, Moves
from pipeline.kafka.group_restore import restore
from pipeline.kafka.offset_map import OBJECT, OffsetMap
from pipeline.kafka.replay import FOLDER, Replay, new_journal
from pipeline.kafka.replay_plan import Mode, Range
from pipeline.kafka.replay_wish import Wish, make
from pipeline.kafka.topics import SECONDS, cluster_id, describe, extents
from pipeline.recovery import reread
from pipeline.recovery.journal import Journal
from pipeline.recovery.reconnect import connectors, problems
from pipeline.recovery.topic_extent import Harmed, fed_by_cdc, missing_groups, survey
from pipeline.repository import BackupSet, Repository
from pipeline.store import FolderStore
from pipeline.wait import wait_until

Facts = dict[str, Any]
WITHIN = timedelta(seconds=60)
STILL = timedelta(seconds=2)


class Way(StrEnum):
    """Where the events of topics that CDC feeds come from; other topics have only the archive."""

    JOINED = "joined"
    CDC = "cdc"


def new_recovery(config: PipelineConfig, what: str = "topics") -> Journal:
    """Open the log of a new recovery in the repository."""
    name = f"{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return Journal(config.repository.path / "recoveries" / name)


@dataclass
class TopicRecovery:
    """One recovery of topics and groups. `observe` hears of each step when it is done.

    `topics` are those that may be replaced, each by name; none means that only offsets of groups
    are missing. `identity` is what the operator typed: the id of the cluster.
    """

    config: PipelineConfig
    topics: Sequence[str]
    journal: Journal
    identity: str
    way: Way = Way.JOINED
    label: str | None = None
    observe: Callable[[str, Facts], None] = lambda _step, _facts: None
    gate: Callable[[], Sequence[str]] = list
    progress: Callable[[str], None] = lambda _: None
    done: dict[str, Facts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository = Repository(FolderStore(self.config.repository.path))

    def run(self) -> None:
        """Run every step that the journal does not know as done.

        Raises the step's own error after writing it into the journal.
        """
        self.done = self.journal.done() if self.journal.path.exists() else {}
        for step in (
            self.find_extent,
            self.fence,
            self.salvage,
            self.remove,
            self.replay,
            self.groups,
            self.reconnect,
            self.verify,
        ):
            if step.__name__ not in self.done:
                self._run(step.__name__, step)

    def _run(self, name: str, step: Callable[[], Facts]) -> None:
        self.progress(name.replace("_", " "))
        self.journal.write(name, "started")
        try:
            facts = step()
        except BaseException as error:
            self.journal.write(name, "failed", error=f"{type(error).__name__}: {error}")
            raise
        self.journal.write(name, "done", **facts)
        self.done[name] = facts
        self.observe(name, facts)

    def find_extent(self) -> Facts:
        """Look what is harmed, and prove that the archive can give it back; touches nothing."""
        if (found := cluster_id(self.config.kafka)) != self.identity:
            raise RecoveryRefused(f"typed {self.identity!r}, the cluster's id is {found}")
        backup = (
            self._newest(archive.KIND) if self.label is None else self.repository.get(self.label)
        )
        harmed = survey(self.config, backup, self.topics) if self.topics else []
        for line in (line for one in harmed for line in one.lines()):
            self.progress(f"  {line}")
        if sound := set(self.topics) - {one.topic for one in harmed}:
            raise RecoveryRefused(f"nothing is wrong with {', '.join(sorted(sound))}: not replaced")
        if bad := [f"{p.subject}: {p.problem}" for p in proof.walk(backup) if p.problem]:
            raise RestoreError(f"the archive {backup.label} is damaged: {'; '.join(bad[:5])}")
        offsets = self._offsets()
        return {
            "archive": backup.label,
            "offsets": offsets.label if offsets else None,
            "harmed": [_facts(one) for one in harmed],
            "groups": missing_groups(self.config, offsets) if offsets else [],
        }

    def fence(self) -> Facts:
        """Stop the connectors, and see that nobody else writes to what will be replaced."""
        stopped: Facts = {}
        if self._fed:
            with ConnectClient(self.config.connect.url) as connect:
                names = connectors(self.config, connect)
                offsets = stop_connectors(connect, names)
            stopped = {name: [str(one.offset) for one in kept] for name, kept in offsets.items()}
        there = [one["topic"] for one in self.done["find_extent"]["harmed"] if one["topic_id"]]
        ends = _standing_still(self.config, there)
        return {"connectors": list(stopped), "source_offsets": stopped, "ends": ends}

    def salvage(self) -> Facts:
        """Keep what the damaged topics hold, and where groups stand, before anything is removed."""
        backup = self.repository.get(self.done["find_extent"]["archive"])
        # again: between the first look and the fence a connector may have made a topic anew
        harmed = survey(self.config, backup, self.topics) if self.topics else []
        there = [one for one in harmed if one.present is not None]
        readable = [one.topic for one in there if not one.unreadable]
        kept = offsets = None
        if readable:
            kept = archive.take(
                self.config, self.repository, readable, self.progress, patience=timedelta(0)
            )
        if there:
            offsets = groups.take(self.config, self.repository)
        return {
            "harmed": [_facts(one) for one in harmed],
            "kept": kept.label if kept else None,
            "not_kept": [one.topic for one in there if one.unreadable],
            "offsets": offsets.label if offsets else None,
        }

    def remove(self) -> Facts:
        """Delete what will be made again: the operator named it, and it was kept."""
        admin, gone = target_topic.admin(self.config.kafka), []
        ids = {one["topic"]: one["topic_id"] for one in self._harmed}
        for name in self.topics:
            found = target_topic.existing(self.config.kafka, name)
            if found is None or str(found.topic_id) != ids[name]:
                continue
            try:
                admin.delete_topics([name], request_timeout=SECONDS)[name].result()
            except KafkaException as error:
                raise ServerError(f"cannot delete {name}: {error}") from error
            wait_until(f"{name} is gone", partial(self._there, name), within=WITHIN)
            gone.append(name)
        return {"removed": gone}

    def _there(self, name: str) -> str | None:
        return "it is there" if target_topic.existing(self.config.kafka, name) else None

    def replay(self) -> Facts:
        """Bring the archive back to its old offsets, and behind it what was kept."""
        bytes_, records, replays = 0, 0, []
        began = {line["wish"]: line["name"] for line in self.journal.lines() if "wish" in line}
        for wish in self._wishes():
            plan = make(self.config, self.repository, wish)
            journal = self._journal_of(wish, began)
            found = journal.done() if journal.path.exists() else {}
            if "replay" not in found:
                Replay(self.config, plan, journal, progress=self.progress).run()
            proven = journal.done()["prove"]["partitions"]
            bytes_ += sum(one.bytes for one in plan.partitions)
            records += sum(one["records"] for one in proven)
            replays.append(journal.recovery)
        made = [name for name in self.topics if self._by_cdc_alone(name)]
        for name in made:
            self._make_empty(name)
        return {"bytes": bytes_, "records": records, "replays": replays, "made_empty": made}

    def _journal_of(self, wish: Wish, began: dict[str, str]) -> Journal:
        """Go on with the replay that an interrupted run began, else begin one."""
        told = repr(wish)
        if told in began:
            return Journal(self.config.repository.path / FOLDER / began[told])
        journal = new_journal(self.config, wish.topic)
        self.journal.write("replay", "began", wish=told, name=journal.recovery)
        return journal

    def _wishes(self) -> Iterator[Wish]:
        backup = self.repository.get(self.done["find_extent"]["archive"])
        kept = self.done["salvage"]["kept"]
        for name in self.topics:
            if self._by_cdc_alone(name):
                continue
            yield Wish(name, backup.label)
            if kept is not None and self._same_life(name):
                yield from _tails(name, backup, self.repository.get(kept))

    def _make_empty(self, name: str) -> None:
        """Make a topic as it was configured: it is filled by the re-read."""
        facts = self.repository.get(self.done["find_extent"]["archive"]).manifest.facts
        then = facts["topics"][name]
        if target_topic.existing(self.config.kafka, name) is None:
            partitions, replication = len(then["partitions"]), then["replication"]
            target_topic.create(self.config.kafka, name, partitions, replication, then["overrides"])

    def groups(self) -> Facts:
        """Bring offsets back, from what was kept now where there was anything, else the backup."""
        archived = self.repository.get(self.done["find_extent"]["archive"])
        moved: Facts = {}
        for label, names in self._sources_of_offsets():
            backup = self.repository.get(label)
            for topic in names or (None,):
                done = restore(
                    self.config.kafka,
                    backup,
                    moves=self._moves(topic, archived),
                    topics=[topic] if topic else (),
                    groups=[] if topic else self._groups_lost(),
                    progress=self.progress,
                )
                for group, some in done.items():
                    moved.setdefault(group, []).extend(str(one) for one in some)
        return {"groups": moved}

    def _sources_of_offsets(self) -> Iterator[tuple[str, list[str]]]:
        """Labels of offset backups, with the topics for which each is the newest word."""
        backed_up, kept = self.done["find_extent"]["offsets"], self.done["salvage"]["offsets"]
        # a topic that was made anew has lost its readers' offsets, as one that is gone
        there = [name for name in self._present if self._same_life(name)]
        gone = [name for name in self.topics if name not in there]
        if kept is not None and there:
            yield kept, there
        if backed_up is not None and (gone or not self.topics):
            yield backed_up, gone

    def _groups_lost(self) -> list[str]:
        return [line.partition(":")[0] for line in self.done["find_extent"]["groups"]]

    def _moves(self, topic: str | None, archived: BackupSet) -> Moves:
        """Say where records of the topic went: nowhere else, unless a replay wrote a map."""
        if topic is not None and self._by_cdc_alone(topic):
            then = archived.manifest.facts["topics"][topic]["partitions"]
            return Exact({(topic, int(partition)): 0 for partition in then})
        for name in self.done["replay"]["replays"]:
            key = f"{FOLDER}/{name}/{OBJECT}"
            try:
                found = OffsetMap.load(self.repository.store, key)
            except ObjectMissing:
                continue
            if found.topic == topic:
                return found
        if topic is not None and self._whole(topic):
            return Exact({})
        return Exact.of(archived)

    def reconnect(self) -> Facts:
        """Let CDC go on; from the first row where events are missing."""
        if not self._fed:
            return {"reread": False}
        if all(self._whole(name) for name in self._fed):
            reread.go_on(self.config)
            return {"reread": False}
        found = reread.every_row(self.config, self.journal.recovery, self.progress)
        return {"reread": True, "reconciliation": found.facts()}

    def verify(self) -> Facts:
        """Ask topics, groups, pipeline and gate."""
        backup = self.repository.get(self.done["find_extent"]["archive"])
        wrong = [line for one in self._survey_again(backup) for line in one.lines()]
        if (offsets := self.done["find_extent"]["offsets"]) is not None:
            wrong += missing_groups(self.config, self.repository.get(offsets), self.topics)
        if self._fed:
            with psycopg.connect(**self.config.postgres.conninfo(), autocommit=True) as connection:
                wrong += problems(self.config, connection)
        wrong += self.gate()
        if wrong:
            raise RestoreError("not recovered: " + "; ".join(wrong))
        return {"problems": 0}

    @property
    def _fed(self) -> list[str]:
        return [name for name in self.topics if fed_by_cdc(self.config, name)]

    @property
    def _harmed(self) -> list[Facts]:
        found: list[Facts] = self.done["salvage"]["harmed"]
        return found

    @property
    def _present(self) -> list[str]:
        return [one["topic"] for one in self._harmed if one["topic_id"] is not None]

    def _survey_again(self, backup: BackupSet) -> list[Harmed]:
        """Look at what was replayed; a topic that was re-read alone has other offsets."""
        replayed = [name for name in self.topics if not self._by_cdc_alone(name)]
        return survey(self.config, backup, replayed, same_life=False) if replayed else []

    def _by_cdc_alone(self, name: str) -> bool:
        return self.way is Way.CDC and fed_by_cdc(self.config, name)

    def _same_life(self, name: str) -> bool:
        """Whether what stood there was the archived topic, and its offsets those of the archive."""
        facts = self.repository.get(self.done["find_extent"]["archive"]).manifest.facts
        ids = {one["topic"]: one["topic_id"] for one in self._harmed}
        return bool(ids.get(name) == facts["topics"][name]["topic_id"])

    def _whole(self, name: str) -> bool:
        """Whether archive and what was kept hold every offset up to the topic's old end."""
        kept = self.done["salvage"]["kept"]
        if kept is None or self._by_cdc_alone(name) or not self._same_life(name):
            return False
        then = self.repository.get(self.done["find_extent"]["archive"]).manifest.facts["topics"]
        now = self.repository.get(kept).manifest.facts["topics"].get(name)
        return now is not None and all(
            now["partitions"][p]["log_start"] <= facts["end"]
            for p, facts in then[name]["partitions"].items()
        )

    def _newest(self, kind: str) -> BackupSet:
        """The newest set that holds every topic that was named."""
        for label in reversed(self.repository.labels(kind)):
            found = self.repository.get(label)
            if set(self.topics) <= set(found.manifest.facts["topics"]):
                return found
        raise RestoreError(f"no archive holds {', '.join(self.topics)}: pipeline backup topics")

    def _offsets(self) -> BackupSet | None:
        try:
            return self.repository.latest(groups.KIND)
        except ObjectMissing:
            self.progress("  no backup of offsets: groups are not restored")
            return None


def _tails(name: str, backup: BackupSet, kept: BackupSet) -> Iterator[Wish]:
    """What was kept beyond the archive's end, partition by partition."""
    now = kept.manifest.facts["topics"][name]["partitions"]
    for partition, then in backup.manifest.facts["topics"][name]["partitions"].items():
        first = max(then["end"], now[partition]["log_start"])
        if now[partition]["end"] > first:
            yield Wish(
                name,
                kept.label,
                mode=Mode.EXACT,
                partitions=(int(partition),),
                offsets=Range(first, None),
                append=True,
            )


def _standing_still(config: PipelineConfig, topics: Sequence[str]) -> dict[str, int]:
    """Wait until no log grows for a while; ServerError tells which one does."""
    if not topics:
        return {}
    places = [place for topic in describe(config.kafka, topics) for place in topic.places]
    before: dict[str, int] = {}

    def growing() -> str | None:
        ends = {str(p): log.high_watermark for p, log in extents(config.kafka, places).items()}
        grown = [place for place, end in ends.items() if before.get(place) != end]
        before.update(ends)
        return f"still written to: {', '.join(grown)}" if grown else None

    wait_until("nobody writes to what will be replaced", growing, within=WITHIN, every=STILL)
    return before


def _facts(one: Harmed) -> Facts:
    return {
        "topic": one.topic,
        "cdc": one.cdc,
        "topic_id": str(one.present.topic_id) if one.present else None,
        "findings": list(one.findings),
        "unreadable": list(one.unreadable),
    }
