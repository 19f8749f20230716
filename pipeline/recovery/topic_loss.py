"""Scenario 3 as code: topics or the offsets of groups are lost; bring back what was acknowledged.

Find the extent and prove the archive before anything is touched; stop who writes; keep what the
damaged topics still hold in the repository; replay the archive to its old offsets, and behind it
what was kept; bring the groups back; let CDC go on, from the first row where events are missing.

What is promised of a topic that CDC feeds: up to the archive's end, or where it was kept to its
old end, every event at its offset, once. Beyond that a re-read brings each row's last state and
buries what is gone; the states in between are not told again. Of other topics: everything up to
the archive's end, and what was kept; what lay between is lost and named.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial

import psycopg
from confluent_kafka import KafkaException

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors
from pipeline.cdc.resnapshot import stop_connectors
from pipeline.config import PipelineConfig
from pipeline.errors import (
    ConfigError,
    LossNotAccepted,
    ObjectMissing,
    RecoveryRefused,
    RestoreError,
    ServerError,
)
from pipeline.kafka import archive, groups, proof, target_topic
from pipeline.kafka.group_restore import restore
from pipeline.kafka.topics import SECONDS, admin, cluster_id
from pipeline.recovery import reread, topic_offsets
from pipeline.recovery.journal import Journal
from pipeline.recovery.reconnect import problems
from pipeline.recovery.topic_evidence import Evidence, Facts, told
from pipeline.recovery.topic_extent import (
    Harmed,
    fed_by_cdc,
    missing_groups,
    standing_still,
    survey,
)
from pipeline.recovery.topic_replays import Replays
from pipeline.repository import BackupSet, Repository
from pipeline.store import FolderStore
from pipeline.wait import wait_until

WITHIN = timedelta(seconds=60)


class Way(StrEnum):
    """Where the events of topics that CDC feeds come from; other topics have only the archive."""

    JOINED = "joined"
    CDC = "cdc"


def new_recovery(config: PipelineConfig, what: str = "topics") -> Journal:
    """Open the log of a new recovery in the repository."""
    name = f"{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    return Journal(config.repository.path / "recoveries" / name)


def begun(journal: Journal) -> tuple[list[str], Way]:
    """Return the topics and the way of an interrupted recovery, as its journal has them."""
    done = journal.done()
    if "find_extent" not in done:
        raise ConfigError(f"{journal.recovery} was refused before it began: start a new recovery")
    return done["find_extent"]["topics"], Way(done["find_extent"]["way"])


@dataclass
class TopicRecovery:
    """One recovery of topics and groups. `observe` hears of each step when it is done.

    `topics` are those that may be replaced, each by name; none means that only offsets of groups
    are missing. `identity` is what the operator typed: the id of the cluster. `lose` names those
    whose records behind the archive may be given up, because a batch of them cannot be read.
    """

    config: PipelineConfig
    topics: Sequence[str]
    journal: Journal
    identity: str
    way: Way = Way.JOINED
    label: str | None = None
    lose: Collection[str] = ()
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
        if (found := cluster_id(self.config.kafka)) != self.identity:
            raise RecoveryRefused(f"typed {self.identity!r}, the cluster's id is {found}")
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
        self.done[name] = self.journal.run(name, step)
        self.observe(name, self.done[name])

    def find_extent(self) -> Facts:
        """Look what is harmed, and prove that the archive can give it back; touches nothing."""
        backup = (
            self._newest(archive.KIND) if self.label is None else self.repository.get(self.label)
        )
        harmed = survey(self.config, backup, self.topics) if self.topics else []
        for line in (line for one in harmed for line in one.lines()):
            self.progress(f"  {line}")
        if sound := set(self.topics) - {one.topic for one in harmed}:
            raise RecoveryRefused(f"nothing is wrong with {', '.join(sorted(sound))}: not replaced")
        self._refuse_loss(harmed)
        if bad := [f"{p.subject}: {p.problem}" for p in proof.walk(backup) if p.problem]:
            raise RestoreError(f"the archive {backup.label} is damaged: {'; '.join(bad[:5])}")
        offsets = self._offsets()
        return {
            "topics": list(self.topics),
            "way": self.way,
            "lose": list(self.lose),
            "archive": backup.label,
            "offsets": offsets.label if offsets else None,
            "harmed": [told(one) for one in harmed],
            "groups": missing_groups(self.config, offsets) if offsets else [],
        }

    def _refuse_loss(self, harmed: Sequence[Harmed]) -> None:
        """What cannot be read cannot be kept: removing it must be accepted by name."""
        given_up = [one for one in harmed if one.unreadable and not one.cdc]
        accepted = {*self.lose, *self.done.get("find_extent", {}).get("lose", ())}
        if unsaid := [one.topic for one in given_up if one.topic not in accepted]:
            names = " ".join(f"--lose {topic}" for topic in unsaid)
            raise LossNotAccepted(
                f"{', '.join(unsaid)}: a batch cannot be read, so what was written since the "
                f"archive cannot be kept. To give it up, say so by name: {names}"
            )

    def fence(self) -> Facts:
        """Stop the connectors, and see that nobody else writes to what will be replaced."""
        stopped: Facts = {}
        if self._fed:
            with ConnectClient(self.config.connect.url) as connect:
                names = own_connectors(self.config, connect)
                offsets = stop_connectors(connect, names)
            stopped = {name: [str(one.offset) for one in kept] for name, kept in offsets.items()}
        there = [one["topic"] for one in self.done["find_extent"]["harmed"] if one["topic_id"]]
        ends = standing_still(self.config, there)
        return {"connectors": list(stopped), "source_offsets": stopped, "ends": ends}

    def salvage(self) -> Facts:
        """Keep what the damaged topics hold, and where groups stand, before anything is removed."""
        backup = self.repository.get(self.done["find_extent"]["archive"])
        # again: between the first look and the fence a connector may have made a topic anew
        harmed = survey(self.config, backup, self.topics) if self.topics else []
        self._refuse_loss(harmed)
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
            "harmed": [told(one) for one in harmed],
            "kept": kept.label if kept else None,
            "not_kept": [one.topic for one in there if one.unreadable],
            "offsets": offsets.label if offsets else None,
        }

    def remove(self) -> Facts:
        """Delete what will be made again: the operator named it, and it was kept."""
        client, gone = admin(self.config.kafka), []
        ids = {one["topic"]: one["topic_id"] for one in self.done["salvage"]["harmed"]}
        for name in self.topics:
            found = target_topic.existing(self.config.kafka, name)
            if found is None or str(found.topic_id) != ids[name]:
                continue
            try:
                client.delete_topics([name], request_timeout=SECONDS)[name].result()
            except KafkaException as error:
                raise ServerError(f"cannot delete {name}: {error}") from error
            wait_until(f"{name} is gone", partial(self._there, name), within=WITHIN)
            gone.append(name)
        return {"removed": gone}

    def _there(self, name: str) -> str | None:
        return "it is there" if target_topic.existing(self.config.kafka, name) else None

    def replay(self) -> Facts:
        """Bring the archive back to its old offsets, and behind it what was kept."""
        replays = Replays(self.config, self.repository, self.journal, self.progress)
        return replays.run(self._evidence)

    def groups(self) -> Facts:
        """Bring offsets back, from what was kept now where there was anything, else the backup."""
        evidence, moved = self._evidence, dict[str, list[str]]()
        backed_up, kept = self.done["find_extent"]["offsets"], self.done["salvage"]["offsets"]
        lost = [line.partition(":")[0] for line in self.done["find_extent"]["groups"]]
        for label, names in topic_offsets.sources(evidence, backed_up, kept):
            for topic in names or (None,):
                replays = self.done["replay"]["replays"]
                done = restore(
                    self.config.kafka,
                    self.repository.get(label),
                    moves=topic_offsets.moves(self.repository, evidence, replays, topic),
                    topics=[topic] if topic else (),
                    groups=[] if topic else lost,
                    progress=self.progress,
                )
                for group, some in done.items():
                    moved.setdefault(group, []).extend(str(one) for one in some)
        return {"groups": moved}

    def reconnect(self) -> Facts:
        """Let CDC go on; from the first row where events are missing."""
        if not self._fed:
            return {"reread": False}
        evidence = self._evidence
        if all(evidence.whole(name) for name in self._fed):
            reread.go_on(self.config)
            return {"reread": False}
        found = reread.every_row(self.config, self.journal.recovery, self.progress)
        return {"reread": True, "reconciliation": found.facts()}

    def verify(self) -> Facts:
        """Ask topics, groups, pipeline and gate."""
        evidence, wrong = self._evidence, list[str]()
        if evidence.replayed:  # what was read again has other offsets
            harmed = survey(self.config, evidence.archive, evidence.replayed, same_life=False)
            wrong += [line for one in harmed for line in one.lines()]
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
    def _evidence(self) -> Evidence:
        found, kept = self.done["find_extent"], self.done["salvage"]["kept"]
        return Evidence(
            self.topics,
            self.repository.get(found["archive"]),
            self.repository.get(kept) if kept else None,
            self.done["salvage"]["harmed"],
            frozenset(self._fed if self.way is Way.CDC else ()),
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
