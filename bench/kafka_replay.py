"""`python -m bench.kafka_replay`: a topic replayed with proof, against those who produce it anew.

Replay reads the archive, writes, reads all of it back and compares; the others only produce.
"""

import random
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from bench.measure import Series, interleaved, table, timed, write_raw
from fixtures.stacks import training
from fixtures.stacks.artifacts import Artifacts
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.config import PipelineConfig
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import admin
from pipeline.kafka.replay import replay, replay_journal, replay_wish
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore

REPORTS = Path(__file__).parents[1] / "reports"
_SENT = re.compile(r"records sent, ([\d.]+) records/sec")
_NUMBERS = count()


@dataclass(frozen=True)
class Load:
    """So many records of a size, compressed so, in batches of so many bytes."""

    codec: str
    size: int
    records: int
    partitions: int = 1
    batch: int = 16_384

    def __str__(self) -> str:
        where = f"{self.partitions} partitions" if self.partitions > 1 else "1 partition"
        return f"{self.records:,} x {self.size} B, {self.codec}, {self.batch:,} B batches, {where}"

    @property
    def settings(self) -> dict[str, str | int]:
        return {"compression.type": self.codec, "acks": "all", "batch.size": self.batch}


class Rig:
    """A broker, an archive of one topic, and three ways to fill another."""

    def __init__(self, config: PipelineConfig, artifacts: Artifacts, load: Load) -> None:
        self._config, self._artifacts, self._load = config, artifacts, load
        self._repository = Repository(FolderStore(config.repository.path))
        rng = random.Random(load.size)
        words = [rng.randbytes(6).hex() for _ in range(400)]
        text = " ".join(rng.choice(words) for _ in range(200 * load.size))
        self._values = [
            text[at : at + load.size].encode() for at in range(0, 2_000 * load.size, load.size)
        ]
        self._payloads = config.repository.path / "payloads"
        self._payloads.write_bytes(b"\n".join(self._values))
        self.topic = self._new_topic()
        self._produce(self.topic)
        archive.take(config, self._repository, [self.topic])
        self.steps: list[tuple[float, float]] = []

    def replay(self) -> float:
        """Seconds with everything: reading the archive, making the topic, proof."""
        wish = replay_wish.Wish(self.topic, name=f"{self.topic}-{next(_NUMBERS)}")
        journal = replay_journal.new_journal(self._config, self.topic)

        def run() -> None:
            plan = replay_wish.make(self._config, self._repository, wish)
            replay.Replay(self._config, plan, journal).run()

        taken = timed(run)
        at = {
            (line["step"], line["result"]): datetime.fromisoformat(line["utc"])
            for line in journal.lines()
        }

        def seconds(step: str) -> float:
            return (at[step, "done"] - at[step, "started"]).total_seconds()

        self.steps.append((seconds("write"), seconds("prove")))
        return taken

    def replay_write(self) -> float:
        """Seconds of its writing alone: what the others do."""
        self.replay()
        return self.steps[-1][0]

    def confluent(self) -> float:
        """Seconds of confluent-kafka's produce(), values made before."""
        topic = self._new_topic()
        return timed(lambda: self._produce(topic))

    def performance_tool(self) -> float:
        """Seconds by the tool's own clock: it does not count the start of its JVM."""
        settings = {**self._load.settings, "bootstrap.servers": self._servers}
        done = subprocess.run(
            [
                *self._artifacts.kafka_command("org.apache.kafka.tools.ProducerPerformance"),
                *("--topic", self._new_topic(), "--num-records", str(self._load.records)),
                *("--payload-file", str(self._payloads), "--throughput", "-1"),
                *("--producer-props", *(f"{key}={value}" for key, value in settings.items())),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return self._load.records / float(_SENT.findall(done.stdout)[-1])

    @property
    def _servers(self) -> str:
        return self._config.kafka.bootstrap_servers

    def _new_topic(self) -> str:
        name, client = f"bench-{next(_NUMBERS)}", admin(self._config.kafka)
        new = NewTopic(name, num_partitions=self._load.partitions, replication_factor=1)
        client.create_topics([new])[name].result()
        return name

    def _produce(self, topic: str) -> None:
        producer = Producer(
            {"bootstrap.servers": self._servers, "linger.ms": 20, **self._load.settings}
        )
        values, partitions = self._values, self._load.partitions
        for number in range(self._load.records):
            while True:
                try:
                    producer.produce(
                        topic, values[number % len(values)], partition=number % partitions
                    )
                    break
                except BufferError:
                    producer.poll(0.05)
            if number % 1_000 == 0:
                producer.poll(0)
        if left := producer.flush(120):
            raise RuntimeError(f"{left} records were not acknowledged")


LOADS = (
    Load("lz4", 120, 500_000),
    Load("lz4", 120, 500_000, batch=1_000_000),
    Load("lz4", 120, 500_000, partitions=8),
    Load("lz4", 120, 500_000, partitions=8, batch=1_000_000),
    Load("none", 1_024, 200_000),
    Load("zstd", 120, 1_000_000),
)


def measured(load: Load, rounds: int, say: Callable[[str], None]) -> tuple[str, dict[str, Series]]:
    """One table."""
    artifacts = training.prepared()
    with (
        NativeStack.launch(artifacts=artifacts, components=(Component.KAFKA,)) as stack,
        tempfile.TemporaryDirectory() as folder,
    ):
        own = stack.config.repository.model_copy(update={"path": Path(folder)})
        rig = Rig(stack.config.model_copy(update={"repository": own}), artifacts, load)
        series = interleaved(
            {
                "replay, proven": rig.replay,
                "replay, writing alone": rig.replay_write,
                "confluent-kafka produce()": rig.confluent,
                "kafka-producer-perf-test": rig.performance_tool,
            },
            rounds,
            say,
        )
    megabytes = load.records * load.size / 1e6
    rates = ", ".join(f"{n} {megabytes / s.median:,.0f}" for n, s in series.items())
    return table(str(load), series, "replay, proven", f"MB of values a second: {rates}."), series


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    only: Annotated[int | None, typer.Option(help="one load, by its number from 0")] = None,
) -> None:
    """Print the tables, and keep the raw seconds under reports/."""
    raw = {}
    for load in LOADS if only is None else LOADS[only : only + 1]:
        typer.echo(str(load))
        text, series = measured(load, rounds, typer.echo)
        raw[str(load)] = {name: each.seconds for name, each in series.items()}
        typer.echo(text + "\n")
    write_raw(REPORTS, "bench-kafka-replay", raw)


if __name__ == "__main__":
    typer.run(main)
