"""Each precondition of a recovery of CDC refuses what would end it behind the fence.

One server for all, and a reading that is made here: nothing is stopped.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from fixtures import cdc_states
from fixtures.cdc_states import CONNECTOR, OTHER, PUBLICATION, SLOT
from fixtures.stacks.native import NativeStack
from pipeline.cdc.state import brokers as state_brokers
from pipeline.cdc.state.connect import StoredOffset
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Reading, SeenSlot, ServiceTable, Unread
from pipeline.config import KafkaConfig
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster import topics as brokers
from pipeline.postgres.replication.publications import changed_tables, find_publication
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import cdc_preconditions
from pipeline.runbooks.cdc import Asked, Way
from pipeline.runbooks.cdc_evidence import Evidence
from pipeline.runbooks.runbook import Precondition
from tests.recovery.history import Source
from tests.recovery.workers import Topics, worker

ROUTER = {
    "transforms": "r",
    "transforms.r.type": "org.apache.kafka.connect.transforms.RegexRouter",
}
CREATED = "create publication dbz_publication for table notes, orders"
Recovering = Callable[..., Any]


class Seen(Evidence):
    """What a recovery goes by, and what its preconditions say."""

    def __call__(self, name: str) -> list[str]:
        """Ask the precondition of that name."""
        return self.named(name).problems()

    def named(self, name: str) -> Precondition:
        (one,) = (one for one in cdc_preconditions.listed(self, ()) if one.name == name)
        return one


@pytest.fixture(scope="module")
def server(breakable: NativeStack) -> Source:
    breakable.make_clean()
    source = Source(breakable).prepared()
    source.run("create table orders (id int primary key)", CREATED)
    return source


@contextmanager
def recovering(
    server: Source,
    *,
    settings: dict[str, str] | None = None,
    topics: Topics | None = None,
    change: Callable[[Reading], Reading] = lambda now: now,
    gone: bool = False,
    **asked: Any,  # noqa: ANN401 - as Asked has them
) -> Iterator[Seen]:
    """Have a connector with these settings beside the others, and be about to recover it."""
    config, database = server.config, server.config.postgres.dbname
    told = {**CONNECTOR.config, "database.dbname": database, **(settings or {})}
    with server.connect() as connection:
        found = find_publication(connection, config.cdc.publication)
    assert found is not None
    published = PUBLICATION.model_copy(update={"database": database, "publication": found})
    slot = SeenSlot(**{**vars(SLOT), "database": database})
    now = cdc_states.with_(
        cdc_states.connector(config=told), publications=(published,), slots=(slot,)
    )
    with worker({} if gone else {"shop": told}, topics=topics) as url:
        connect = config.connect.model_copy(update={"url": url})
        config = config.model_copy(update={"connect": connect})
        nothing = Repository(FolderStore(config.repository.path))
        seen = Seen(config, nothing, Asked(**asked), lambda _: None)
        seen.now, seen.backup = change(now), None
        yield seen


TABLES = ("settings", "offset", "slot-kept", "deleted", "left-out", "captured", "topics")
_SERVER = ("server", "slot", "connectors", "publication", "room", "state")


@pytest.mark.parametrize("name", [*_SERVER, *TABLES])
def test_nothing_stands_in_the_way_of_a_sound_connector(server: Source, name: str) -> None:
    with recovering(server) as seen:
        assert seen(name) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"publication.name": "reports"}, "shop has publication.name=reports, and [cdc] says"),
        ({"topic.prefix": "shpo"}, "shop has topic.prefix=shpo, and [cdc] says shop"),
        ({"slot.name": "other"}, "shop has slot.name=other, and [cdc] says debezium"),
    ],
)
def test_a_connector_that_reads_or_writes_elsewhere_is_told(
    server: Source, settings: dict[str, str], told: str
) -> None:
    with recovering(server, settings=settings) as seen:
        (found,) = seen("settings")
    assert told in found


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"table.include.list": r"public\.orders"}, "leaves it out by table.include.list"),
        (
            {"snapshot.include.collection.list": r"public\.orders"},
            "not read again, by snapshot.include.collection.list",
        ),
    ],
)
def test_a_table_whose_rows_would_have_no_event_is_told(
    server: Source, settings: dict[str, str], why: str
) -> None:
    with recovering(server, settings=settings) as seen:
        (found,) = seen("captured")
    assert "public.notes" in found
    assert why in found
    for name in ("public.notes", '"public"."notes"', "shop.public.notes"):
        with recovering(server, settings=settings, without_topics=[name]) as seen:
            assert seen("captured") == []


def test_rows_that_a_topic_keeps_on_purpose_are_told_before_they_are_buried(
    server: Source,
) -> None:
    with recovering(server, settings={"skipped.operations": "t, D"}) as seen:
        found = seen("deleted")
    told = "shop skips deletions (skipped.operations): shop.public."
    assert found == [f"{told}{table} keeps rows" for table in ("notes", "orders")]
    both = ["public.notes", "public.orders"]
    with recovering(server, settings={"skipped.operations": "d"}, without_topics=both) as seen:
        assert seen("deleted") == []


def test_all_tables_are_asked_for_where_all_of_them_are_published(server: Source) -> None:
    """As Debezium makes a publication itself; partitions stand for the whole."""
    server.run(
        "drop publication dbz_publication",
        "create table parts (id int primary key) partition by range (id)",
        "create table part_1 partition of parts for values from (0) to (9)",
        "create publication dbz_publication for all tables",
    )
    try:
        with recovering(server, settings={"table.include.list": "public.(notes|orders)"}) as seen:
            found = seen("captured")
    finally:
        server.run("drop publication dbz_publication", "drop table parts", CREATED)
    named = [one.partition(" is published")[0] for one in found]
    assert named == ["public.documents", "public.part_1"]


BEATS = ServiceTable(
    connector="shop", use="heartbeats", table="public.notes", present=True, published=True
)


@pytest.mark.parametrize(
    ("table", "settings", "out"),
    [
        (BEATS, {"table.include.list": "public.orders"}, ["public.notes"]),
        (BEATS, {}, []),
        (BEATS.model_copy(update={"use": "outbox"}), {}, ["public.notes"]),
        (BEATS.model_copy(update={"use": "outbox", "published": False}), {}, ["public.notes"]),
        (BEATS.model_copy(update={"use": "signals", "connector": "theirs"}), {}, []),
        (BEATS.model_copy(update={"use": "signals", "table": "public.gone"}), {}, []),
    ],
    ids=[
        "a heartbeat that is not captured",
        "a heartbeat that is",
        "an outbox",
        "an outbox that fell out of the publication",
        "signals of another team",
        "signals that are not published",
    ],
)
def test_only_tables_of_our_own_connectors_hold_no_data(
    server: Source, table: ServiceTable, settings: dict[str, str], out: list[str]
) -> None:
    with recovering(
        server, settings=settings, change=lambda now: cdc_states.with_(now, service_tables=(table,))
    ) as seen:
        assert seen.left_out == out
        assert seen("captured") == []


def test_a_name_to_be_left_out_that_nothing_has_is_told(server: Source) -> None:
    with recovering(server, without_topics=["shop.public.notse", "public.orders"]) as seen:
        (found,) = seen("left-out")
    assert found.startswith("shop.public.notse is no published table")


def test_topics_that_a_transform_names_and_nobody_tells_are_told(server: Source) -> None:
    """Connect tells of none where topic.tracking.enable is false: it answers with an error."""
    with recovering(server, settings=ROUTER) as seen:
        found, named = seen("topics"), seen.named("topics")
    assert len(found) == 2
    assert "UNKNOWN" in found[0]
    assert "transform r (RegexRouter) of shop names topics, and Connect tells of none" in found[0]
    assert named.waiver == "--without-topic with each table"
    both = ["public.notes", "public.orders"]
    with recovering(server, settings=ROUTER, without_topics=both) as seen:
        assert seen("topics") == []


def test_a_connector_that_is_gone_tells_of_no_topics_either(server: Source) -> None:
    with recovering(server, settings=ROUTER, gone=True) as seen:
        seen.known = seen.now
        seen.now = cdc_states.with_(seen.now, connectors=())
        found = seen("topics")
    assert len(found) == 2
    assert "RegexRouter) of shop, which is gone, names topics" in found[0]


def test_an_offset_that_nobody_can_tell_for_the_connectors_own_is_told(server: Source) -> None:
    """Where its prefix is a reference, and the one that is configured has none."""
    two = [StoredOffset(partition={"server": one}, offset={"lsn": 7}) for one in ("old", "new")]

    def referring(now: Reading) -> Reading:
        told = now.connectors[0].config | {"topic.prefix": "${file:/a:b}"}
        return cdc_states.connector(
            now, config=told, offsets=tuple(two), resolved={"topic.prefix": "shop"}
        )

    with recovering(server, change=referring) as seen:
        (found,) = seen("offset")
    assert "offsets are stored for 'old' and 'new'" in found
    with recovering(server, change=referring, way=Way.REREAD) as seen:
        assert seen("offset") == []


def test_a_connector_that_drops_its_slot_when_it_is_stopped_is_told(server: Source) -> None:
    """To stop it would lose what it has not delivered; of one that has no task all is lost."""
    settings = {"slot.drop.on.stop": "true"}
    with recovering(server, settings=settings) as seen:
        (found,) = seen("slot-kept")
    assert found.startswith("shop has slot.drop.on.stop=true")
    with recovering(server, settings=settings, way=Way.REREAD) as seen:
        assert "slot-kept" not in {one.name for one in cdc_preconditions.listed(seen, ())}


def test_a_list_that_only_java_understands_is_unknown(server: Source) -> None:
    with recovering(server, settings={"table.include.list": r"public\.\p{Lower}+"}) as seen:
        (found,) = seen("captured")
    assert found.startswith("cannot be found out: whether")


def test_what_was_not_read_is_told_once(server: Source) -> None:
    unread = Unread(part=Part.CONNECTORS, why="http://connect does not answer")
    with recovering(server, change=partial(cdc_states.with_, unread=(unread,))) as seen:
        assert seen("state") == [str(unread)]
        assert [seen(name) for name in TABLES] == [[]] * len(TABLES)


def test_a_standby_and_one_that_does_not_decode_are_told(server: Source) -> None:
    with recovering(server, change=partial(cdc_states.server, in_recovery=True)) as seen:
        assert seen("server") == ["the server is a standby"]
    with recovering(server, change=partial(cdc_states.server, wal_level="replica")) as seen:
        assert seen("server") == ["wal_level is 'replica', expected 'logical'"]


def test_a_slot_of_others_is_told(server: Source) -> None:
    with recovering(server, change=partial(cdc_states.slot, plugin="wal2json")) as seen:
        (found,) = seen("slot")
    assert found.startswith("slot 'debezium' is logical, wal2json, ")


def test_a_publication_that_names_what_is_not_there_is_told(server: Source) -> None:
    with recovering(server) as seen:
        told = seen.now.publications[0].publication
        gone = type(told)(**{**vars(told), "schemas": ("nowhere",), "owner": "nobody"})
        published = PUBLICATION.model_copy(update={"database": "postgres", "publication": gone})
        seen.known = cdc_states.with_(seen.now, publications=(published,))
        seen.now = cdc_states.with_(seen.now, publications=())
        assert seen("publication") == [
            "schema nowhere is not there",
            "role nobody is not there, which owned the publication",
        ]


def test_a_new_slot_must_have_a_place(server: Source) -> None:
    with server.connect() as connection:
        (row,) = connection.execute("select current_setting('max_replication_slots')::int")
    others = tuple(SeenSlot(**{**vars(OTHER), "name": f"o{n}"}) for n in range(row[0]))
    with recovering(server, change=partial(cdc_states.with_, slots=others)) as seen:
        assert seen("room") == [f"all {row[0]} replication slots are in use"]


def test_a_connector_in_no_set_is_told(server: Source) -> None:
    with recovering(server, change=partial(cdc_states.with_, connectors=())) as seen:
        assert seen("connectors") == [
            "no connector reads slot 'debezium', and none in the set does"
        ]


def test_a_stretch_that_cannot_be_decoded_again_is_told(server: Source) -> None:
    """By the connector's settings, and by what the archive holds; only where it was asked for."""
    dropped = partial(cdc_states.with_, slots=())
    routed = {"transforms": "t", "transforms.t.type": "org.apache.kafka.connect.transforms.Cast"}
    with recovering(server, settings=routed, change=dropped, way=Way.REDECODE) as seen:
        told = seen("redecode")
    assert any("transforms=t may give events another form" in line for line in told)
    with recovering(server, change=dropped, way=Way.REDECODE) as seen:
        assert any("holds no base backup" in line for line in seen("redecode"))
    with recovering(server, change=dropped) as seen:
        assert seen("redecode") == []


def test_rows_are_read_again_by_signal_only_where_signals_are_heard(server: Source) -> None:
    with recovering(server, way=Way.SIGNAL) as seen:
        assert seen("signal") == ["connector 'shop' has no table for signals"]


def test_brokers_and_a_registry_that_do_not_answer_are_told(
    server: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "SECONDS", 0.2)
    monkeypatch.setattr(momentary, "PATIENCE", timedelta(seconds=0.3))
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, recovering(server) as seen, worker({}, path="elsewhere") as url:
        registry = seen.config.registry.model_copy(update={"url": url})
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        kafka = seen.config.kafka.model_copy(update={"bootstrap_servers": address})
        seen.config = seen.config.model_copy(update={"registry": registry, "kafka": kafka})
        for name in ("kafka", "registry"):
            (found,) = seen(name)
            assert found.startswith("cannot be found out: ")


def test_a_database_is_read_whose_only_reader_has_lost_its_slot(
    server: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its publication is there: what was not looked for is no missing one."""
    monkeypatch.setattr(state_brokers, "GLANCE", 0.2)
    server.run("create database apart")
    config = server.config.model_copy(
        update={"kafka": KafkaConfig(bootstrap_servers="127.0.0.1:1")}
    )
    there = {"database.dbname": "apart", "slot.name": "gone", "connector.class": "Postgres"}
    try:
        with psycopg.connect(**config.postgres.conninfo(dbname="apart")) as connection:
            connection.execute("create publication dbz_publication for all tables")
        with worker({"theirs": {**CONNECTOR.config, **there}}) as url:
            connect = config.connect.model_copy(update={"url": url})
            found = read(config.model_copy(update={"connect": connect}))
    finally:
        server.run("drop database apart")
    assert found.publication("apart", "dbz_publication") is not None
    assert [each.name for each in found.connectors] == ["theirs"]


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize(
    "of",
    [
        "all tables",
        "tables in schema s",
        "table s.whole",
        "table s.one, public.orders",
        "table s.whole, s.one",
        "table public.notes, tables in schema s",
    ],
)
def test_the_tables_of_a_publication_are_those_that_the_server_publishes(
    server: Source, of: str, *, root: bool
) -> None:
    with server.connect() as connection:
        connection.execute(
            "create schema s; create table s.whole (id int) partition by list (id);"
            "create table s.half partition of s.whole for values in (1, 2) partition by list (id);"
            "create table s.one partition of s.half for values in (1);"
            "create table s.other partition of s.whole for values in (3);"
            "create unlogged table s.passing (id int); create table s.plain (id int)"
        )
        made = f"create publication p for {of} with (publish_via_partition_root = {root})"
        try:
            connection.execute(made.encode())
            rows = connection.execute(
                "select schemaname || '.' || tablename from pg_publication_tables"
                " where pubname = 'p' order by 1"
            ).fetchall()
            found = find_publication(connection, "p")
            assert found is not None
            assert changed_tables(connection, found) == [name for (name,) in rows]
        finally:
            connection.execute("drop publication if exists p; drop schema s cascade")
