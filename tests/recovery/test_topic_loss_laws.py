"""The law of recoveries of topics: no acknowledged record is in neither the topic nor a set.

The runbook, its removal and its replays' bookkeeping are the real ones; the brokers and the archive
are a model in memory. Between any two calls to it producers write, make the topic anew, or the plug
is pulled; between two runs the operator goes on or begins another recovery instead.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError, RecoveryRefused, TargetSpoilt
from pipeline.kafka.cluster.topics import Extent, Topic
from pipeline.kafka.replay.replay_plan import Mode, Range
from pipeline.kafka.replay.replay_wish import Wish
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.topic_asked import Asked
from pipeline.runbooks.topic_extent import Harmed
from pipeline.runbooks.topic_loss import TopicRecovery, new_recovery
from pipeline.runbooks.topic_removal import NO_RECORDS
from tests.recovery.interrupted import Power

NAME = "clicks"
Entry = tuple[int, int]
"""A record's number, and its producer: 0 for those of others, else a replay's."""


@dataclass
class World:
    """One topic of one partition, the sets, and what was acknowledged to producers."""

    config: PipelineConfig
    actions: list[str]
    life: int = 1
    log: list[Entry] | None = field(default_factory=list)
    start: int = 0
    closed: bool = False
    sets: dict[str, list[Entry | None]] = field(default_factory=dict)
    acknowledged: list[int] = field(default_factory=list)

    @property
    def repository(self) -> Repository:
        return Repository(FolderStore(self.config.repository.path))

    def write(self) -> None:
        """A producer sends a record; where the topic is gone its broker makes it anew."""
        if self.closed:
            return
        if self.log is None:
            self.life, self.log, self.start = self.life + 1, [], 0
        number = len(self.acknowledged)
        self.log.append((number, 0))
        self.acknowledged.append(number)

    def tick(self) -> None:
        """Something happens, or nothing, right before a call."""
        action = self.actions.pop() if self.actions else ""
        if action == "write":
            self.write()
        if action == "kill":
            raise Power

    def missing(self) -> set[int]:
        """Acknowledged records that are in neither the topic nor a set."""
        there = {number for number, _ in (self.log or [])[self.start :]}
        kept = {one[0] for log in self.sets.values() for one in log if one is not None}
        return set(self.acknowledged) - there - kept

    def existing(self, _kafka: object, _name: str) -> Topic | None:
        self.tick()
        if self.log is None:
            return None
        return Topic(NAME, uuid.UUID(int=self.life), 1, (0,), {}, {})

    def extents(self, _kafka: object, places: list[Any]) -> dict[Any, Extent]:
        self.tick()
        end = len(self.log or [])
        return {place: Extent(self.start, end, end) for place in places}

    def configure(self, _kafka: object, _name: str, overrides: dict[str, str]) -> None:
        self.tick()
        self.closed = NO_RECORDS.items() <= overrides.items()

    def delete(self, _config: object, _topic: Topic) -> None:
        self.tick()
        self.log, self.closed = None, False
        self.tick()

    def take(
        self, _config: object, repository: Repository, *_: object, **keywords: object
    ) -> BackupSet:
        self.tick()
        log, end = self.log or [], len(self.log or [])
        partition = {"log_start": self.start, "end": end, "high_watermark": end}
        partition["records"] = end - self.start
        topic = {"topic_id": str(uuid.UUID(int=self.life)), "partitions": {"0": partition}}
        facts = {"cluster_id": "me", "topics": {NAME: topic | {"overrides": {}, "replication": 1}}}
        draft = repository.begin("topics")
        taken = draft.commit(facts | {"evidence": keywords.get("evidence")}, [])
        held: list[Entry | None] = [*log]
        held[: self.start] = [None] * self.start
        self.sets[taken.label] = held
        self.tick()
        return taken

    def survey(self, *_: object, **__: object) -> list[Harmed]:
        found = self.existing(None, NAME)
        return [Harmed(NAME, False, found, ("it is harmed",))]

    def strangers(self, _name: str, kept: BackupSet, ours: set[int]) -> list[Wish]:
        told = []
        for offset, one in enumerate(self.sets[kept.label]):
            if one is not None and one[1] not in ours:
                stretch = Range(offset, offset + 1)
                told.append(Wish(NAME, kept.label, mode=Mode.DENSE, offsets=stretch, append=True))
        return told

    def replay(self, _config: object, plan: Any, journal: Journal, **_: object) -> Any:  # noqa: ANN401 - stands for a class
        return SimpleNamespace(run=lambda: self._replay(plan.wish, journal))

    def _replay(self, wish: Wish, journal: Journal) -> None:
        """Write a set's records in order, as long as nobody else does."""
        self.tick()
        if "target" not in (done := journal.done() if journal.path.exists() else {}):
            self._target(wish, journal)
            done = journal.done()
        told = done["target"]
        if self.log is None or str(uuid.UUID(int=self.life)) != told["topic_id"]:
            raise TargetSpoilt("another topic")
        first, end = wish.offsets
        source = self.sets[wish.archive][first or 0 : end]
        mine = [(one[0], told["records"][0]) if one else None for one in source]
        for number, one in enumerate(mine):
            self.tick()
            if (at := told["at"] + number) == len(self.log):
                self.log.append(one or (-1, told["records"][0]))
            elif self.log[at] != (one or (-1, told["records"][0])):
                raise TargetSpoilt(f"somebody wrote at {at}")
        self.tick()
        if len(self.log) != told["at"] + len(mine):
            raise TargetSpoilt("somebody wrote behind it")
        journal.write("prove", "done", partitions=[{"records": len(mine)}])
        journal.write("replay", "done")

    def _target(self, wish: Wish, journal: Journal) -> None:
        if self.log is None:
            self.life, self.log, self.start = self.life + 1, [], 0
        elif self.log and not wish.append:
            raise RecoveryRefused("it holds records: nothing was written")
        producer = len(list(journal.folder.parent.iterdir())) + 1000
        target = {"topic": NAME, "topic_id": str(uuid.UUID(int=self.life)), "at": len(self.log)}
        journal.write("plan", "done")
        journal.write("target", "done", **target, records=[producer, 0], markers=[producer, 0])


@contextmanager
def standing_for_brokers(world: World) -> Iterator[None]:
    loss, removal = "pipeline.runbooks.topic_loss", "pipeline.runbooks.topic_removal"
    replays = "pipeline.runbooks.topic_replays"
    places: dict[str, Callable[..., Any]] = {
        f"{loss}.cluster_id": lambda _: "me",
        f"{loss}.survey": world.survey,
        f"{loss}.missing_groups": lambda *_: [],
        f"{loss}.standing_still": lambda *_: {},
        f"{loss}.proof.walk": lambda _: (),
        f"{loss}.groups.take": lambda *_, **__: SimpleNamespace(label="offsets"),
        f"{loss}.topic_offsets.sources": lambda *_: (),
        f"{loss}.still_harmed": lambda *_: [],
        f"{loss}.problems_of_services": lambda *_: [],
        f"{removal}.archive.take": world.take,
        f"{removal}.extents": world.extents,
        f"{removal}._delete": world.delete,
        "pipeline.kafka.replay.target_topic.existing": world.existing,
        "pipeline.kafka.replay.target_topic.configure": world.configure,
        "pipeline.kafka.replay.preflight.of_new": lambda *_: (),
        "pipeline.kafka.replay.preflight.of_settings": lambda *_: (),
        f"{replays}.make": lambda _config, _sets, wish: SimpleNamespace(wish=wish, partitions=[]),
        f"{replays}.Replay": world.replay,
        f"{replays}.strangers": world.strangers,
        "os.fsync": lambda _: None,  # the plug is pulled by an exception: nothing is lost by that
    }
    with ExitStack() as patched:
        for place, stand_in in places.items():
            patched.enter_context(patch(place, stand_in))
        yield


def recover(world: World, journal: Journal, instead_of: str | None = None) -> bool:
    """Run it; tell whether it came to its end."""
    asked = Asked([NAME], instead_of=instead_of)
    try:
        TopicRecovery(world.config, asked, journal, "me").run()
    except (Power, PipelineError):
        return False
    return True


@dataclass(frozen=True)
class Story:
    """What was archived, what came behind it, which fault, and what others do meanwhile."""

    archived: int
    since: int
    gone: int
    deleted: bool
    actions: list[str]
    instead: list[bool]


STORIES = st.builds(
    Story,
    archived=st.integers(1, 4),
    since=st.integers(0, 3),
    gone=st.integers(0, 4),
    deleted=st.booleans(),
    actions=st.lists(st.sampled_from(["", "", "", "write", "kill"]), max_size=60),
    instead=st.lists(st.booleans(), max_size=5),
)


def begun(folder: Path, story: Story) -> World:
    """A topic that was archived, written to and harmed."""
    world = World(PipelineConfig.model_validate({"repository": {"path": folder}}), [])
    for _ in range(story.archived):
        world.write()
    world.take(None, world.repository)
    for _ in range(story.since):
        world.write()
    if story.deleted:  # what came behind the archive is lost by the fault, and by nothing else
        del world.acknowledged[story.archived :]
        world.log = None
    else:
        world.start = min(story.gone, story.archived)
    world.actions = list(story.actions)
    return world


@settings(max_examples=100)
@given(story=STORIES)
def test_no_acknowledged_record_is_in_neither_the_topic_nor_a_set(
    tmp_path_factory: pytest.TempPathFactory, story: Story
) -> None:
    world, gave_up = begun(tmp_path_factory.mktemp("world"), story), False
    journal = new_recovery(world.config)
    with standing_for_brokers(world):
        for begin_anew in story.instead:
            before = None
            if begin_anew and TopicRecovery.first in done(journal):
                gave_up, before, journal = True, journal.recovery, new_recovery(world.config)
            recover(world, journal, before)
            assert world.missing() == set()
        world.actions.clear()
        assert recover(world, journal)
    assert world.missing() == set()
    if not gave_up:  # what a recovery that was given up kept is in its set, and it said so
        assert set(world.acknowledged) <= {number for number, _ in world.log or []}


def done(journal: Journal) -> dict[str, Any]:
    return journal.done() if journal.path.exists() else {}
