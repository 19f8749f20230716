"""Pipelines of many shapes: how CDC is told to write, and tables whose keys are of every kind.

Each row has a note of its own. A consumer of this module's keeps the last note of each raw key, so
it knows nothing of key types: after a recovery its notes must be those of the table, each once.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition

from fixtures.debezium import debezium_config
from fixtures.sink.wire import Decoder
from fixtures.stacks.native import NativeStack
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.names import topic_of, unquoted
from pipeline.config import CdcConfig, PipelineConfig
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.wait import wait_until

WITHIN = timedelta(seconds=60)
Notes = dict[str, list[str]]
"""Of each table, sorted."""

TABLES = {
    "public.by_numeric": ("k numeric PRIMARY KEY", "g * 1.50"),
    "public.by_decimal": ("k numeric(20, 4) PRIMARY KEY", "-g * 1.5"),
    "public.by_uuid": ("k uuid PRIMARY KEY", "md5(g::text)::uuid"),
    "public.by_char": ("k char(6) PRIMARY KEY", "g::text"),
    "public.by_enum": ("k number_word PRIMARY KEY", "('nr ' || g)::number_word"),
    "public.by_moment": (
        "k timestamptz PRIMARY KEY",
        "timestamptz '1969-12-31 23:59:50.123456+02' + g * interval '1.000001 s'",
    ),
    "public.by_bytes": ("k bytea PRIMARY KEY", "decode(md5(g::text), 'hex')"),
    "public.by_many": (
        "part uuid, at timestamp(3), day date, id int, PRIMARY KEY (id, part, day, at)",
        "md5(g::text)::uuid, timestamp '2026-03-01' + g * interval '1 ms', date '2026-01-01', g",
    ),
    '"Lager"."Größe der Kiste"': (
        '"Schlüssel Nr" int, "Art" text, PRIMARY KEY ("Schlüssel Nr", "Art")',
        "g, 'Länge ' || g",
    ),
}
"""By name as SQL spells it: the columns of the key, and their values in the row number g."""
WORDS = ", ".join(f"'nr {g}'" for g in range(1, 100))
TYPE = f"CREATE TYPE number_word AS ENUM ({WORDS})"
REQUIRED = {
    *("connector.class", "database.hostname", "database.port", "database.user"),
    *("database.dbname", "database.password", "plugin.name", "topic.prefix"),
    *("topic.creation.default.replication.factor", "topic.creation.default.partitions"),
}
"""What a connector of Debezium cannot do without; all else is left to its defaults."""
ADJUSTED = {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"}
"""Without which Avro has no place for the names of these tables."""


@dataclass(frozen=True)
class Shape:
    """One way to set CDC up. `settings` is what its connector is told beside what it needs.

    Keys or values, as `avro` names them, are Avro. Where `publishes`, the publication and the slot
    are made by hand, as for a connector whose role may not; otherwise Debezium makes them, for all
    tables.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    avro: Sequence[str] = ()
    publishes: bool = False
    failover: bool = False
    registry: bool = True
    """Whether pipeline.toml names one."""
    neighbour: bool = False
    """Whether another connector reads the server too, by a slot and a publication of its own."""
    cdc: CdcConfig = field(default_factory=CdcConfig)


@dataclass
class Shaped:
    """A pipeline of some shape on a stack, in service."""

    shape: Shape
    config: PipelineConfig
    connect: ConnectClient

    def run(self, *statements: str) -> None:
        """Run them in one transaction each."""
        with psycopg.connect(**self.config.postgres.conninfo(), autocommit=True) as connection:
            for one in statements:
                connection.execute(one.encode())

    def write(self, *changes: str) -> int:
        """Change every table in one transaction, where `{}` stands for each; return its xid."""
        with psycopg.connect(**self.config.postgres.conninfo()) as connection:
            for table, (_, values) in TABLES.items():
                for change in changes:
                    text = change.replace("{}", table).replace("{key}", values)
                    connection.execute(text.encode())
            row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def rows(self) -> Notes:
        """Notes in the tables."""
        with psycopg.connect(**self.config.postgres.conninfo()) as connection:
            return {
                table: sorted(
                    n for (n,) in connection.execute(f"SELECT note FROM {table}".encode())
                )
                for table in TABLES
            }

    def topic(self, table: str) -> str:
        return topic_of(self.config.cdc.topic_prefix, unquoted(table))

    @property
    def topics(self) -> list[str]:
        return [self.topic(table) for table in TABLES]

    def events(self) -> Notes:
        """Notes that a consumer holds who read every topic to its end."""
        held = {topic: dict[bytes, str]() for topic in self.topics}
        decoder = Decoder(self.config.registry)
        for message in _messages(self.config, self.topics):
            key, value = bytes(message.key()), message.value()
            after = None if value is None else _after(decoder, bytes(value))
            if after is None:
                held[message.topic()].pop(key, None)
            else:
                held[message.topic()][key] = after["note"]
        return {table: sorted(held[self.topic(table)].values()) for table in TABLES}

    def wait_told(self) -> Notes:
        """Return the notes once the topics tell what the tables hold."""
        rows = self.rows()

        def other() -> str | None:
            events = self.events()
            wrong = [table for table in TABLES if events[table] != rows[table]]
            return f"{wrong[0]}: {_difference(rows[wrong[0]], events[wrong[0]])}" if wrong else None

        wait_until("topics that equal their tables", other, within=WITHIN)
        return rows


def _difference(rows: list[str], events: list[str]) -> str:
    lacking, beyond = set(rows) - set(events), set(events) - set(rows)
    return f"{len(rows)} rows, {len(events)} events, lacks {sorted(lacking)}, has {sorted(beyond)}"


def _after(decoder: Decoder, value: bytes) -> dict[str, Any] | None:
    if value[:1] == b"\0":
        return decoder.decode(value, "a value")[1]["after"]  # type: ignore[no-any-return]
    told = json.loads(value)
    event = told["payload"] if set(told) == {"schema", "payload"} else told
    return event["after"]  # type: ignore[no-any-return]


def _messages(config: PipelineConfig, topics: list[str]) -> Iterator[Any]:
    reader = Consumer(
        {
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "group.id": "shapes",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    try:
        there = reader.list_topics(timeout=10).topics
        left = {topic for topic in topics if topic in there}
        reader.assign([TopicPartition(topic, 0, 0) for topic in left])
        while left:
            for message in reader.consume(1_000, 0.2):
                if message.error() is None:
                    yield message
                else:
                    left.discard(message.topic())
    finally:
        reader.close()


@contextmanager
def shaped(stack: NativeStack, shape: Shape) -> Iterator[Shaped]:
    """Make the tables with 30 rows each, capture them, and take all of it away at the end."""
    config = stack.config.model_copy(update={"cdc": shape.cdc})
    if not shape.registry:
        unnamed = config.registry.model_copy(update={"url": ""})
        config = config.model_copy(update={"registry": unnamed})
    with ConnectClient(config.connect) as connect, ExitStack() as leaving:
        made = Shaped(shape, config, connect)
        leaving.callback(_remove, made)
        made.run('CREATE SCHEMA "Lager"', TYPE)
        for table, (columns, _) in TABLES.items():
            made.run(f"CREATE TABLE {table} (g int, note text, {columns})")
        made.write("INSERT INTO {} SELECT g, g || '/1', {key} FROM generate_series(1, 30) g")
        if shape.publishes:
            _publish(made, shape.cdc, ", ".join(TABLES), failover=shape.failover)
        _capture(made, "ours", shape.cdc, {"slot.name": shape.cdc.slot} if shape.publishes else {})
        if shape.neighbour:
            _neighbour(made)
        made.wait_told()
        yield made


OTHER = CdcConfig(slot="other_slot", publication="other", topic_prefix="other")


def _neighbour(made: Shaped) -> None:
    made.run("CREATE TABLE others (id int PRIMARY KEY)", "INSERT INTO others VALUES (1)")
    _publish(made, OTHER, "others", failover=not made.shape.failover)
    own = {"slot.name": OTHER.slot, "table.include.list": "public.others"}
    _capture(made, "theirs", OTHER, own)

    def reading() -> str | None:
        stored = made.connect.offsets("theirs")
        return None if any(one.offset.get("snapshot_completed") for one in stored) else f"{stored}"

    wait_until("the neighbour's offset", reading, within=WITHIN)


def _publish(made: Shaped, cdc: CdcConfig, tables: str, *, failover: bool) -> None:
    made.run(f"CREATE PUBLICATION {cdc.publication} FOR TABLE {tables}")
    with psycopg.connect(**made.config.postgres.conninfo(), autocommit=True) as connection:
        create_slot(connection, cdc.slot, failover=failover)


def _capture(made: Shaped, name: str, cdc: CdcConfig, more: Mapping[str, str]) -> None:
    config = made.config.model_copy(update={"cdc": cdc})
    full = debezium_config(config, tables=[])
    avro = tuple(f"{part}.converter" for part in made.shape.avro)
    least = {
        setting: value
        for setting, value in full.items()
        if setting in REQUIRED or (avro and setting.startswith(avro))
    }
    least |= ADJUSTED if avro else {}
    named = {"publication.name": cdc.publication} if more else {}
    made.connect.create(name, least | dict(made.shape.settings) | named | dict(more))
    made.connect.wait_running(name)


def _remove(made: Shaped) -> None:
    for name in {"ours", "theirs"} & set(made.connect.names()):
        made.connect.stop(name)
        made.connect.wait_stopped(name)
        made.connect.delete_offsets(name)
        made.connect.delete(name)
    with psycopg.connect(**made.config.postgres.conninfo(), autocommit=True) as connection:
        for cdc in (made.shape.cdc, OTHER):
            if find_slot(connection, cdc.slot) is not None:
                drop_slot(connection, cdc.slot)
            connection.execute(f"DROP PUBLICATION IF EXISTS {cdc.publication}".encode())
        connection.execute(f"DROP TABLE IF EXISTS {', '.join(TABLES)}, others".encode())
        connection.execute('DROP SCHEMA IF EXISTS "Lager"; DROP TYPE IF EXISTS number_word')
