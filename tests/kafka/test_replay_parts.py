"""Parts of a topic, other offsets, and what a target refuses or would delete."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from typer.testing import CliRunner

from checks import rules
from checks.check import Outcome
from checks.kafka_subjects import ReplayedTopic
from pipeline.cli import app
from pipeline.config import KafkaConfig
from pipeline.errors import BackupError, ConfigError, NoBackup, RecoveryRefused
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.log.place import Spot
from pipeline.kafka.replay import replay_journal
from pipeline.kafka.replay.offset_map import OffsetMap
from pipeline.kafka.replay.replay_plan import Mode, Range
from pipeline.kafka.replay.target_topic import RETENTION, configure
from pipeline.repository.sets import MANIFEST
from tests.kafka import topics
from tests.kafka.replayed import Site, consumed, eventful, place_extent

pytestmark = pytest.mark.stack
FOREVER = {"retention.ms": "-1"}


def written(here: Site, *, partitions: int = 1, config: dict[str, str] | None = None) -> str:
    topic = topics.create(here.kafka, "parts", partitions, FOREVER if config is None else config)
    for partition in range(partitions):
        eventful(here.kafka, topic, 500, partition, **{"compression.type": "lz4"})
    here.archive(topic)
    return topic


def test_a_range_of_offsets_keeps_them(here: Site) -> None:
    topic = written(here, partitions=2)
    here.bring(topic, partitions=(1,), offsets=Range(101, 333))
    wanted = [each for each in consumed(here.kafka, topic, 1) if 101 <= each.offset < 333]
    assert consumed(here.kafka, f"{topic}-back", 1) == wanted
    assert place_extent(here.kafka, f"{topic}-back", 1) == (101, 333)
    assert place_extent(here.kafka, f"{topic}-back", 0) == (0, 0)


def test_a_range_of_time_begins_where_a_broker_would(here: Site) -> None:
    topic = written(here)
    since, until = (datetime.fromtimestamp(1_600_000_000 + s, UTC) for s in (100, 200))
    here.bring(topic, since=since, until=until)
    everything = consumed(here.kafka, topic)
    first, end = (
        next(e.offset for e in everything if e.timestamp >= t.timestamp() * 1000)
        for t in (since, until)
    )
    assert consumed(here.kafka, f"{topic}-back") == everything[first:end]


def test_dense_mode_writes_where_each_offset_went(here: Site) -> None:
    topic = topics.create(here.kafka, "dense", config=FOREVER)
    topics.transactions(here.kafka, topic, "caacac", size=5)
    topics.delete_before(here.kafka, topic, 3)
    here.archive(topic)
    done = here.bring(topic, mode=Mode.DENSE)
    before, after = consumed(here.kafka, topic), consumed(here.kafka, f"{topic}-back")
    assert [each[1:] for each in after] == [each[1:] for each in before]
    assert [each.offset for each in after] == list(range(len(before)))
    key = f"recoveries/{done.run.journal.recovery}/offset-map.json"
    moves = OffsetMap.load(here.repository.store, key)
    for old, new in zip(before, after, strict=True):
        assert moves.spot(Spot(topic, 0, old.offset)) == Spot(f"{topic}-back", 0, new.offset)
    end = place_extent(here.kafka, topic)[1]
    assert moves.spot(Spot(topic, 0, end)).offset == len(before)
    assert moves.spot(Spot(topic, 0, 6)).offset == 2  # an aborted one: on to the next
    assert moves.end((topic, 0)) == end


def test_a_topic_that_holds_something_is_refused_unless_appended(here: Site) -> None:
    topic = written(here)
    here.bring(topic, offsets=Range(None, 200))
    with pytest.raises(RecoveryRefused, match=r"partition 0 holds 200 offsets: --append"):
        here.bring(topic)
    here.bring(topic, append=True, offsets=Range(200, None))
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)
    for check in rules.CATALOGUE.on(ReplayedTopic):  # both parts, and nothing wrong with them
        seen = check.run(lambda: ReplayedTopic.of(here.config))
        assert seen.outcome is Outcome.PASS, (check.id, seen)
    with pytest.raises(ConfigError, match="partition 0 ends at 500"):
        here.bring(topic, append=True, mode=Mode.EXACT)
    here.bring(topic, append=True, mode=Mode.DENSE)
    assert len(consumed(here.kafka, f"{topic}-back")) == 1_000


def test_broker_times_are_kept_as_the_records_own(here: Site) -> None:
    config = FOREVER | {"message.timestamp.type": "LogAppendTime"}
    topic = topics.create(here.kafka, "append-time", config=config)
    writer = topics.producer(here.kafka, **{"compression.type": "zstd"})
    for _ in range(3):
        topics.fill(writer, topic, 20, keys=3)
    here.archive(topic)
    done = here.bring(topic)
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)
    assert done.proven[0].rewritten == 60
    assert describe(here.kafka, [f"{topic}-back"])[0].overrides == config


def test_retention_that_would_delete_it_stays_held_until_told(here: Site) -> None:
    topic = topics.create(here.kafka, "old", config={"retention.ms": "86400000"})
    here_config = {"retention.ms": "86400000"}
    configure(here.kafka, topic, FOREVER)
    eventful(here.kafka, topic, 100)
    configure(here.kafka, topic, here_config)
    here.archive(topic)
    done = here.bring(topic)
    assert any(
        "100 records in" in line and "older than its retention" in line for line in done.said
    )
    (held,) = describe(here.kafka, [f"{topic}-back"])
    assert held.overrides == here_config | RETENTION
    assert list(replay_journal.unfinished(here.config)) == []
    here.resume(done.run.journal.recovery, give_back_retention=True)
    assert describe(here.kafka, [f"{topic}-back"])[0].overrides == here_config


def test_what_a_target_would_refuse_is_said_first(here: Site) -> None:
    topic = written(here, partitions=2)
    other = topics.create(here.kafka, "other", 3)
    with pytest.raises(RecoveryRefused, match="it has 3 partitions, the archived topic had 2"):
        here.bring(topic, name=other)
    with pytest.raises(RecoveryRefused, match=r"3 replicas, asked for, and 1 brokers"):
        here.bring(topic, replication=3)
    with pytest.raises(ConfigError, match=r"has no partition \[7\]"):
        here.bring(topic, partitions=(7,))
    with pytest.raises(NoBackup, match="no backup of topics that holds nothing in"):
        here.bring("nothing")


def test_a_target_that_takes_only_small_batches_takes_larger_ones_meanwhile(here: Site) -> None:
    topic = written(here)
    limit = FOREVER | {"max.message.bytes": "1000"}
    small = topics.create(here.kafka, "small", 1, limit)
    here.bring(topic, name=small)
    assert consumed(here.kafka, small) == consumed(here.kafka, topic)
    assert describe(here.kafka, [small])[0].overrides == limit


def test_settings_of_other_brokers_are_left_out_or_refused_by_name(
    here: Site, tmp_path: Path
) -> None:
    """An archive outlives its brokers: some know fewer settings, some take other values."""
    topic, throttle = written(here), "leader.replication.throttled.replicas"
    backup = here.archive(topic)
    then = {"vendor.tier": "cold", throttle: "0:1", "segment.bytes": "16384"} | FOREVER
    backup.manifest.facts["topics"][topic]["overrides"] = then
    (tmp_path / backup.prefix / MANIFEST).write_bytes(backup.manifest.sealed())
    with pytest.raises(RecoveryRefused, match=r"segment.bytes=16384: .*--without-setting segment"):
        here.bring(topic)
    assert f"{topic}-back" not in topics.admin(here.kafka).list_topics(timeout=10).topics
    done = here.bring(topic, without_settings=("segment.bytes",))
    assert describe(here.kafka, [f"{topic}-back"])[0].overrides == FOREVER
    left_out = [line for line in done.said if "is left out" in line]
    assert [line.split()[1] for line in left_out] == [throttle, "segment.bytes", "vendor.tier"]


@pytest.mark.parametrize("letters", [227, 249])
def test_a_topic_may_have_the_longest_name_there_is(here: Site, letters: int) -> None:
    topic, client = "x" * letters, topics.admin(here.kafka)
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    topics.fill(topics.producer(here.kafka), topic, 20)
    here.archive(topic)
    name = f"short-{letters}"
    here.bring(topic, name=name)
    assert consumed(here.kafka, name) == consumed(here.kafka, topic)


def test_a_plan_can_be_made_before_there_is_a_broker(here: Site) -> None:
    topic = written(here)
    here.connect(KafkaConfig(bootstrap_servers="127.0.0.1:1", client={"log_level": "0"}))
    lines = list(here.plan(topic).lines())
    assert "the brokers do not answer: counted as if they let us write markers" in lines


def test_a_cut_segment_leaves_a_topic_that_is_called_unfinished(here: Site, tmp_path: Path) -> None:
    topic = written(here)
    (segment,) = tmp_path.rglob("*.batches*")
    segment.write_bytes(segment.read_bytes()[:-100])
    with pytest.raises(BackupError, match=r"\.batches: .* cut batch at its end"):
        here.bring(topic)
    ((_, name),) = replay_journal.unfinished(here.config)
    assert name == f"{topic}-back"


def test_the_command_plans_restores_and_says_what_is_next(here: Site, tmp_path: Path) -> None:
    topic = written(here, partitions=2)
    config = tmp_path / "pipeline.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{here.kafka.bootstrap_servers}"\n'
        f'[repository]\npath = "{tmp_path}"\n'
    )
    told = ["restore", "topic", "--config", str(config), "--topic", topic, "--as", f"{topic}-b"]
    since = "2020-09-13T12:30:00+00:00"
    planned = CliRunner().invoke(app, [*told, "--plan", "--from-time", since])
    assert planned.exit_code == 0, planned.output
    assert "objective 1,200 s" in planned.output
    assert f"{topic}-b" not in topics.admin(here.kafka).list_topics(timeout=10).topics
    done = CliRunner().invoke(app, told)
    assert done.exit_code == 0, done.output
    assert f"{topic}-b[1] proven: offsets 0 to 500, 500 records" in done.output
    assert consumed(here.kafka, f"{topic}-b", 1) == consumed(here.kafka, topic, 1)
