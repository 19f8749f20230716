"""Capture keys of the real Debezium, for tests that need no Connect: `python -m tests.cdc.capture`.

One table for each type that can be a key, twice: its rows are there before the connector, which
reads them by its snapshot, or come afterwards, and it reads them from the slot. Every mode that
changes a key is captured. RECOVERY_DRILLS_POSTGRES must name a PostgreSQL with its extensions. Run
it again with a new version of Debezium, and look at the difference. It takes six minutes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition

from fixtures.cache import quiet
from fixtures.debezium import debezium_config
from fixtures.stacks import training
from fixtures.stacks.native import NativeStack
from pipeline.cdc.connectors import ConnectClient, ConnectorMissing
from pipeline.config import CdcConfig, PipelineConfig
from pipeline.errors import ServerError
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.postgres.wal import archiving
from pipeline.registry.client import RegistryClient
from pipeline.wait import wait_until
from tests.cdc.captured import ALONE, COLUMNS, FILE, MODES, PREPARE

WITHIN = timedelta(seconds=25)
LAST = "last"


def json_converter(schemas: str) -> dict[str, str]:
    """Have keys and values written as JSON, with their schemas or without."""
    told = {"": "org.apache.kafka.connect.json.JsonConverter", ".schemas.enable": schemas}
    return {f"{part}.converter{k}": v for part in ("key", "value") for k, v in told.items()}


CONVERTERS = {"avro": {}, "json": json_converter("true"), "bare": json_converter("false")}


def main() -> None:
    """Capture everything and write it to FILE."""
    together = [column for column in COLUMNS if column not in ALONE]
    captures: dict[str, Any] = {}
    with (
        NativeStack.launch(
            artifacts=training.prepared(), settings=archiving.settings, progress=quiet
        ) as stack,
        psycopg.connect(**stack.config.postgres.conninfo(), autocommit=True) as connection,
    ):
        connection.execute(PREPARE)
        for modes in MODES:
            for converter in CONVERTERS:
                found = captures.setdefault(f"{converter} {modes}", {"keys": {}, "schemas": {}})
                alone = ALONE if converter == "avro" and not modes.endswith("seconds") else ()
                for group in (together, *([column] for column in alone)):
                    one = _Capture(stack.config, connection, converter, modes, group).take()
                    found["keys"] |= one["keys"]
                    found["schemas"] |= one["schemas"]
    FILE.write_text(json.dumps(captures, indent=0, sort_keys=True, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class _Capture:
    stack: PipelineConfig
    connection: psycopg.Connection[Any]
    converter: str
    modes: str
    group: Sequence[str]

    @property
    def name(self) -> str:
        return f"keys_{self.converter}_{self.modes}_{self.group[0]}"

    @property
    def config(self) -> PipelineConfig:
        cdc = CdcConfig(slot=self.name, publication=self.name, topic_prefix=self.name)
        return self.stack.model_copy(update={"cdc": cdc})

    def take(self) -> dict[str, Any]:
        """Capture some types under one connector."""
        columns = {column: COLUMNS[column] for column in (*self.group, LAST)}
        tables = [f"{when}.t_{c}" for c in columns for when in ("snapshot", "streamed")]
        self._make("snapshot", columns)
        self._make("streamed", {column: (kind, ()) for column, (kind, _) in columns.items()})
        self.connection.execute(
            f"CREATE PUBLICATION {self.name} FOR TABLES IN SCHEMA snapshot, streamed"
        )
        create_slot(self.connection, self.name)
        asked = {
            **debezium_config(self.config, tables=tables),
            **MODES[self.modes],
            **CONVERTERS[self.converter],
            "event.processing.failure.handling.mode": "warn",
            "errors.max.retries": "0",
        }
        with ConnectClient(self.config.connect.url) as connect:
            connect.create(self.name, asked)
            keys = self._keys(connect, columns)
            connect.stop(self.name)
            connect.wait_stopped(self.name)
            connect.delete_offsets(self.name)
            connect.delete(self.name)
        drop_slot(self.connection, self.name)
        self.connection.execute(f"DROP PUBLICATION {self.name}")
        if self.converter == "avro":
            return {"keys": keys, "schemas": self._schemas(keys)}
        readable = {
            place: [bytes.fromhex(raw).decode() for raw in raws] for place, raws in keys.items()
        }
        return {"keys": readable, "schemas": {}}

    def _make(self, schema: str, columns: Mapping[str, tuple[str, Sequence[str]]]) -> None:
        self.connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
        for column, (kind, values) in columns.items():
            # a table that has a type's name is a type of that name, and Debezium takes it for it
            self.connection.execute(f"CREATE TABLE {schema}.t_{column} (k {kind} PRIMARY KEY)")
            self._insert(f"{schema}.t_{column}", values)

    def _insert(self, table: str, values: Sequence[str]) -> None:
        for value in values:
            self.connection.execute(f"INSERT INTO {table} VALUES ({value})")

    def _keys(
        self, connect: ConnectClient, columns: Mapping[str, tuple[str, Sequence[str]]]
    ) -> dict[str, list[str]]:
        wait_until(f"{self.name} streams", lambda: self._snapshotting(connect), within=WITHIN)
        for column, (_, values) in columns.items():
            self._insert(f"streamed.t_{column}", values)
        self._insert(f"streamed.t_{LAST}", ["1"])
        found: dict[str, list[str]] = {}

        def last() -> str | None:
            found.update(_read(self.config, self.name))
            return None if f"streamed.{LAST}" in found else "the last row has not arrived"

        wait_until(f"{self.name} delivers", last, within=WITHIN)
        return dict(sorted(found.items()))

    def _snapshotting(self, connect: ConnectClient) -> str | None:
        try:
            status = connect.status(self.name)
        except ConnectorMissing as error:
            return str(error)
        if any(task.state == "FAILED" for task in status.tasks):
            raise ServerError(f"{self.name} {self.group}: {status.tasks[0].trace}")
        slot, offsets = find_slot(self.connection, self.name), connect.offsets(self.name)
        if slot is None or not slot.active or not offsets:
            return "it does not stream yet"
        unfinished = [o for o in offsets if o.offset.get("snapshot")]
        completed = all(o.offset.get("snapshot_completed") for o in unfinished)
        return None if completed else "its snapshot goes on"

    def _schemas(self, keys: Mapping[str, Sequence[str]]) -> dict[int, Any]:
        raws = (bytes.fromhex(key) for found in keys.values() for key in found)
        with RegistryClient(self.config.registry.url) as registry:
            ids = {int.from_bytes(raw[1:5], "big") for raw in raws}
            return {one: json.loads(registry.schema_by_id(one)) for one in sorted(ids)}


def _read(config: PipelineConfig, prefix: str) -> dict[str, list[str]]:
    consumer = Consumer(
        {
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "group.id": "capture",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    try:
        topics = [t for t in consumer.list_topics(timeout=30).topics if t.startswith(f"{prefix}.")]
        consumer.assign([TopicPartition(topic, 0, 0) for topic in topics])
        found: dict[str, list[str]] = {}
        for message in _until_ends(consumer, len(topics)):
            place = message.topic().removeprefix(f"{prefix}.").replace(".t_", ".")
            found.setdefault(place, []).append((message.key() or b"").hex())
        return found
    finally:
        consumer.close()


def _until_ends(consumer: Consumer, unfinished: int) -> Iterator[Any]:
    while unfinished:
        message = consumer.poll(30.0)
        if message is None:
            raise ServerError("Kafka is silent")
        if message.error() is not None:
            unfinished -= 1
        else:
            yield message


if __name__ == "__main__":
    main()
