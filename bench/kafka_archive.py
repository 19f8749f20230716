"""`python -m bench.kafka_archive`: a topic archived, against consume and Kafka's own tool.

Every contender reads the same topic from its first to its last offset, in turns, on a broker of
this run's own. Ours is the whole `archive.take`: CRC, account, compression, sha256, fsync. The
others throw away what they read.
"""

import os
import random
import re
import resource
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.measure import Series, interleaved, machine, write_block, write_raw
from fixtures.stacks import training
from fixtures.stacks.artifacts import Artifacts
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.config import KafkaConfig, PipelineConfig
from pipeline.kafka.archive import archive
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore

ROOT = Path(__file__).parents[1]
REPORTS, DOCUMENT = ROOT / "reports", ROOT / "docs" / "benchmarks.md"
PERF = "org.apache.kafka.tools.ConsumerPerformance"
OURS, CONSUME, TOOL = "this suite", "confluent-kafka consume", "ConsumerPerformance"
HEAD = """\
| topic | this suite, s: median (min to max) | MB/s | CPU s | consume takes | the tool takes |
|---|---|---|---|---|---|"""
SPREAD = """\
| partitions, one batch each | this suite, s: median (min to max) | ms for each partition |
|---|---|---|"""


@dataclass(frozen=True)
class Case:
    """A topic of records of one size, in bytes."""

    codec: str
    size: int
    partitions: int = 1

    def __str__(self) -> str:
        where = f"{self.partitions} partitions" if self.partitions > 1 else "1 partition"
        return f"{self.codec}, {self.size:,} B records, {where}"


CASES = (
    Case("none", 1024),
    Case("none", 100),
    Case("none", 100_000),
    Case("lz4", 100),
    Case("lz4", 1024),
    Case("zstd", 100),
    Case("none", 1024, 64),
    Case("lz4", 100, 64),
)


class Rig:
    """One topic on a broker, and three that read it."""

    def __init__(
        self, config: PipelineConfig, artifacts: Artifacts, case: Case, records: int
    ) -> None:
        self._config, self._artifacts, self._records = config, artifacts, records
        self._topic = _fill(config.kafka, case, records)
        self.cpu: list[float] = []

    def archive(self) -> float:
        folder = self._config.repository.path.parent
        with tempfile.TemporaryDirectory(dir=folder) as repository:
            started, used = time.perf_counter(), _cpu()
            archive.take(self._config, Repository(FolderStore(Path(repository))), [self._topic])
            self.cpu.append(_cpu() - used)
            return time.perf_counter() - started

    def consume(self) -> float:
        consumer = Consumer(
            {
                "bootstrap.servers": self._config.kafka.bootstrap_servers,
                "group.id": "bench",
                "enable.auto.commit": False,
                "fetch.message.max.bytes": 8 << 20,
            }
        )
        partitions = consumer.list_topics(self._topic).topics[self._topic].partitions
        started, seen = time.perf_counter(), 0
        consumer.assign([TopicPartition(self._topic, partition, 0) for partition in partitions])
        while seen < self._records:
            seen += len(consumer.consume(10_000, 1.0))
        took = time.perf_counter() - started
        consumer.close()
        return took

    def tool(self) -> float:
        """Seconds that it says it fetched, without its start: `fetch.time.ms`."""
        servers = self._config.kafka.bootstrap_servers
        done = subprocess.run(
            [
                *self._artifacts.kafka_command(PERF),
                *("--bootstrap-server", servers, "--topic", self._topic),
                *("--messages", str(self._records), "--timeout", "60000"),
                *("--group", f"perf-{time.monotonic_ns()}"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        rows = [line.split(", ") for line in done.stdout.splitlines() if re.match(r"\d{4}-", line)]
        if not rows:
            raise SystemExit(f"{PERF} said nothing:\n{done.stdout}{done.stderr}")
        return int(rows[-1][7]) / 1e3


def main(
    megabytes: Annotated[int, typer.Option(min=1, help="of values, for each topic")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="runs of each contestant")] = 5,
    many: Annotated[int, typer.Option(min=10, help="partitions at most")] = 1000,
    *,
    document: Annotated[bool, typer.Option(help="write docs/benchmarks.md")] = True,
) -> None:
    """Topics of every kind, each beside its peers; then what a partition costs."""
    artifacts, rows, raw = training.prepared(), list[str](), dict[str, object]()
    with NativeStack.launch(artifacts=artifacts, components=(Component.KAFKA,)) as stack:
        for case in CASES:
            records = megabytes * 1_000_000 // case.size
            typer.echo(f"{case}: {records:,} records")
            rig = Rig(stack.config, artifacts, case, records)
            asked = {OURS: rig.archive, CONSUME: rig.consume, TOOL: rig.tool}
            series = interleaved(asked, rounds, typer.echo)
            rows.append(_row(case, series, statistics.median(rig.cpu), megabytes))
            raw[str(case)] = {name: each.seconds for name, each in series.items()}
        spread = [_spread(stack.config, count, rounds, raw) for count in (many // 10, many)]
    head = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. {rounds} rounds, in turn; {megabytes} MB of "
        f"values in each topic; load {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores. "
        f"The last two columns: how many times as long as this suite, in the same round."
    )
    text = "\n\n".join([head, "\n".join([HEAD, *rows]), "\n".join([SPREAD, *spread])])
    typer.echo(text)
    write_raw(REPORTS, "bench-kafka-archive", raw)
    if document:
        write_block(DOCUMENT, "kafka-archive", text)


def _row(case: Case, series: dict[str, Series], cpu: float, megabytes: int) -> str:
    ours = series[OURS]
    return (
        f"| {case} | {ours} | {megabytes / ours.median:,.0f} | {cpu:.2f} "
        f"| {series[CONSUME].over(ours):.1f} x | {series[TOOL].over(ours):.1f} x |"
    )


def _spread(config: PipelineConfig, partitions: int, rounds: int, raw: dict[str, object]) -> str:
    """What many partitions cost that hold next to nothing."""
    topic = _fill(config.kafka, Case("lz4", 100, partitions), partitions)
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=config.repository.path.parent) as repository:
            started = time.perf_counter()
            archive.take(config, Repository(FolderStore(Path(repository))), [topic])
            seconds.append(time.perf_counter() - started)
    ours = Series(topic, tuple(seconds))
    raw[topic] = seconds
    return f"| {partitions:,} | {ours} | {ours.median / partitions * 1e3:.1f} |"


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _fill(kafka: KafkaConfig, case: Case, records: int) -> str:
    topic, rng = f"{case.codec}-{case.size}-{case.partitions}-{records}", random.Random(17)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    new = NewTopic(topic, num_partitions=case.partitions, replication_factor=1)
    admin.create_topics([new])[topic].result()
    values = [_value(rng, case.size) for _ in range(1_000)]
    writer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "compression.type": case.codec,
            "linger.ms": 50,
            "batch.size": 100_000,
            "queue.buffering.max.kbytes": 200_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for number in range(records):
        while True:
            try:
                writer.produce(topic, values[number % 1_000], partition=number % case.partitions)
                break
            except BufferError:
                writer.poll(0.1)
    if left := writer.flush(120):
        raise SystemExit(f"{topic}: {left} records were not acknowledged")
    return topic


def _value(rng: random.Random, size: int) -> bytes:
    """Text that compresses about as rows in JSON do."""
    text = f'{{"id": {rng.randrange(10**9)}, "customer": "customer {rng.randrange(10**6)}", '
    while len(text) < size:
        text += f'"amount": {rng.randrange(10**6)}, "note": "nothing to say", '
    return text[:size].encode()


if __name__ == "__main__":
    typer.run(main)
