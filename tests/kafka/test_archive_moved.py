"""What happens under a reader: its leader dies, its topic goes, its archive is of another time."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic
from typer.testing import CliRunner, Result

from fixtures.kafka_story import commit
from fixtures.stacks.kafka import KafkaServer
from fixtures.stacks.protocol import Stack
from pipeline.cli import app
from pipeline.config import KafkaConfig, PipelineConfig, PostgresConfig, RepositoryConfig
from pipeline.errors import BackupError, ServerError
from pipeline.kafka.archive import archive, segments
from pipeline.kafka.archive.reading import archived
from pipeline.kafka.archive.segments import FORMAT, INDEX, Index
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster.raw import Fetched, RawReader
from pipeline.kafka.groups import groups
from pipeline.kafka.log.place import Place
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore, read
from tests.kafka import topics
from tests.kafka.archives import problems
from tests.kafka.brokers import pair

pytestmark = pytest.mark.stack
WRITTEN = 5_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.kafka.archive.partition.SEGMENT", 50_000)
    monkeypatch.setattr("pipeline.kafka.archive.archive.FETCH", 10_000)


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


@pytest.mark.slow
def test_a_partition_without_a_leader_leaves_all_else_backed_up(
    two: tuple[str, KafkaServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, second = two
    kafka = KafkaConfig(bootstrap_servers=servers, client={"log_level": "0"})
    config = tmp_path / "pipeline.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{servers}"\n[repository]\npath = "{tmp_path}"\n'
    )
    led = {"half": [[1], [2]], "sound": [[1]], "__consumer_offsets": [[1]]}
    new = [NewTopic(n, num_partitions=len(on), replica_assignment=on) for n, on in led.items()]
    client = topics.admin(kafka)
    for made in client.create_topics(new).values():
        made.result()
    writer = topics.producer(kafka)
    for name, partition in (("half", 0), ("half", 1), ("sound", 0)):
        topics.fill(writer, name, 100, partition=partition)
        commit(kafka, f"of-{name}", TopicPartition(name, partition, 50))
    second.kill()
    monkeypatch.setattr(momentary, "PATIENCE", timedelta(seconds=5))  # fenced after three
    monkeypatch.setattr("pipeline.kafka.cluster.topics.SECONDS", 4.0)
    names = [f"--topic={name}" for name in ("half", "sound")]
    done = invoke("backup", "topics", *names, config=config)
    assert done.exit_code == 1, done.output
    assert "half is not archived whole: [1] " in done.output
    sets = Repository(FolderStore(tmp_path))
    in_part = sets.get(sets.labels(archive.KIND)[-1])
    held = {
        name: list(each["partitions"]) for name, each in in_part.manifest.facts["topics"].items()
    }
    assert held == {"half": ["0"], "sound": ["0"]}
    assert list(in_part.manifest.facts["incomplete"]) == ["half"]
    assert problems(in_part) == []
    assert "bytes  not whole: half" in invoke("list", config=config).output
    refused = invoke("restore", "topic", "--topic=half", "--plan", config=config)
    assert refused.exit_code != 0
    monkeypatch.setattr(momentary, "PATIENCE", timedelta(seconds=1))
    done = invoke("backup", "offsets", config=config)
    assert done.exit_code == 1, done.output
    assert "of-half: half[1]@50: " in done.output
    noted = {
        str(position.spot): position.around
        for group in groups.read(sets.get(sets.labels(groups.KIND)[-1]))
        for position in group.positions
    }
    assert noted.keys() == {"half[0]@50", "half[1]@50", "sound[0]@50"}
    assert [spot for spot, around in noted.items() if around and around.unseen] == ["half[1]@50"]
    second.start()
    monkeypatch.undo()
    done = invoke("backup", "topics", *names, config=config)
    assert done.exit_code == 0, done.output
    whole = sets.get(sets.labels(archive.KIND)[-1])
    assert len(list(archived(whole, ["half"]))) == 2
    assert in_part.label in str([entry.key for entry in whole.manifest.objects])


def invoke(*words: str, config: Path) -> Result:
    return CliRunner().invoke(app, [*words, "--config", str(config)])


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
    key = segments.folder(whole.prefix, topic, 0) + INDEX
    later = json.loads(read(repository.store, key)) | {"format": FORMAT + 1}
    with pytest.raises(BackupError, match=rf"archive format {FORMAT + 1}; .* reads {FORMAT}"):
        Index.parse(json.dumps(later).encode(), key)
