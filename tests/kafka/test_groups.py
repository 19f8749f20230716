"""Groups on a real broker: backed up whole, and brought back to the record they would have read."""

from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic
from typer.testing import CliRunner

from fixtures.kafka_story import commit
from fixtures.stacks.protocol import Stack
from pipeline.cli import app
from pipeline.config import KafkaConfig
from pipeline.errors import RecoveryRefused, RestoreError
from pipeline.kafka.archive import archive
from pipeline.kafka.groups import groups
from pipeline.kafka.groups.group_moves import Exact, Fate, Moves
from pipeline.kafka.groups.group_restore import Restored, restore
from pipeline.kafka.groups.groups import Position
from pipeline.kafka.replay.offset_map import OffsetMap
from pipeline.kafka.replay.replay import Replay
from pipeline.kafka.replay.replay_journal import map_key, new_journal
from pipeline.kafka.replay.replay_plan import Mode
from pipeline.kafka.replay.replay_wish import Wish, make
from pipeline.repository import marker
from pipeline.repository.sets import BackupSet, Repository
from pipeline.wait import wait_until
from tests.kafka import topics
from tests.kafka.readers import forget, forget_if_there, held, member, read
from tests.kafka.replayed import delete

pytestmark = pytest.mark.stack
VERBATIM = Exact({})


@pytest.fixture
def topic(broker: Stack) -> str:
    name = topics.create(broker.config.kafka, "read", 2)
    writer = topics.producer(broker.config.kafka)
    for partition in range(2):
        topics.fill(writer, name, 100, partition=partition)
    return name


def put_back(
    broker: Stack, backup: BackupSet, group: str, moves: Exact = VERBATIM, *, replace: bool = False
) -> Restored:
    return restore(broker.config.kafka, backup, moves=moves, groups=[group], replace=replace)


def fates(restored: Restored) -> list[Fate]:
    return [one.fate for some in restored.values() for one in some]


@pytest.fixture
def backup(broker: Stack, topic: str, repository: Repository) -> BackupSet:
    """Two offsets with metadata: one in the middle, one where everything was read."""
    kafka = broker.config.kafka
    commit(
        kafka,
        f"of-{topic}",
        TopicPartition(topic, 0, 40, "half way", 0),
        TopicPartition(topic, 1, 100),
    )
    return groups.take(broker.config, repository)


def only(backup: BackupSet, group: str) -> tuple[Position, ...]:
    return next(found for found in groups.read(backup) if found.name == group).positions


def test_offsets_come_back_verbatim_and_proven(
    broker: Stack, topic: str, backup: BackupSet
) -> None:
    kafka, group = broker.config.kafka, f"of-{topic}"
    before = held(kafka, group)
    assert before == [(topic, 0, 40, "half way"), (topic, 1, 100, "")]
    forget(kafka, group)
    assert fates(put_back(broker, backup, group)) == [Fate.PROVEN, Fate.END]
    assert held(kafka, group) == before
    assert fates(put_back(broker, backup, group)) == [Fate.PROVEN, Fate.END]  # again: no change


@pytest.mark.parametrize("protocol", [pytest.param("classic", marks=pytest.mark.slow), "consumer"])
def test_a_group_reads_on_where_it_was(
    broker: Stack, topic: str, repository: Repository, protocol: str
) -> None:
    kafka, group = broker.config.kafka, f"{protocol}-{topic}"
    first = read(kafka, group, topic, 30, protocol)
    backup = groups.take(broker.config, repository)
    told = next(found for found in groups.read(backup) if found.name == group)
    assert (told.state, told.protocol, told.simple) == ("empty", protocol, False)
    forget(kafka, group)
    put_back(broker, backup, group)
    assert set(read(kafka, group, topic, 170, protocol)).isdisjoint(first)


def test_groups_with_members_are_refused(broker: Stack, topic: str, backup: BackupSet) -> None:
    kafka, group = broker.config.kafka, f"of-{topic}"
    consumer = member(kafka, group, "classic")
    consumer.subscribe([topic])
    wait_until(
        "a message", lambda: None if consumer.poll(0.1) else "none yet", within=topics.WITHIN
    )
    with pytest.raises(RecoveryRefused, match=f"{group} is stable"):
        put_back(broker, backup, group)
    consumer.close()


def test_other_offsets_are_given_up_only_by_name(
    broker: Stack, topic: str, backup: BackupSet
) -> None:
    kafka, group = broker.config.kafka, f"of-{topic}"
    commit(kafka, group, TopicPartition(topic, 0, 90, "later"))
    with pytest.raises(RecoveryRefused, match=r"\[0\] 90, would become 40"):
        put_back(broker, backup, group)
    assert held(kafka, group)[0] == (topic, 0, 90, "later")
    put_back(broker, backup, group, replace=True)
    assert held(kafka, group)[0] == (topic, 0, 40, "half way")


def _remake(kafka: KafkaConfig, topic: str, values: int, first: int = 0) -> None:
    """The topic of another life: the broker forgets the offsets that groups had in it."""
    delete(kafka, topic)
    admin = topics.admin(kafka)
    kept = {"retention.ms": "-1"}  # its timestamps are of 1970
    new = NewTopic(topic, num_partitions=2, replication_factor=1, config=kept)
    admin.create_topics([new])[topic].result()
    writer = topics.producer(kafka)
    for partition in range(2):
        for number in range(first, first + values):
            writer.produce(
                topic, f"value {number}".encode(), partition=partition, timestamp=1_000 + number
            )
    assert writer.flush(30) == 0


def test_other_records_under_the_same_offsets_are_refused(
    broker: Stack, topic: str, backup: BackupSet
) -> None:
    """A topic that was made anew holds something at every offset: a broker would take any."""
    kafka, group = broker.config.kafka, f"of-{topic}"
    _remake(kafka, topic, 100, first=1)
    forget_if_there(kafka, group)
    with pytest.raises(RestoreError, match="2 offsets cannot be restored") as refused:
        put_back(broker, backup, group)
    assert f"{topic}[0]@40: the next record was" in str(refused.value)
    assert f"{topic}[1]@100: the record before was" in str(refused.value)
    assert held(kafka, group) == []


def test_offsets_beyond_what_came_back_are_clamped_and_counted(
    broker: Stack, topic: str, backup: BackupSet
) -> None:
    """The log ends before one offset; behind the archive's end other records stand at the other."""
    kafka, group = broker.config.kafka, f"of-{topic}"
    _remake(kafka, topic, 60, first=1)
    forget_if_there(kafka, group)
    restored = put_back(broker, backup, group, Exact({(topic, 0): 35, (topic, 1): 60}))
    told = [(one.to.offset, one.fate, one.moved) for one in restored[group]]
    assert told == [(35, Fate.CLAMPED, -5), (60, Fate.CLAMPED, -40)]
    assert [offset for _, _, offset, _ in held(kafka, group)] == [35, 60]


@pytest.mark.parametrize("mode", [pytest.param("exact", marks=pytest.mark.slow), "dense"])
def test_after_a_replay_groups_read_on_at_the_same_record(
    broker: Stack, repository: Repository, tmp_path: Path, mode: str
) -> None:
    """Exact: the old offsets. Dense: by the map that the replay wrote, around markers and gaps."""
    kafka = broker.config.kafka
    config = broker.config.model_copy(
        update={"repository": broker.config.repository.model_copy(update={"path": tmp_path})}
    )
    topic = topics.create(kafka, "transactional")
    topics.transactions(kafka, topic, "cacc")  # 0-2, 3; 4-6, 7; 8-10, 11; 12-14, 15
    group = f"of-{topic}"
    commit(kafka, group, TopicPartition(topic, 0, 9, "in the third"))
    backup = groups.take(config, repository)
    archived = archive.take(config, repository, [topic])
    delete(kafka, topic)
    plan = make(config, repository, Wish(topic, archived.label, mode=Mode(mode)))
    journal = new_journal(config, topic)
    Replay(config, plan, journal).run()
    moves: Moves = Exact.of(archived)
    if mode == "dense":
        moves = OffsetMap.load(repository.store, map_key(journal.recovery))
    (one,) = restore(kafka, backup, moves=moves, groups=[group])[group]
    assert (one.fate, one.to.offset) == (Fate.PROVEN, {"exact": 9, "dense": 4}[mode])
    assert held(kafka, group) == [(topic, 0, one.to.offset, "in the third")]


def test_offsets_below_the_log_start_are_moved_up(
    broker: Stack, topic: str, backup: BackupSet
) -> None:
    kafka, group = broker.config.kafka, f"of-{topic}"
    topics.delete_before(kafka, topic, 50)
    restored = put_back(broker, backup, group, replace=True)
    told = [(one.to.offset, one.fate, one.moved) for one in restored[group]]
    assert told == [(50, Fate.STARTED, 10), (100, Fate.END, 0)]


def test_a_group_that_commits_beyond_the_end_shows(
    broker: Stack, topic: str, repository: Repository
) -> None:
    """The broker accepts any offset, and a consumer would jump by its auto.offset.reset."""
    kafka, group = broker.config.kafka, f"far-{topic}"
    commit(kafka, group, TopicPartition(topic, 0, 1_000_000_000))
    (position,) = only(groups.take(broker.config, repository), group)
    assert position.around is not None
    assert (position.offset, position.around.end) == (1_000_000_000, 100)
    assert position.around.next is None


def test_markers_and_aborted_records_are_passed_over(broker: Stack, repository: Repository) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "transactional")
    topics.transactions(kafka, topic, "cac")  # 0-2, 3; 4-6, 7; 8-10, 11
    group = f"of-{topic}"
    commit(kafka, group, TopicPartition(topic, 0, 3))
    (position,) = only(groups.take(broker.config, repository), group)
    assert position.around is not None
    assert position.around.before is not None
    assert position.around.next is not None
    assert (position.around.before.offset, position.around.next.offset) == (2, 8)


def test_a_damaged_backup_is_refused(backup: BackupSet, tmp_path: Path) -> None:
    stored = tmp_path / backup.manifest.objects[0].key
    stored.write_bytes(stored.read_bytes().replace(b'"offset": 40', b'"offset": 41'))
    with pytest.raises(RestoreError, match="the backup is damaged"):
        groups.read(backup)


def test_the_commands(broker: Stack, topic: str, tmp_path: Path) -> None:
    kafka, group = broker.config.kafka, f"of-{topic}"
    commit(kafka, group, TopicPartition(topic, 0, 40, "half way"), TopicPartition(topic, 1, 100))
    config = tmp_path / "pipeline.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\n'
        f'[repository]\npath = "{tmp_path}"\n'
    )
    marker.make(str(tmp_path))
    done = CliRunner().invoke(app, ["backup", "offsets", "--config", str(config)])
    assert (done.exit_code, done.output.splitlines()[-1].partition("-")[0]) == (0, "offsets")
    forget(kafka, group)
    done = CliRunner().invoke(
        app, ["restore", "offsets", "--group", group, "--config", str(config)]
    )
    assert done.exit_code == 0, done.output
    assert f"{topic}[0]@40 -> {topic}[0]@40: the next record is the one" in done.output
    assert "2 offsets of 1 group" in done.output
    assert held(kafka, group)[0] == (topic, 0, 40, "half way")
