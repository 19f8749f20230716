"""`pipeline verify consistency` of tables of every kind, in every mode and by every converter."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
import pytest

from fixtures.debezium import debezium_config
from fixtures.stacks.protocol import Stack
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.consistency import verify
from pipeline.cdc.verdicts import PASS, TableVerdict
from pipeline.config import CdcConfig, PipelineConfig
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.wait import wait_until
from tests.cdc.capture import CONVERTERS
from tests.cdc.captured import ALONE, COLUMNS, MODES, PREPARE
from tests.cdc.source import WITHIN

pytestmark = [pytest.mark.stack, pytest.mark.slow]
_NUMBERS = count()
ADJUSTED = {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"}


@dataclass(frozen=True)
class Site:
    """Some tables of a schema of their own, under one connector."""

    name: str
    config: PipelineConfig
    connection: psycopg.Connection[Any]
    connect: ConnectClient

    def run(self, *statements: str) -> None:
        for one in statements:
            self.connection.execute(one.encode())

    def verdicts(self) -> dict[str, TableVerdict]:
        """Compare every table, by its name without the schema."""
        found = verify(self.config, lambda _: None)
        return {one.table.partition(".")[2]: one for one in found.tables}


@contextmanager
def capturing(
    stack: Stack, statements: list[str], published: str, settings: Mapping[str, str]
) -> Iterator[Site]:
    """Make a schema by these statements, and stream it; `published` are the publication's objects.

    The schema is in front of the search path; `{}` stands for its name.
    """
    name = f"site_{next(_NUMBERS)}"
    cdc = CdcConfig(slot=name, publication=name, topic_prefix=name)
    config = stack.config.model_copy(update={"cdc": cdc})
    with (
        psycopg.connect(**config.postgres.conninfo(), autocommit=True) as connection,
        ConnectClient(config.connect) as connect,
    ):
        site = Site(name, config, connection, connect)
        site.run(f"CREATE SCHEMA {name}", f"SET search_path = {name}, public", *statements)
        site.run(f"CREATE PUBLICATION {name} {published.replace('{}', name)}")
        create_slot(connection, name)
        asked = debezium_config(config, tables=[]) | {
            k: v.replace("{}", name) for k, v in settings.items()
        }
        connect.create(name, asked | {"table.include.list": f"{name}\\..*"})
        connect.wait_running(name)
        wait_until(f"{name} streams", lambda: _snapshotting(site), within=2 * WITHIN)
        yield site
        connect.stop(name)
        connect.wait_stopped(name)
        connect.delete_offsets(name)
        connect.delete(name)
        drop_slot(connection, name)
        site.run(f"DROP PUBLICATION {name}", f"DROP SCHEMA {name} CASCADE")


def _snapshotting(site: Site) -> str | None:
    slot, offsets = find_slot(site.connection, site.name), site.connect.offsets(site.name)
    if slot is None or not slot.active or not offsets:
        return "it does not stream yet"
    return "its snapshot goes on" if any(one.offset.get("snapshot") for one in offsets) else None


AWKWARD = {
    "keyless": "CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL",
    "by_columns": "CREATE TABLE by_columns (a int, b text, note text);"
    "ALTER TABLE by_columns REPLICA IDENTITY FULL",
    "composite": "CREATE TABLE composite (a int, b date, note text, PRIMARY KEY (b, a))",
    "parted": "CREATE TABLE parted (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);"
    "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (50);"
    "CREATE TABLE high PARTITION OF parted FOR VALUES FROM (50) TO (1000)",
    "Größe": 'CREATE TABLE "Größe" ("Nr der Kiste" int PRIMARY KEY, "Länge" text)',
    "made": "CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",
    "secret": "CREATE TABLE secret (id int PRIMARY KEY, hidden text, masked text, open text)",
    "partly": "CREATE TABLE partly (id int PRIMARY KEY, note text)",
    "long": "CREATE TABLE long (id int PRIMARY KEY, n int, body text, parts text[], raw bytea,"
    "numbers int[], doc jsonb)",
}
LONG = (
    "md5(g::text) || repeat('x', 9000), array_fill(md5(g::text), ARRAY[600]), "
    "decode(repeat(md5(g::text), 600), 'hex'), (SELECT array_agg(n * g) FROM generate_series(1, "
    "4000) n), (SELECT jsonb_object_agg(n, md5((n * g)::text)) FROM generate_series(1, 200) n)"
)


def rows(first: int, last: int) -> list[str]:
    """Insert rows into each of the awkward tables."""
    g = f"generate_series({first}, {last}) g"
    return [
        f"INSERT INTO keyless SELECT g, 'k' FROM {g}",
        f"INSERT INTO by_columns SELECT g, 'b' || g, 'n' FROM {g}",
        f"INSERT INTO composite SELECT g, date '2026-01-01' + g, 'n' FROM {g}",
        f"INSERT INTO parted SELECT g, 'n' FROM {g}",
        f"""INSERT INTO "Größe" SELECT g, 'Länge ' || g FROM {g}""",
        f"INSERT INTO made SELECT g FROM {g}",
        f"INSERT INTO secret SELECT g, 'hidden', 'masked', 'open' FROM {g}",
        f"INSERT INTO partly SELECT g, 'n' FROM {g}",
        f"INSERT INTO long SELECT g, 1, {LONG} FROM {g}",
    ]


CHANGES = [
    "UPDATE by_columns SET note = 'second' WHERE a % 2 = 0; DELETE FROM by_columns WHERE a = 5",
    "UPDATE composite SET note = 'second' WHERE a < 9; UPDATE composite SET a = 999 WHERE a = 9",
    "UPDATE parted SET id = id + 100 WHERE id = 7; UPDATE parted SET note = 'second' WHERE id > 50",
    """UPDATE "Größe" SET "Länge" = 'second'; DELETE FROM "Größe" WHERE "Nr der Kiste" = 3""",
    "UPDATE made SET id = 500 WHERE id = 4",
    "UPDATE secret SET hidden = 'other', masked = 'other', open = 'other' WHERE id < 9",
    "UPDATE partly SET note = 'second' WHERE id > 15",
    "UPDATE long SET n = 2 WHERE id % 2 = 0",
]


@pytest.mark.parametrize("via_root", ["false", "true"])
def test_awkward_tables_are_compared_or_named(stack: Stack, via_root: str) -> None:
    settings = ADJUSTED | {
        "message.key.columns": "{}.by_columns:a,b",
        "column.exclude.list": r"{}\.secret\.hidden",
        "column.mask.with.5.chars": r"{}\.secret\.masked",
    }
    names = ['"Größe"' if one == "Größe" else one for one in AWKWARD if one != "partly"]
    published = f"FOR TABLE {', '.join(names)}, partly WHERE (id > 10)"
    published += f" WITH (publish_via_partition_root = {via_root})"
    statements = [*AWKWARD.values(), *rows(1, 20)]
    with capturing(stack, statements, published, settings) as site:
        site.run(*rows(40, 60), *CHANGES)
        found = site.verdicts()
        wrong = {name: one for name, one in found.items() if one.outcome != PASS}
        assert wrong.keys() == {"keyless"}, wrong
        assert "events have no key" in wrong["keyless"].unknown[0]
        assert {"parted"} if via_root == "true" else {"low", "high"} <= found.keys()
        told = found["secret"].not_compared
        assert told == ("hidden: column.exclude.list", "masked: column.mask.with.5.chars")
        assert found["long"].rows == 41


WRITTEN = {"numeric", "numeric_nan", "money", "amount", "code", "numeric_array", "varbit"}
LEFT_OUT = {"citext", "ltree", "hstore", "last", *ALONE} - WRITTEN
"""Types of extensions, and those at which Debezium may fail."""


@pytest.mark.parametrize("converter", CONVERTERS)
def test_values_are_compared_in_every_mode(stack: Stack, converter: str) -> None:
    """Rows that the snapshot reads, and rows that are streamed."""
    prepare = [one for one in PREPARE.split(";") if "EXTENSION" not in one]
    for modes, told in MODES.items():
        left = LEFT_OUT | ({"timestamp"} if modes == "nanoseconds" else set())
        columns = {name: of for name, of in COLUMNS.items() if name not in left}
        types = ", ".join(f"c_{name} {kind}" for name, (kind, _) in columns.items())
        make = [*prepare, f"CREATE TABLE wide (id int PRIMARY KEY, {types})"]
        settings = {"decimal.handling.mode": "precise"} | CONVERTERS[converter] | told
        with capturing(stack, [*make, *_values(columns, 1)], "FOR TABLE wide", settings) as site:
            site.run(*_values(columns, 100))
            found = site.verdicts()["wide"]
            assert found.outcome == PASS, (modes, found.examples, found.doubts)


def _values(columns: Mapping[str, tuple[str, tuple[str, ...]]], first: int) -> list[str]:
    most = max(len(values) for _, values in columns.values())
    return [
        f"INSERT INTO wide VALUES ({first + n}, "
        + ", ".join(values[n % len(values)] for _, values in columns.values())
        + ")"
        for n in range(most)
    ]
