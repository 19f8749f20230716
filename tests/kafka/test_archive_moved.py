"""What happens under a reader: its leader dies, its topic goes, its archive is of another time."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from fixtures.stacks.kafka import KafkaServer
from fixtures.stacks.protocol import Stack
from pipeline.config import KafkaConfig, PipelineConfig, PostgresConfig, RepositoryConfig
from pipeline.errors import BackupError, ServerError
from pipeline.kafka import archive
from pipeline.kafka.brokers import Place
from pipeline.kafka.raw import Fetched, RawReader
from pipeline.kafka.reading import archived
from pipeline.kafka.segments import FORMAT, INDEX, Index
from pipeline.repository import Repository
from pipeline.store import read
from tests.kafka import topics
from tests.kafka.archives import problems
from tests.kafka.brokers import pair

pytestmark = pytest.mark.stack
WRITTEN = 5_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.kafka.partition.SEGMENT", 50_000)
    monkeypatch.setattr("pipeline.kafka.archive.FETCH", 10_000)


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[str, KafkaServer]]:
    with pair() as started:
        yield started


def after(fetches: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Act once, between two fetches; the list tells the offsets that were fetched."""
    true_fetch, seen = RawReader.fetch, list[int]()

    def fetch(self: RawReader, place: Place, offset: int, *, undecided: bool = False) -> Fetched:
        seen.append(offset)
        if len(seen) == fetches:
            act()
        return true_fetch(self, place, offset, undecided=undecided)

    monkeypatch.setattr(RawReader, "fetch", fetch)
    return seen


def write(kafka: KafkaConfig, topic: str) -> None:
    topics.fill(topics.producer(kafka, **{"batch.size": 2_000}), topic, WRITTEN)


def test_a_leader_that_dies_in_the_middle_is_followed(
    two: tuple[str, KafkaServer],
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers, second = two
    config = PipelineConfig(
        postgres=PostgresConfig(port=1),
        kafka=KafkaConfig(bootstrap_servers=servers, client={"log_level": "0"}),
        repository=RepositoryConfig(path=tmp_path),
    )
    client = topics.admin(config.kafka)
    topic = NewTopic("led", num_partitions=1, replica_assignment=[[2, 1]])  # 2 leads
    client.create_topics([topic])["led"].result()
    write(config.kafka, "led")
    with monkeypatch.context() as patch:
        fetched = after(3, second.kill, patch)
        backup = archive.take(config, repository, ["led"])
    assert fetched[:1] == [0]
    assert len(fetched) > 5
    index = next(archived(backup)).index
    assert (index.records, index.gaps, index.leader_epochs) == (WRITTEN, {}, [(0, 0)])
    write(config.kafka, "led")
    second.start()
    said: list[str] = []
    more = archive.take(config, repository, ["led"], said.append)
    index = next(archived(more)).index
    assert (index.added, index.records, index.gaps) == (WRITTEN, 2 * WRITTEN, {}), said
    assert [offset for _, offset in index.leader_epochs] == [0, WRITTEN]
    assert [problems(each) for each in (backup, more)] == [[], []]


def test_a_topic_that_is_deleted_while_it_is_read_ends_the_run(
    broker: Stack, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = broker.config.kafka
    topic, other = topics.create(kafka, "doomed"), topics.create(kafka, "unharmed")
    for name in (topic, other):
        write(kafka, name)
    client = topics.admin(kafka)

    def delete() -> None:
        client.delete_topics([topic])[topic].result()

    with monkeypatch.context() as patch:
        after(3, delete, patch)
        with pytest.raises(ServerError, match=rf"{topic}\[0\].*deleted while it was read"):
            archive.take(broker.config, repository, [topic])
    assert repository.labels() == []
    backup = archive.take(broker.config, repository, [other])
    assert problems(backup) == []


def test_a_newer_format_is_refused_and_not_gone_on_from(
    broker: Stack, repository: Repository, tmp_path: Path
) -> None:
    topic = topics.create(broker.config.kafka, "newer")
    write(broker.config.kafka, topic)
    backup = archive.take(broker.config, repository, [topic])
    for path in tmp_path.rglob("*.inventory.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1}))
    (tmp_path / backup.prefix / "manifest.json").unlink()  # an unfinished run of a later version
    whole = archive.take(broker.config, repository, [topic])
    assert all(entry.key.startswith(whole.prefix) for entry in whole.manifest.objects)
    key = f"{whole.prefix}{topic}/0/{INDEX}"
    later = json.loads(read(repository.store, key)) | {"format": FORMAT + 1}
    with pytest.raises(BackupError, match=rf"archive format {FORMAT + 1}; .* reads {FORMAT}"):
        Index.parse(json.dumps(later).encode(), key)
