"""An archive goes on from what is stored, and only where that is still the same log."""

from pathlib import Path

import pytest

from fixtures.stacks.protocol import Stack
from pipeline.config import KafkaConfig
from pipeline.errors import BackupError
from pipeline.kafka.archive import archive, lineage
from pipeline.kafka.archive.partition import Partition
from pipeline.kafka.archive.reading import archived
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.log.gaps import Reason
from pipeline.kafka.log.place import Place
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import StoredObject
from tests.kafka import topics
from tests.kafka.archives import index_of, problems

pytestmark = pytest.mark.stack
WRITTEN = 5_000


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.kafka.archive.partition.SEGMENT", 20_000)
    monkeypatch.setattr("pipeline.kafka.archive.archive.FETCH", 20_000)


def write(kafka: KafkaConfig, topic: str, records: int = WRITTEN) -> None:
    topics.fill(topics.producer(kafka, **{"batch.size": 4_000}), topic, records)


def own(backup: BackupSet) -> list[str]:
    """Segments that this run stored itself."""
    keys = [entry.key for entry in backup.manifest.objects]
    return [key for key in keys if key.startswith(backup.prefix) and ".batches" in key]


def test_the_next_run_stores_what_is_new(broker: Stack, repository: Repository) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "growing")
    write(kafka, topic)
    first = archive.take(broker.config, repository, [topic])
    same = archive.take(broker.config, repository, [topic])
    write(kafka, topic, 100)
    more = archive.take(broker.config, repository, [topic])
    again = archive.take(broker.config, repository, [topic], full=True)
    assert own(same) == []
    assert len(own(more)) == 1
    assert len(index_of(more, topic).segments) == len(own(first)) + 1
    assert len(own(again)) == len(index_of(again, topic).segments)
    assert (index_of(more, topic).added, index_of(more, topic).end) == (WRITTEN, WRITTEN + 100)
    assert [problems(backup) for backup in (first, same, more, again)] == [[], [], [], []]
    content = [
        b"".join(block for piece in each.pieces() for block in piece.blocks)
        for backup in (more, again)
        for each in archived(backup, [topic])
    ]
    assert content[0] == content[1]


def test_segments_before_the_log_start_go(broker: Stack, repository: Repository) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "moving")
    write(kafka, topic)
    first = index_of(archive.take(broker.config, repository, [topic]), topic)
    topics.delete_before(kafka, topic, first.segments[1].first + 1)
    later = archive.take(broker.config, repository, [topic])
    index = index_of(later, topic)
    assert (index.start, index.log_start) == (first.segments[1].first, index.start + 1)
    assert problems(later) == []
    write(kafka, topic, 100)
    topics.delete_before(kafka, topic, WRITTEN + 50)
    missed = archive.take(broker.config, repository, [topic])
    facts = missed.manifest.facts["topics"][topic]["partitions"]["0"]
    assert facts["missed"] == [WRITTEN, WRITTEN + 50]
    assert index_of(missed, topic).gaps == {Reason.DELETED: WRITTEN + 50}
    assert problems(missed) == []


def test_a_topic_made_anew_begins_anew(broker: Stack, repository: Repository) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "reborn")
    write(kafka, topic)
    archive.take(broker.config, repository, [topic])
    topics.recreate(kafka, topic)
    write(kafka, topic)
    said: list[str] = []
    backup = archive.take(broker.config, repository, [topic], said.append)
    assert len(own(backup)) == len(index_of(backup, topic).segments)
    assert any(f"{topic}: made anew since" in line for line in said)
    assert problems(backup) == []


def test_a_log_that_was_cut_begins_anew(
    broker: Stack, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broker never loses a log's end in order, so its answer about the epoch is shortened."""
    kafka, true_end = broker.config.kafka, lineage._epoch_end
    topic = topics.create(kafka, "cut")
    write(kafka, topic)
    archive.take(broker.config, repository, [topic])
    said: list[str] = []

    def cut(reader: RawReader, place: Place, epoch: int) -> tuple[int, int]:
        known, end = true_end(reader, place, epoch)
        return known, end - 1

    monkeypatch.setattr(lineage, "_epoch_end", cut)
    backup = archive.take(broker.config, repository, [topic], said.append)
    assert len(own(backup)) == len(index_of(backup, topic).segments)
    assert any("the log was cut: leader epoch 0 was archived up to 5000" in line for line in said)


def test_a_compacted_topic_is_gone_on_with_only_while_tombstones_live(
    broker: Stack, repository: Repository
) -> None:
    kafka = broker.config.kafka
    shared = {"cleanup.policy": "compact"}
    kept = topics.create(kafka, "kept", config=shared)
    brief = topics.create(kafka, "brief", config=shared | {"delete.retention.ms": "0"})
    for topic in (kept, brief):
        topics.fill(topics.producer(kafka), topic, 10, keys=10)
    archive.take(broker.config, repository, [kept, brief])
    said: list[str] = []
    backup = archive.take(broker.config, repository, [kept, brief], said.append)
    assert [key for key in own(backup) if f"/{kept}/" in key] == []
    assert len([key for key in own(backup) if f"/{brief}/" in key]) == 1
    assert any(f"{brief}[0]: archived whole again: compacted" in line for line in said)


def interrupted(
    broker: Stack, repository: Repository, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends after its third segment, as one that is killed there."""
    true_close, closed = Partition._close, []

    def close(self: Partition, put: StoredObject, end: int | None = None) -> None:
        true_close(self, put, end)
        closed.append(put)
        if len(closed) == 3:
            raise BackupError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Partition, "_close", close)
        with pytest.raises(BackupError, match="killed"):
            archive.take(broker.config, repository, [topic])


def test_an_interrupted_run_is_gone_on_with(
    broker: Stack, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "interrupted")
    write(kafka, topic)
    interrupted(broker, repository, topic, monkeypatch)
    assert repository.labels() == []
    backup = archive.take(broker.config, repository, [topic])
    index = index_of(backup, topic)
    assert len(own(backup)) == len(index.segments) - 3
    assert (index.start, index.end, index.records) == (0, WRITTEN, WRITTEN)
    assert problems(backup) == []


def test_what_an_interrupted_run_stored_is_proven_before_it_is_used(
    broker: Stack, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "damaged")
    write(kafka, topic)
    interrupted(broker, repository, topic, monkeypatch)
    hit = sorted(tmp_path.rglob("*.batches*"))[1]
    data = bytearray(hit.read_bytes())
    data[len(data) // 2] ^= 1
    hit.write_bytes(data)
    said: list[str] = []
    backup = archive.take(broker.config, repository, [topic], said.append)
    assert len(own(backup)) == len(index_of(backup, topic).segments) - 1
    assert any("not taken over from an unfinished run" in s and hit.name in s for s in said)
    assert problems(backup) == []


def test_a_segment_that_is_gone_is_read_again(
    broker: Stack, repository: Repository, tmp_path: Path
) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "healed")
    write(kafka, topic)
    first = archive.take(broker.config, repository, [topic])
    (tmp_path / index_of(first, topic).segments[1].key).unlink()
    backup = archive.take(broker.config, repository, [topic])
    assert len(own(backup)) == len(index_of(first, topic).segments) - 1
    assert problems(backup) == []


def test_a_limit_is_said_and_gone_on_from(broker: Stack, repository: Repository) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "limited")
    write(kafka, topic)
    backup = archive.take(broker.config, repository, [topic], limit=1_000)
    index = index_of(backup, topic)
    assert 1_000 <= index.records == index.end < WRITTEN
    assert backup.manifest.facts["limit"] == 1_000
    whole = archive.take(broker.config, repository, [topic])
    assert (index_of(whole, topic).added, index_of(whole, topic).end) == (index.end, WRITTEN)
    assert [problems(backup), problems(whole)] == [[], []]
