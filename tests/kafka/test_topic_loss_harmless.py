"""A recovery of topics makes nothing worse: whatever others do meanwhile, no record is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from fixtures.faults.topics import delete_topics
from fixtures.stacks.protocol import Stack
from fixtures.workload.topics import OWN_TOPICS
from pipeline.errors import LossNotAccepted, NoBackup, RecoveryRefused, ServerError
from pipeline.kafka.archive import archive
from pipeline.kafka.replay.replay import Replay
from pipeline.kafka.replay.target_topic import configure, existing
from pipeline.repository.kinds import newest
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.topic_asked import Asked
from pipeline.runbooks.topic_evidence import Facts
from pipeline.runbooks.topic_loss import TopicRecovery, new_recovery
from tests.kafka import topics
from tests.kafka.replayed import consumed
from tests.kafka.shop import Shop
from tests.recovery.interrupted import Power

pytestmark = pytest.mark.stack
NAME = "plain"


@pytest.fixture
def own(broker: Stack, tmp_path: Path, seed: int) -> Iterator[Shop]:
    """The shop's configuration, on which a test writes to a topic of its own."""
    made = Shop(broker, tmp_path, seed)
    alone = broker.config.repository.model_copy(update={"path": tmp_path / "repository"})
    made.config = broker.config.model_copy(update={"repository": alone})
    made.repository = Repository(FolderStore(alone.path))
    client = topics.admin(broker.config.kafka)
    client.create_topics([NewTopic(NAME, 1, 1)])[NAME].result()
    write(made, *range(100))
    yield made
    there = set(client.list_topics(timeout=10).topics) & {*OWN_TOPICS, NAME}
    delete_topics(*there)(broker)


def write(shop: Shop, *values: int) -> None:
    writer = topics.producer(shop.config.kafka)
    for value in values:
        writer.produce(NAME, str(value).encode(), partition=0)
    assert writer.flush(30) == 0


def read(shop: Shop) -> list[int]:
    return [int(seen.value or b"-1") for seen in consumed(shop.config.kafka, NAME)]


def cut(recovery: TopicRecovery, after: str) -> None:
    """Run it until the plug is pulled behind that step."""

    def die(step: str, _facts: Facts) -> None:
        if step == after:
            raise Power

    recovery.observe = die
    with pytest.raises(Power):
        recovery.run()


def harmed(shop: Shop) -> None:
    archive.take(shop.config, shop.repository, [NAME])
    topics.delete_before(shop.config.kafka, NAME, 10)


def test_what_a_killed_recovery_kept_is_not_the_newest_archive(own: Shop) -> None:
    harmed(own)
    first = own.recovery(NAME)
    cut(first, "remove")
    with pytest.raises(RecoveryRefused, match=rf"{first.journal.recovery} removed .*--resume"):
        own.recovery(NAME).run()
    instead = TopicRecovery(
        own.config,
        Asked([NAME], instead_of=first.journal.recovery),
        new_recovery(own.config),
        own.broker.nonce,
        progress=(said := list[str]()).append,
    )
    instead.run()
    assert read(own) == [*range(100)]
    assert any("NOT bring it back: pipeline restore topic --from" in line for line in said)


@pytest.mark.parametrize("after", ["fence", "salvage"])
def test_records_that_came_between_two_runs_are_kept_as_well(own: Shop, after: str) -> None:
    harmed(own)
    first = own.recovery(NAME)
    cut(first, after)
    write(own, *range(100, 120))
    own.recovery(journal=first.journal).run()
    assert read(own) == [*range(120)]


def test_a_topic_that_others_write_to_is_not_removed(
    own: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look before the deletion is the one that counts, and leaves all as it was."""
    harmed(own)
    recovery = own.recovery(NAME)
    cut(recovery, "salvage")
    again = own.recovery(journal=recovery.journal)
    monkeypatch.setattr(TopicRecovery, "_kept_all", lambda _self, _facts: None)
    write(own, 100)
    before = existing(own.config.kafka, NAME)
    with pytest.raises(ServerError, match=r"plain\[0\] ends at 101, kept up to 100: somebody"):
        again.run()
    assert existing(own.config.kafka, NAME) == before
    monkeypatch.undo()
    own.recovery(journal=recovery.journal).run()
    assert read(own) == [*range(101)]


@pytest.mark.parametrize("before", ["_write", "_prove"])
def test_a_record_written_among_a_replay_is_kept_and_goes_behind_it(
    own: Shop, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """The replay cannot go on in a topic that somebody wrote to; the recovery makes it anew."""
    harmed(own)
    step, stray = getattr(Replay, before), [4711]

    def written_to(*arguments: object) -> object:
        while stray:
            write(own, stray.pop())
        return step(*arguments)

    monkeypatch.setattr(Replay, before, written_to)
    own.recovery(NAME).run()
    assert stray == []
    assert read(own) == [*range(100), 4711]


def test_a_topic_that_producers_made_anew_keeps_what_they_wrote(own: Shop) -> None:
    """The archive comes first, then what was acknowledged to the topic's second life."""
    harmed(own)
    delete_topics(NAME)(own.broker)
    client = topics.admin(own.config.kafka)
    client.create_topics([NewTopic(NAME, 1, 1)])[NAME].result()
    write(own, *range(200, 230))
    own.recovery(NAME).run()
    assert read(own) == [*range(100), *range(200, 230)]


def test_what_lies_behind_an_open_transaction_is_not_removed_unless_told(own: Shop) -> None:
    harmed(own)
    writer = topics.producer(own.config.kafka, **{"transactional.id": "open"})
    writer.init_transactions(30)
    writer.begin_transaction()
    topics.fill(writer, NAME, 3)
    before = existing(own.config.kafka, NAME)
    with pytest.raises(LossNotAccepted, match=r"behind an open transaction.*--lose plain"):
        own.recovery(NAME).run()
    assert existing(own.config.kafka, NAME) == before
    writer.abort_transaction(30)


def test_another_clusters_archive_is_not_the_newest(own: Shop) -> None:
    harmed(own)
    backup = newest(own.repository, "topics")
    backup.manifest.facts["cluster_id"] = "another"
    path = own.config.repository.path / backup.prefix / "manifest.json"
    path.write_bytes(backup.manifest.sealed())
    with pytest.raises(NoBackup, match=r"plain"):
        own.recovery(NAME).run()


def test_what_brokers_would_refuse_is_found_before_anything_is_removed(own: Shop) -> None:
    harmed(own)
    backup = newest(own.repository, "topics")
    backup.manifest.facts["topics"][NAME] |= {
        "replication": 2,
        "overrides": {"segment.bytes": "1"},
    }
    path = own.config.repository.path / backup.prefix / "manifest.json"
    path.write_bytes(backup.manifest.sealed())
    with pytest.raises(RecoveryRefused) as refused:
        own.recovery(NAME).run()
    first, replicas, settings = str(refused.value).splitlines()
    assert first == "nothing was touched:"
    assert replicas.startswith(f"  replicas: {NAME}: 2 replicas, as archived, and 1 brokers: say")
    assert settings.startswith(f"  settings: {NAME}: segment.bytes=1: ")
    assert existing(own.config.kafka, NAME) is not None
    asked = Asked([NAME], replication=1, without_settings=["segment.bytes"])
    TopicRecovery(own.config, asked, new_recovery(own.config), own.broker.nonce).run()
    assert read(own) == [*range(100)]


def test_records_older_than_their_retention_are_recovered_and_said_to_be_held(own: Shop) -> None:
    configure(own.config.kafka, NAME, {"retention.ms": "86400000"})
    writer = topics.producer(own.config.kafka)
    writer.produce(NAME, b"100", partition=0, timestamp=1_600_000_000_000)
    assert writer.flush(30) == 0
    harmed(own)
    recovery = own.recovery(NAME)
    recovery.progress = (said := list[str]()).append
    recovery.run()
    assert read(own) == [*range(101)]
    assert any("its retention stays held" in line for line in said)
