"""How fast an archive of topics is taken, beside confluent-kafka's consume and Kafka's own tool.

    python -m bench.kafka_archive [--megabytes N] [--rounds N] [--partitions N]

Every contender reads the same topic from its first to its last offset, in turns, on a broker of
this run's own. Ours is the whole `archive.take`: CRC, account, compression, sha256, fsync.
"""

import argparse
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from fixtures.stacks import training
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.config import KafkaConfig
from pipeline.kafka import archive
from pipeline.repository import Repository
from pipeline.store import FolderStore

PERF = "org.apache.kafka.tools.ConsumerPerformance"
CASES = (("none", 1024), ("none", 100), ("lz4", 100), ("lz4", 1024), ("zstd", 100))
HEAD = (
    "codec   bytes  partitions  contender                  seconds (min-max)  krec/s  MB/s  ours is"
)
Contender = Callable[[str], float]


def main() -> None:
    """Print one table: seconds, and how many times faster than each peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200, help="of values, for each topic")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=1)
    asked = parser.parse_args()
    artifacts = training.prepared()
    with NativeStack.launch(artifacts=artifacts, components=(Component.KAFKA,)) as stack:
        kafka = stack.config.kafka
        print(HEAD)  # noqa: T201
        for codec, size in CASES:
            records = asked.megabytes * 1_000_000 // size
            topic = _fill(kafka, codec, size, records, asked.partitions)
            perf = artifacts.kafka_command(PERF)
            contenders: dict[str, Contender] = {
                "ours": lambda topic: _archive(stack, topic),
                "confluent-kafka consume": lambda topic, n=records: _consume(kafka, topic, n),  # type: ignore[misc]
                "ConsumerPerformance": lambda topic, n=records, of=perf: _perf(of, kafka, topic, n),  # type: ignore[misc]
            }
            _table(contenders, topic, (codec, size, asked.partitions), records, asked.rounds)


def _table(
    contenders: dict[str, Contender],
    topic: str,
    case: tuple[str, int, int],
    records: int,
    rounds: int,
) -> None:
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            took[name].append(run(topic))
    ours = statistics.median(took["ours"])
    for name, seconds in took.items():
        middle = statistics.median(seconds)
        print(  # noqa: T201
            f"{case[0]:6} {case[1]:6} {case[2]:11}  {name:25}  {middle:7.2f} "
            f"({min(seconds):.2f}-{max(seconds):.2f})  {records / middle / 1e3:7.0f} "
            f"{records * case[1] / middle / 1e6:6.0f}  {middle / ours:5.1f} x",
            flush=True,
        )


def _fill(kafka: KafkaConfig, codec: str, size: int, records: int, partitions: int) -> str:
    topic, rng = f"{codec}-{size}-{partitions}", random.Random(17)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1)
    admin.create_topics([new])[topic].result()
    values = [_value(rng, size) for _ in range(1_000)]
    writer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "compression.type": codec,
            "linger.ms": 50,
            "batch.size": 100_000,
            "queue.buffering.max.kbytes": 200_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for number in range(records):
        while True:
            try:
                writer.produce(topic, values[number % 1_000], partition=number % partitions)
                break
            except BufferError:
                writer.poll(0.1)
    writer.flush(120)
    return topic


def _value(rng: random.Random, size: int) -> bytes:
    """Text that compresses about as rows in JSON do."""
    text = f'{{"id": {rng.randrange(10**9)}, "customer": "customer {rng.randrange(10**6)}", '
    while len(text) < size:
        text += f'"amount": {rng.randrange(10**6)}, "note": "nothing to say", '
    return text[:size].encode()


def _archive(stack: NativeStack, topic: str) -> float:
    with tempfile.TemporaryDirectory(dir=stack.config.repository.path.parent) as folder:
        started = time.perf_counter()
        archive.take(stack.config, Repository(FolderStore(Path(folder))), [topic])
        return time.perf_counter() - started


def _consume(kafka: KafkaConfig, topic: str, records: int) -> float:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 8 << 20,
        }
    )
    partitions = consumer.list_topics(topic).topics[topic].partitions
    started, seen = time.perf_counter(), 0
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    while seen < records:
        seen += len(consumer.consume(10_000, 1.0))
    took = time.perf_counter() - started
    consumer.close()
    return took


def _perf(command: Sequence[str], kafka: KafkaConfig, topic: str, records: int) -> float:
    """Seconds that it says it fetched, without its start: `fetch.time.ms`."""
    done = subprocess.run(
        [
            *(*command, "--bootstrap-server", kafka.bootstrap_servers, "--topic", topic),
            *("--messages", str(records), "--timeout", "60000"),
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


if __name__ == "__main__":
    main()
