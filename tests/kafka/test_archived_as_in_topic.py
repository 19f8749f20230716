"""What retention and compaction took since is no difference, and every range has its turn."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.check import Outcome
from checks.kafka_ranges import chosen
from checks.kafka_subjects import LiveTopics
from checks.rules.kafka_as_in_topic import archived_as_in_topic
from fixtures.stacks.protocol import Stack
from pipeline.config import RepositoryConfig
from pipeline.kafka.archive import archive
from pipeline.kafka.archive.segments import Index, Segment
from pipeline.kafka.replay import replay_wish, target_topic
from pipeline.kafka.replay.replay import Replay
from pipeline.kafka.replay.replay_journal import new_journal
from pipeline.repository.sets import Repository
from pipeline.wait import wait_until
from tests.kafka import topics


@pytest.mark.stack
def test_what_the_brokers_took_away_since_is_no_difference(
    broker: Stack, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, whole batches and tombstones by the cleaner; a log that begins inside a batch."""
    monkeypatch.setattr("pipeline.kafka.archive.partition.SEGMENT", 10_000)
    monkeypatch.setattr("pipeline.kafka.archive.archive.FETCH", 5_000)
    kafka = broker.config.kafka
    compacted, plain = topics.create(kafka, "cleaned"), topics.create(kafka, "shortened")
    writer = topics.producer(kafka, **{"batch.size": 2_000, "enable.idempotence": True})
    topics.fill(writer, compacted, 1_000, keys=900)
    topics.fill(writer, compacted, 500, keys=40)
    topics.fill(writer, plain, 1_000)
    archive.take(broker.config, repository, [compacted, plain])

    target_topic.configure(kafka, compacted, topics.COMPACTED)
    topics.delete_before(kafka, plain, 777)

    def uncleaned() -> str | None:
        topics.fill(writer, compacted, 1, keys=1)  # rolls the segment: the active one stays
        left = len(topics.committed(kafka, compacted, 0, 1_500))
        return f"{left} of 1500 records are left" if left > 900 else None

    wait_until("the cleaner", uncleaned, within=topics.WITHIN)
    config = broker.config.model_copy(update={"repository": RepositoryConfig(path=tmp_path)})
    seen = archived_as_in_topic.run(lambda: LiveTopics.of(config))
    assert (seen.outcome, seen.problems) == (Outcome.PASS, ())
    gone = [each.subject for each in seen.observations if "no longer" in each.subject]
    assert gone, "what cannot be compared any more is said"


@pytest.mark.stack
def test_topics_that_came_back_are_not_unknown(
    broker: Stack, repository: Repository, tmp_path: Path
) -> None:
    """After the loss of every topic all are new: what a replay proved keeps no gate closed."""
    config = broker.config.model_copy(update={"repository": RepositoryConfig(path=tmp_path)})
    name = topics.create(config.kafka, "back")
    topics.fill(topics.producer(config.kafka), name, 10)
    taken = archive.take(config, repository, [name])
    topics.recreate(config.kafka, name)
    assert archived_as_in_topic.run(lambda: LiveTopics.of(config)).outcome is Outcome.UNKNOWN
    plan = replay_wish.make(config, repository, replay_wish.Wish(name, taken.label))
    Replay(config, plan, new_journal(config, name)).run()
    seen = archived_as_in_topic.run(lambda: LiveTopics.of(config))
    assert (seen.outcome, seen.problems) == (Outcome.PASS, ())


@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=30), at_most=st.integers(1, 500))
def test_every_range_has_its_turn_and_no_day_is_empty(sizes: list[int], at_most: int) -> None:
    index = _index(sizes)
    shares = max(1, min(-(-sum(sizes) // at_most), len(sizes)))
    days = [chosen([index], 738_000 + day, at_most) for day in range(shares)]
    assert all(days)
    read = sorted(each.segment.first for day in days for each in day)
    assert read == [segment.first for segment in index.segments]


def _index(sizes: list[int]) -> Index:
    template = {
        "end": 0, "size": 1, "sha256": "", "inventory": "", "link": "", "compacted": False,
        "decided": "2026-01-01T00:00:00Z", "batches": 1, "records": 1, "largest": 1, "newest": 1,
        "leader_epochs": (), "gaps": {},
    }  # fmt: skip
    held = [
        Segment.model_validate(template | {"key": f"{n:020d}.batches", "first": n, "bytes": size})
        for n, size in enumerate(sizes)
    ]
    return Index(
        topic="t", topic_id="1", partition=0, compacted=False, start=0, log_start=0, added=0,
        end=len(sizes), high_watermark=len(sizes), segments=tuple(held),
    )  # fmt: skip
