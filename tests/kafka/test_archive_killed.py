"""`pipeline backup topics` as a process: killed at any moment, and in bounded memory."""

import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fixtures.stacks.protocol import Stack
from pipeline.config import KafkaConfig
from pipeline.kafka.archive import archive, proof
from pipeline.kafka.archive.reading import archived
from pipeline.repository import marker
from pipeline.repository.kinds import newest
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.kafka import topics
from tests.reliability.rounds import ROOT, Story, repeat, whole_sets

pytestmark = pytest.mark.stack
PARTITIONS, EACH = 8, 2_000
NIGHTLY = 12


def random_values(kafka: KafkaConfig, topic: str, partition: int, values: int) -> None:
    """Values of 1 KiB that nothing compresses: the archive has bytes to move."""
    rng = random.Random(partition)
    writer = topics.producer(kafka, **{"queue.buffering.max.kbytes": 100_000})
    for _ in range(values):
        writer.produce(topic, rng.randbytes(1_000), partition=partition)
        writer.poll(0)
    assert writer.flush(60) == 0


def configured(kafka: KafkaConfig, folder: Path) -> Path:
    path = folder / "pipeline.toml"
    path.write_text(
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\n'
        f'[repository]\npath = "{folder / "repository"}"\n[postgres]\nport = 1\n'
    )
    marker.make(str(folder / "repository"))
    return path


def command(topic: str, configuration: Path) -> list[str]:
    words = ["backup", "topics", "--topic", topic, "--config", str(configuration)]
    return [sys.executable, "-m", "pipeline", *words]


@dataclass
class Archiving(Story):
    """Before each run the topic grows; the last word is the label: the acknowledgement."""

    kafka: KafkaConfig
    topic: str
    folder: Path
    acknowledged: set[str] = field(default_factory=set)
    written: int = 0

    @property
    def repository(self) -> Repository:
        return Repository(FolderStore(self.folder / "repository"))

    def command(self) -> list[str]:
        for partition in range(PARTITIONS):
            random_values(self.kafka, self.topic, partition, EACH)
        self.written += EACH
        return command(self.topic, configured(self.kafka, self.folder))

    def prove(self) -> None:
        whole_sets(self.repository, self.acknowledged)

    def complete(self, out: str) -> None:
        self.acknowledged.add(out.rsplit(maxsplit=1)[-1])
        self.prove()
        backup = newest(self.repository, archive.KIND)
        assert [found for found in proof.walk(backup) if found.problem] == []
        for partition in archived(backup):
            index = partition.index
            assert (index.start, index.end, index.records) == (0, self.written, self.written)
        assert [path.name for path in self.folder.rglob(".unfinished*")] == []


@pytest.mark.parametrize("kills", [2, pytest.param(NIGHTLY, marks=pytest.mark.slow)])
def test_killed_at_a_random_moment(broker: Stack, tmp_path: Path, seed: int, kills: int) -> None:
    kafka = broker.config.kafka
    story = Archiving(kafka, topics.create(kafka, "killed", PARTITIONS), tmp_path)
    place = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    repeat(story, place, kills, seed)


def test_memory_does_not_grow_with_the_topic(broker: Stack, tmp_path: Path) -> None:
    """What is held at once is bounded; how much of it stands at the peak is the moment's."""
    kafka, grown = broker.config.kafka, 240_000  # records of 1 KiB, none of which packs
    topic = topics.create(kafka, "large")
    random_values(kafka, topic, 0, 40_000)
    small = peak(kafka, topic, tmp_path / "small")
    random_values(kafka, topic, 0, grown)
    large = peak(kafka, topic, tmp_path / "large")
    assert large - small < grown // 2, f"{small:,} KiB for 40 MB, {large:,} KiB for 280 MB"


def peak(kafka: KafkaConfig, topic: str, folder: Path) -> int:
    """The most memory that a run of the command ever held, in KiB."""
    folder.mkdir()
    words = command(topic, configured(kafka, folder))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=folder, env=env) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return int(used.ru_maxrss)
