"""A replay that is killed goes on, and brings nothing twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, RecoveryRefused, RestoreError
from pipeline.kafka.cluster.raw_produce import RawWriter
from pipeline.kafka.log.place import Place
from pipeline.kafka.replay import replay_journal
from tests.kafka import topics
from tests.kafka.replayed import Site, batches, consumed, delete, place_extent

pytestmark = pytest.mark.stack

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.kafka.replay import (
    replay, replay_journal, replay_wish, replay_write, target_topic
)
from pipeline.kafka.cluster.raw_produce import RawWriter
from pipeline import config as configuration
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore

file, topic, where, name, count = sys.argv[1:]
owner = {"writer": replay_write.PartitionWriter, "raw": RawWriter, "topic": target_topic}[where]
true, left = getattr(owner, name), [int(count)]

def killing(*given, **named):
    done = true(*given, **named)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

setattr(owner, name, killing)
replay_write.WINDOW = 8  # of 17 batches at least 9 are in place
config = configuration.load(Path(file))
plan = replay_wish.make(config, Repository(FolderStore(config.repository.path)),
                        replay_wish.Wish(topic, name=topic + "-back"))
replay.Replay(config, plan, replay_journal.new_journal(config, topic)).run()
"""


@pytest.fixture
def topic(here: Site) -> str:
    """Many batches, transactions of both kinds, a log that does not start at 0."""
    name = topics.create(here.kafka, "killed", config={"retention.ms": "-1"})
    writer = topics.producer(here.kafka, **{"batch.size": "2000", "linger.ms": "0"})
    topics.fill(writer, name, 2_000, keys=30)
    topics.transactions(here.kafka, name, "caacaca", size=20)
    topics.fill(writer, name, 1_000)
    topics.delete_before(here.kafka, name, 150)
    here.archive(name)
    return name


def killed(here: Site, topic: str, tmp_path: Path, *where: str) -> str:
    """Kill -9 a replay there; returns its name."""
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{here.kafka.bootstrap_servers}"\n'
        f'[repository]\npath = "{tmp_path}"\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(file), topic, *where],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (journal,) = (tmp_path / "recoveries").iterdir()
    return journal.name


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(("topic", "create", "1"), marks=pytest.mark.slow),
        pytest.param(("writer", "_send", "1"), marks=pytest.mark.slow),
        ("writer", "_send", "17"),
        ("raw", "mark", "2"),
        pytest.param(("writer", "_fill", "30"), marks=pytest.mark.slow),
        pytest.param(("topic", "configure", "2"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_what_was_killed_goes_on_without_a_duplicate(
    here: Site, topic: str, tmp_path: Path, where: tuple[str, ...]
) -> None:
    name = killed(here, topic, tmp_path, *where)
    begun = where[0] != "topic" or where[1] != "create"
    told = [(name, f"{topic}-back")] if begun else []
    assert list(replay_journal.unfinished(here.config)) == told
    proven, _, _ = here.resume(name)
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)
    assert place_extent(here.kafka, f"{topic}-back") == place_extent(here.kafka, topic)
    assert proven[0].records == len(consumed(here.kafka, topic))
    assert list(replay_journal.unfinished(here.config)) == []


def test_somebody_elses_record_is_found_before_more_is_written(
    here: Site, topic: str, tmp_path: Path
) -> None:
    name = killed(here, topic, tmp_path, "writer", "_send", "17")
    topics.fill(topics.producer(here.kafka), f"{topic}-back", 1)
    end = place_extent(here.kafka, f"{topic}-back")
    with pytest.raises(RestoreError, match=r"killed-\d+-back\[0\]"):
        here.resume(name)
    assert place_extent(here.kafka, f"{topic}-back") == end
    assert list(replay_journal.unfinished(here.config)) == [(name, f"{topic}-back")]


def test_a_strange_batch_that_fits_in_size_is_found_by_its_content(
    here: Site, topic: str, tmp_path: Path
) -> None:
    name = killed(here, topic, tmp_path, "writer", "_send", "17")
    end = place_extent(here.kafka, f"{topic}-back")[1]
    (expected,) = (b for b, _ in batches(here.kafka, topic) if b.base_offset == end)
    topics.fill(topics.producer(here.kafka), f"{topic}-back", expected.records)
    with pytest.raises(RestoreError, match=rf"@{end} is not what the archive says"):
        here.resume(name)


def test_a_topic_that_was_deleted_meanwhile_is_named(
    here: Site, topic: str, tmp_path: Path
) -> None:
    name = killed(here, topic, tmp_path, "writer", "_send", "17")
    delete(here.kafka, f"{topic}-back")
    with pytest.raises(RestoreError, match="deleted, or made anew, meanwhile"):
        here.resume(name)


def test_a_lost_request_or_answer_neither_drops_nor_doubles_a_batch(
    here: Site, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, calls = RawWriter._produce, [0]

    async def losing(self: RawWriter, place: Place, batch: bytes) -> object:
        calls[0] += 1
        number = calls[0]
        if number == 3:
            raise ConnectionResetError("the request was lost; those behind it were not")
        told = await true(self, place, batch)
        if number in {20, 21}:
            raise ConnectionResetError("the answer was lost")
        return told

    monkeypatch.setattr(RawWriter, "_produce", losing)
    here.bring(topic)
    assert calls[0] > 20
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)


def test_two_at_a_time_are_refused(here: Site, topic: str) -> None:
    done = here.bring(topic)
    with done.run.journal.alone(), pytest.raises(RecoveryRefused, match="is running already"):
        here.resume(done.run.journal.recovery)
    with pytest.raises(ConfigError, match="there is no recovery 'nothing'"):
        here.resume("nothing")
