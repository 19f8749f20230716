"""CDC comes back after a recovery, and its topic tells exactly what the table holds."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
from confluent_kafka import Producer

from fixtures.stacks.protocol import Component, Stack
from pipeline.cdc.connectors import ConnectClient, ConnectorOffset
from pipeline.cdc.reconcile import HEADER, compared, reconcile, topic_ends
from pipeline.cdc.resnapshot import prepare_source, resnapshot, stop_connectors
from pipeline.cdc.topics import LiveKeys, live_keys
from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.wait import wait_until
from tests.cdc.source import Source, captured, reconciled, records

pytestmark = pytest.mark.stack

SOON = timedelta(seconds=60)
COLUMNS = "id int, part uuid, at timestamptz, day date, seen timestamp(3), amount numeric(9, 2)"
KEY = "PRIMARY KEY (part, id, at, day, seen, amount)"
VALUES = (
    "g, '00000000-0000-0000-0000-00000000000a'::uuid, '2026-03-01T02:03:04.5+02'::timestamptz + "
    "g * interval '1.000001 s', date '1969-12-31' + g, timestamp '2026-03-01 00:00:00.5' + "
    "g * interval '1 ms', g * 0.10"
)


@pytest.fixture
def source(stack: Stack) -> Iterator[Source]:
    rows = f"SELECT {VALUES}, 'first' FROM generate_series(1, 200) g"
    with captured(stack, "resnapshot", f"{COLUMNS}, state text, {KEY}", rows) as made:
        yield made


def test_after_a_recovery_the_topic_tells_exactly_what_the_table_holds(source: Source) -> None:
    """Rows vanish, change and come back without an event, as a recovery does it."""
    name, publication = source.name, source.publication
    source.run("DELETE FROM {} WHERE id = 200")
    source.wait_delivered()

    stopped = stop_connectors(source.connect, [name])
    assert stopped[name], "the offsets of the abandoned history are returned for the record"
    source.forget()
    source.run("DELETE FROM {} WHERE id <= 50")
    source.run("UPDATE {} SET state = 'earlier' WHERE id <= 60")
    source.run(f"INSERT INTO {{}} SELECT {VALUES}, 'undeleted' FROM generate_series(200, 200) g")

    prepared = prepare_source(source.connection, publication, name)
    assert prepared.mended == [f"publication '{name}' does not exist"]
    since = topic_ends(source.config, [source.table])
    resnapshot(source.connect, source.connection, name, name)

    found = reconcile(source.config, since=since, recovery="recovery-1")
    assert (found.ghosts, found.tombstones, found.missing) == (50, 50, 0), found
    again = reconcile(source.config, since=since, recovery="recovery-1")
    assert (again.ghosts, again.tombstones, again.missing) == (0, 0, 0), again

    written = reconciled(source)
    assert [r.headers() for r in written] == [[(HEADER, b"recovery-1")]] * 50
    assert all(r.value() is None for r in written)

    source.run(f"INSERT INTO {{}} SELECT {VALUES}, 'first write' FROM generate_series(300, 300) g")
    source.wait_delivered()
    assert b"first write" in records(source.config, source.topic)[-1].value()


def test_a_task_that_fails_meanwhile_is_restarted(stack: Stack, source: Source) -> None:
    """As when the registry comes back late, or a task that hung reports its end for another."""
    stop_connectors(source.connect, [source.name])
    publication = source.publication
    source.forget()
    prepare_source(source.connection, publication, source.name)
    source.run("ALTER TABLE {} ADD COLUMN so_that_a_schema_is_registered text")
    since = topic_ends(source.config, [source.table])
    stack.stop(Component.REGISTRY)
    with ThreadPoolExecutor() as pool:
        pool.submit(_start_after_failure, stack, source)
        resnapshot(source.connect, source.connection, source.name, source.name)
    assert reconcile(source.config, since=since, recovery="recovery-4").missing == 0


def test_offsets_that_an_abandoned_task_stores_again_do_not_count(source: Source) -> None:
    """As a task does that was cancelled because it did not stop in time, whenever it ends."""
    name, publication = source.name, source.publication
    source.run("UPDATE {} SET state = 'second' WHERE id = 1")
    source.wait_delivered()
    wait_until("its offset is stored", lambda: _still_of_snapshot(source), within=SOON)
    kept = stop_connectors(source.connect, [name])[name]
    source.forget()
    prepare_source(source.connection, publication, name)
    since = topic_ends(source.config, [source.table])
    with _Haunted(source.config.connect.url, kept) as connect:
        resnapshot(connect, source.connection, name, name)
        assert not connect.kept
    assert reconcile(source.config, since=since, recovery="recovery-7").missing == 0
    assert not set(map(str, kept)) & set(map(str, source.connect.offsets(name)))


class _Haunted(ConnectClient):
    """Connect, where the old offsets are back as soon as they have gone for the first time."""

    def __init__(self, url: str, kept: list[ConnectorOffset]) -> None:
        super().__init__(url)
        self.kept = kept

    def delete_offsets(self, name: str) -> None:
        super().delete_offsets(name)
        if self.kept:
            self.patch_offsets(name, self.kept)
            self.kept = []


def _still_of_snapshot(source: Source) -> str | None:
    offsets = source.connect.offsets(source.name)
    old = not offsets or any(stored.offset.get("snapshot") for stored in offsets)
    return str(offsets) if old else None


def _start_after_failure(stack: Stack, source: Source) -> None:
    def failed() -> str | None:
        return None if "FAILED" in str(source.connect.status(source.name)) else "not yet"

    wait_until("failure without a registry", failed, within=timedelta(seconds=60))
    stack.start(Component.REGISTRY)


def test_a_row_that_was_not_read_again_is_missing(source: Source) -> None:
    """An old event does not count: it may tell a state that the recovery took back."""
    source.run("UPDATE {} SET state = 'second' WHERE id = 1")
    source.wait_delivered()
    since = topic_ends(source.config, [source.table])
    source.run("UPDATE {} SET state = 'third' WHERE id = 2")
    source.wait_delivered()
    found = reconcile(source.config, since=since, recovery="recovery-2")
    assert (found.ghosts, found.missing) == (0, 199)
    assert len(found.topics[0].missing_examples) == 20


def test_a_row_whose_event_is_on_its_way_is_waited_for(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients write while the pipeline recovers: what they wrote last is late, and not missing."""
    since: dict[str, dict[int, int]] = {source.table: {}}
    source.run("UPDATE {} SET state = 'second' WHERE id = 1")
    source.wait_delivered()  # and with it every row of the snapshot
    source.connect.pause(source.name)
    wait_until("the task pauses", lambda: _not_paused(source), within=timedelta(seconds=30))
    source.run(f"INSERT INTO {{}} SELECT {VALUES}, 'late' FROM generate_series(300, 300) g")
    assert reconcile(source.config, since=since, recovery="recovery-5").missing == 1
    read = []

    def read_then_resume(
        kafka: KafkaConfig, topic: str, is_event: Callable[[bytes], bool]
    ) -> LiveKeys:
        read.append(live_keys(kafka, topic, is_event))
        if len(read) == 1:
            source.connect.resume(source.name)
        return read[-1]

    monkeypatch.setattr("pipeline.cdc.reconcile.live_keys", read_then_resume)
    minute = timedelta(seconds=60)
    found = reconcile(source.config, since=since, recovery="recovery-5", arriving=minute)
    assert (found.ghosts, found.missing) == (0, 0)
    assert len(read) > 1


def _not_paused(source: Source) -> str | None:
    told = str(source.connect.status(source.name))
    return None if told.count("PAUSED") > 1 else told  # the connector, and its task


def test_an_event_without_a_key_is_counted_and_stands_for_no_row(source: Source) -> None:
    """Debezium's, of a table that was dropped before it decoded the change."""
    since: dict[str, dict[int, int]] = {source.table: {}}
    producer = Producer(
        {"bootstrap.servers": source.config.kafka.bootstrap_servers, "log_level": 0}
    )
    producer.produce(source.topic, key=None, value=b"names no row")
    assert producer.flush(10) == 0
    found = reconcile(source.config, since=since, recovery="recovery-6", arriving=SOON)
    assert (found.ghosts, found.missing, found.topics[0].keyless) == (0, 0, 1)
    assert "1 events without a key name no row" in found.told


JSON = "org.apache.kafka.connect.json.JsonConverter"
PRECISE = {  # what Debezium does unasked, and the converter that Connect's examples have for keys
    "decimal.handling.mode": "precise",
    "key.converter": JSON,
    "key.converter.schemas.enable": "false",
}


def test_keys_are_recognised_whatever_wrote_them(stack: Stack) -> None:
    """Else all of them would be ghosts. What is no event is named, and gone on without."""
    columns = "id numeric(20, 0), code char(4), at timestamp, PRIMARY KEY (id, code, at)"
    rows = "SELECT g, g, 'infinity' FROM generate_series(1, 100) g"
    with captured(
        stack, "precise", columns, rows, suffix=' "Größe" $1', settings=PRECISE
    ) as source:
        stop_connectors(source.connect, [source.name])
        source.run("DELETE FROM {} WHERE id <= 30")
        kafka = {"bootstrap.servers": source.config.kafka.bootstrap_servers, "log_level": 0}
        producer = Producer(kafka)
        producer.produce(source.topic, key=b"\xff\xfe", value=b"{}")
        producer.produce(
            source.topic, key=records(source.config, source.topic)[0].key(), value=b"?"
        )
        assert producer.flush(10) == 0
        since: dict[str, dict[int, int]] = {source.table: {}}
        seen = compared(source.config, source.connection, source.table)
        assert (seen.trouble, len(seen.ghosts), seen.recognised) == (None, 30, 70)
        found = reconcile(source.config, since=since, recovery="recovery-8")
        assert (found.ghosts, found.tombstones, found.missing) == (30, 30, 0), found
        assert [one.partition(":")[0] for one in found.strangers] == [
            f"{source.topic}[0]@{offset}" for offset in (101, 100)
        ]
        source.connect.put_config(source.name, source.connect.config(source.name) | OTHERWISE)
        with pytest.raises(ServerError, match="0 of 70 rows are recognised"):
            reconcile(source.config, since=since, recovery="recovery-9")
        with _namesake(source), pytest.raises(ServerError, match=r"has the events of public.* and"):
            reconcile(source.config, since=since, recovery="recovery-9")
        left = reconcile(source.config, since=since, recovery="recovery-9", left_out=[source.topic])
        assert left.left_out == (source.topic,)
        assert len(reconciled(source)) == 30
        source.connect.resume(source.name)


@contextmanager
def _namesake(source: Source) -> Iterator[None]:
    """Publish another table that has the same name for Kafka."""
    same = source.topic.removeprefix(f"{source.name}.public.")
    source.connection.execute(f'CREATE TABLE "{same}" (id int)')
    source.connection.execute(f'CREATE PUBLICATION "{same}" FOR TABLE "{same}"')
    yield
    source.connection.execute(f'DROP PUBLICATION "{same}"; DROP TABLE "{same}"')


OTHERWISE = {"decimal.handling.mode": "string"}
"""By which a key of JSON without a schema, written before it was set, can only be misread."""


def test_nothing_is_buried_while_somebody_writes(source: Source) -> None:
    since = topic_ends(source.config, [source.table])
    with psycopg.connect(**source.config.postgres.conninfo()) as writer:
        writer.execute(f"DELETE FROM {source.table} WHERE id = 1")
        with pytest.raises(ServerError, match="keep clients out"):
            reconcile(
                source.config,
                since=since,
                recovery="recovery-3",
                lock_within=timedelta(milliseconds=200),
            )
        writer.rollback()
    assert not reconciled(source)


def test_a_running_connector_is_not_re_snapshotted(source: Source) -> None:
    with pytest.raises(ServerError, match="must be STOPPED"):
        resnapshot(source.connect, source.connection, source.name, source.name)


def test_the_slot_of_a_running_connector_is_not_taken_from_it(source: Source) -> None:
    with pytest.raises(ServerError, match="is active"):
        prepare_source(
            source.connection, source.publication, source.name, within=timedelta(seconds=0.5)
        )


def test_a_table_that_the_recovery_emptied_leaves_nothing_in_its_topic(source: Source) -> None:
    """No row is read again and no record says that the snapshot ended; it ends all the same."""
    name, publication = source.name, source.publication
    stop_connectors(source.connect, [name])
    source.forget()
    source.run("TRUNCATE {}")
    prepare_source(source.connection, publication, name)
    since = topic_ends(source.config, [source.table])
    resnapshot(source.connect, source.connection, name, name, within=timedelta(seconds=30))
    found = reconcile(source.config, since=since, recovery="recovery-4")
    assert (found.ghosts, found.missing) == (200, 0), found
