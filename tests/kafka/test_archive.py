"""An archive of topics on a real broker holds what consumers see, and proves it at rest."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.stacks.protocol import Stack
from pipeline.cli import app
from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import known_extents
from pipeline.kafka.log.batches import walk
from pipeline.kafka.log.gaps import Gap, Reason
from pipeline.kafka.log.place import Place
from pipeline.repository import marker
from pipeline.repository.kinds import newest
from pipeline.repository.sets import BackupSet, Repository
from pipeline.wait import wait_until
from tests.kafka import topics
from tests.kafka.archives import held, index_of, problems

pytestmark = pytest.mark.stack


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.kafka.archive.partition.SEGMENT", 50_000)
    monkeypatch.setattr("pipeline.kafka.archive.archive.FETCH", 20_000)


def gaps(backup: BackupSet, topic: str, partition: int = 0) -> list[Gap]:
    return list(held(backup, topic, partition).gaps())


def offsets(backup: BackupSet, topic: str, partition: int = 0) -> Iterator[int]:
    """Offsets of the batches' records; right where no batch has gaps inside."""
    for piece in held(backup, topic, partition).pieces():
        for block in piece.blocks:
            for batch, _ in walk(block, topic):
                yield from range(batch.base_offset, batch.next_offset)


def visible(backup: BackupSet, topic: str) -> list[int]:
    hidden = {offset for gap in gaps(backup, topic) for offset in range(gap.first, gap.end)}
    return [offset for offset in offsets(backup, topic) if offset not in hidden]


def plain(kafka: KafkaConfig, codec: str, partitions: int = 1) -> str:
    topic = topics.create(kafka, codec, partitions, {"retention.ms": "-1"})
    settings: dict[str, str | int] = {"compression.type": codec, "batch.size": 4000}
    writer = topics.producer(kafka, **settings)
    for partition in range(partitions):
        topics.fill(writer, topic, 5_000, partition=partition)
    return topic


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_a_plain_topic_is_archived_and_proven(
    broker: Stack, repository: Repository, codec: str
) -> None:
    topic = plain(broker.config.kafka, codec, 3)
    backup = archive.take(broker.config, repository, [topic])
    assert problems(backup) == []
    facts = backup.manifest.facts["topics"][topic]
    assert facts["overrides"] == {"retention.ms": "-1"}
    assert facts["replication"] == 1
    for partition in range(3):
        index = index_of(backup, topic, partition)
        assert (index.records, index.gaps) == (5_000, {})
        assert list(offsets(backup, topic, partition)) == list(range(5_000))
        assert len(index.segments) > 1 or codec != "none"
        assert all(segment.key.endswith(".zst") == (codec == "none") for segment in index.segments)


def test_committed_and_aborted_transactions_are_told_apart(
    broker: Stack, repository: Repository
) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "transactional")
    topics.transactions(kafka, topic, "caacac")
    backup = archive.take(broker.config, repository, [topic])
    index = index_of(backup, topic)
    assert problems(backup) == []
    assert index.gaps == {Reason.MARKER: 6, Reason.ABORTED: 9}
    assert visible(backup, topic) == topics.committed(kafka, topic, 0, index.end)


def test_a_compacted_topic_keeps_its_offsets(broker: Stack, repository: Repository) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "compacted", config=topics.COMPACTED)
    writer = topics.producer(kafka)
    topics.fill(writer, topic, 3_000, keys=7)

    def uncleaned() -> str | None:
        topics.fill(writer, topic, 1, keys=1)  # rolls the segment: the active one is not cleaned
        seen = len(topics.committed(kafka, topic, 0, 3_000))
        return f"{seen} of 3000 records are left" if seen > 7 else None

    wait_until("the cleaner", uncleaned, within=topics.WITHIN)
    backup = archive.take(broker.config, repository, [topic])
    index = index_of(backup, topic)
    assert problems(backup) == []
    assert set(index.gaps) == {Reason.COMPACTED}
    assert index.records == len(topics.committed(kafka, topic, 0, index.end))
    assert index.records + index.gaps[Reason.COMPACTED] == index.end


def test_the_log_may_begin_inside_a_batch(broker: Stack, repository: Repository) -> None:
    topic = plain(broker.config.kafka, "lz4")
    topics.delete_before(broker.config.kafka, topic, 1_234)
    backup = archive.take(broker.config, repository, [topic])
    index = index_of(backup, topic)
    assert problems(backup) == []
    assert index.start == 1_234
    assert index.gaps == {Reason.DELETED: 1_234}
    assert visible(backup, topic) == list(range(1_234, 5_000))


def test_what_retention_deletes_under_the_reader_is_told(
    broker: Stack, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka, true_extents = broker.config.kafka, known_extents
    topic = plain(kafka, "lz4")
    asked: list[object] = []

    def extents_then_retention(kafka: KafkaConfig, places: Sequence[Place]) -> object:
        found = true_extents(kafka, places)
        if not asked:
            topics.delete_before(kafka, topic, 2_000)
        asked.append(places)
        return found

    monkeypatch.setattr(archive, "known_extents", extents_then_retention)
    backup = archive.take(broker.config, repository, [topic])
    index = index_of(backup, topic)
    assert problems(backup) == []
    assert (index.start, index.gaps) == (0, {Reason.DELETED: 2_000})


def test_what_an_open_transaction_holds_back_is_named(
    broker: Stack, repository: Repository
) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "open")
    topics.fill(topics.producer(kafka), topic, 10)
    writer = topics.producer(kafka, **{"transactional.id": topic})
    writer.init_transactions(30)
    writer.begin_transaction()
    topics.fill(writer, topic, 5)
    said: list[str] = []
    backup = archive.take(broker.config, repository, [topic], said.append)
    writer.abort_transaction(30)
    assert (index_of(backup, topic).end, problems(backup)) == (10, [])
    assert "5 offsets behind an open transaction left out" in said[-1]


def test_an_empty_topic_and_a_missing_one(broker: Stack, repository: Repository) -> None:
    topic = topics.create(broker.config.kafka, "empty", 2)
    backup = archive.take(broker.config, repository, [topic])
    assert problems(backup) == []
    assert index_of(backup, topic, 1).segments == ()
    with pytest.raises(ServerError, match="no-such-topic"):
        archive.take(broker.config, repository, ["no-such-topic"])
    assert repository.labels() == [backup.label]


def test_the_command_archives_the_topics_it_is_given(
    broker: Stack, repository: Repository, tmp_path: Path
) -> None:
    topic = plain(broker.config.kafka, "lz4", 2)
    config = tmp_path / "pipeline.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{broker.config.kafka.bootstrap_servers}"\n'
        f'[repository]\npath = "{tmp_path}"\n'
    )
    marker.make(str(tmp_path))
    done = CliRunner().invoke(app, ["backup", "topics", "--topic", topic, "--config", str(config)])
    backup = newest(repository, archive.KIND)
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, backup.label)
    assert list(backup.manifest.facts["topics"]) == [topic]
    assert problems(backup) == []


Fault = Callable[[list[Path], random.Random], str]


def flip_a_bit(segments: list[Path], rng: random.Random) -> str:
    hit = rng.choice(segments)
    data = bytearray(hit.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    hit.write_bytes(data)
    return hit.name


def cut_the_tail(segments: list[Path], rng: random.Random) -> str:
    hit = rng.choice(segments)
    hit.write_bytes(hit.read_bytes()[: -rng.randrange(1, 100)])
    return hit.name


def remove_one(segments: list[Path], rng: random.Random) -> str:
    hit = rng.choice(segments)
    hit.unlink()
    return hit.name


def swap_two(segments: list[Path], rng: random.Random) -> str:
    one, other = rng.sample(segments, 2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return min(one.name, other.name)


def add_a_stranger(segments: list[Path], _: random.Random) -> str:
    segments[0].with_name("stranger").write_bytes(b"?")
    return "stranger"


@pytest.mark.parametrize("fault", [flip_a_bit, cut_the_tail, remove_one, swap_two, add_a_stranger])
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_damage_at_rest_is_found_and_named(
    broker: Stack, repository: Repository, tmp_path: Path, codec: str, fault: Fault
) -> None:
    topic = topics.create(broker.config.kafka, codec)
    settings: dict[str, str | int] = {"compression.type": codec, "batch.size": 4000}
    writer = topics.producer(broker.config.kafka, **settings)
    rng = random.Random(7)
    for _ in range(20_000):
        writer.produce(topic, rng.randbytes(20), partition=0)
        writer.poll(0)
    writer.flush(30)
    backup = archive.take(broker.config, repository, [topic])
    assert problems(backup) == []
    kept = sorted(tmp_path.rglob("*.batches*"))
    assert len(kept) > 2
    damaged = fault(kept, rng)
    assert any(damaged in told for told in problems(backup))
