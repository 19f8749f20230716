"""After a lost slot every event comes once and in its order: a control slot says which."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.stacks.native import NativeStack
from pipeline.cdc.stand_in import ChangePlace, StandIn
from pipeline.cdc.wire import Decoder as WireDecoder
from pipeline.postgres.base import base_backup
from pipeline.postgres.redecode.pgoutput import Change, Decoder
from pipeline.postgres.replication.slots import create_slot, drop_slot
from pipeline.postgres.wal.lsn import Lsn
from pipeline.registry.client import RegistryClient
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.cdc.recovering import Broken, broken
from tests.cdc.source import records
from tests.recovery.interrupted import Power

pytestmark = pytest.mark.stack

CONTROL = "control_of_redecode"
READ = (
    "SELECT lsn::text, data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL,"
    " 'proto_version', '1', 'publication_names', %s)"
)
LETTERS = {"insert": "c", "update": "u", "delete": "d"}
CHANGES = 103
"""How many rows `live_on` changes, and messages that it emits."""
STEPS = ("look", "fence", "topics", "connectors", "judge", "source", "redecode", "reconnect")
Told = tuple[int, int, str]
"""Position, transaction and operation."""


@contextmanager
def archived(stack: NativeStack, tmp_path: Path, **settings: str) -> Iterator[Broken]:
    """A source with a base backup, whose WAL is archived, and a control slot beside it."""
    folder = stack.folder / "scratch" / tmp_path.name  # the server's owner can read it there
    with broken(stack, folder, **settings) as made:
        (folder / "wal").symlink_to(stack.config.repository.path / "wal")
        base_backup.take(made.source.config, Repository(FolderStore(folder)))
        create_slot(made.source.connection, CONTROL)
        try:
            yield made
        finally:
            drop_slot(made.source.connection, CONTROL)


def live_on(cdc: Broken) -> None:
    """What no re-read tells: states in between, rows that come and go, keys that change."""
    run, table = cdc.source.run, cdc.source.table
    run("INSERT INTO {} SELECT g, repeat('x', 10000) FROM generate_series(100, 140) g")
    run("UPDATE {} SET note = 'one' WHERE id = 1")
    run("UPDATE {} SET note = 'two' WHERE id = 1")
    run("DELETE FROM {} WHERE id = 2")
    with psycopg.connect(**cdc.source.config.postgres.conninfo()) as beside:
        beside.execute(f"UPDATE {table} SET note = 'late' WHERE id = 4".encode())
        run("UPDATE {} SET id = 300 WHERE id = 3")
        cdc.source.connection.execute("SELECT pg_log_standby_snapshot()")
        run("INSERT INTO {} VALUES (901, 'between')")
        beside.execute(f"INSERT INTO {table} VALUES (902, 'late')".encode())
    cdc.source.connection.execute("SELECT pg_logical_emit_message(false, 'app', 'at once')")
    cdc.source.connection.execute("SELECT pg_logical_emit_message(true, 'app', 'committed')")
    run("INSERT INTO {} VALUES (900, 'comes')")
    run("DELETE FROM {} WHERE id = 900")
    with cdc.source.connection.cursor().copy(f"COPY {table} FROM STDIN") as rows:
        rows.write("".join(f"{number}\tcopied\n" for number in range(1000, 1050)))
    cdc.source.connection.execute("SELECT pg_log_standby_snapshot()")
    run("ALTER TABLE {} ADD COLUMN late int DEFAULT 7")
    run("UPDATE {} SET note = 'three', late = 3 WHERE id = 1")


def of_slot(cdc: Broken) -> Iterator[Told]:
    """What the control slot says, as Debezium tells it: a change of the key is two events."""
    decoder = Decoder()
    rows = cdc.source.connection.execute(READ, [CONTROL, cdc.source.name]).fetchall()
    for lsn, data in rows:
        event = decoder.decode(bytes(data), Lsn.parse(lsn))
        if isinstance(event, Change):
            moved = event.operation == "update" and event.old is not None
            for letter in "dc" if moved else LETTERS[event.operation]:
                yield int(event.lsn), event.transaction.xid, letter


def of_topic(cdc: Broken, since: int) -> Iterator[Told]:
    """Events of the only partition behind an offset."""
    with RegistryClient(cdc.source.config.registry) as registry:
        decoder = WireDecoder(registry.schema_by_id)
        for record in records(cdc.source.config, cdc.source.topic)[since:]:
            if record.value() is not None:
                told: Mapping[str, Any] = decoder.message(record.value()).values
                yield told["source"]["lsn"], told["source"]["txId"], told["op"]


@contextmanager
def lost(stack: NativeStack, tmp_path: Path) -> Iterator[tuple[Broken, Callable[[], None]]]:
    """A slot that was dropped, and what must hold once the rest of its stretch was told."""
    with archived(stack, tmp_path) as cdc:
        since = len(records(cdc.source.config, cdc.source.topic))
        cdc.source.run("INSERT INTO {} VALUES (5, 'told'), (6, 'told')")
        cdc.source.wait_delivered()
        cdc.stop()
        drop_slot(cdc.source.connection, cdc.source.name)
        # the side server's slot is confirmed there before anything is told
        cdc.source.connection.execute("SELECT pg_log_standby_snapshot()")
        live_on(cdc)

        def nothing_is_lost() -> None:
            cdc.source.run("UPDATE {} SET note = 'behind it' WHERE id = 1")
            cdc.source.wait_delivered()
            assert list(of_topic(cdc, since)) == list(of_slot(cdc))
            cdc.recovered()

        yield cdc, nothing_is_lost


def test_a_dropped_slot_loses_nothing(stack: NativeStack, tmp_path: Path) -> None:
    with lost(stack, tmp_path) as (cdc, nothing_is_lost):
        assert any(line.startswith("by redecode: ") for line in cdc.recovery().plan())
        recovery = cdc.recovery()
        recovery.run()
        done = recovery.done["redecode"]
        assert (done["missing"], done["produced"], done["repeated"]) == (CHANGES, CHANGES, {})
        assert recovery.done["reconnect"]["reread"] is False
        assert cdc.source.connect.names() == [cdc.source.name]
        nothing_is_lost()


@pytest.mark.slow
@pytest.mark.parametrize("step", [*STEPS, "told", "telling"])
def test_killed_behind_any_step_it_tells_the_rest_and_no_more(
    stack: NativeStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with lost(stack, tmp_path) as (cdc, nothing_is_lost):
        recovery, told = cdc.recovery(), StandIn.tell

        def strike(at: str, _facts: object) -> None:
            if at == step:
                raise Power

        def tell(one: StandIn, begins: Mapping[str, Any], last: ChangePlace) -> None:
            if step == "telling":  # it runs on, and nobody stops it
                one.client.resume(one.name)
            else:
                told(one, begins, last)
            monkeypatch.setattr(StandIn, "remove", lambda _: None)
            raise Power

        recovery.observe = strike
        with monkeypatch.context() as patch:
            if step not in STEPS:
                patch.setattr(StandIn, "tell", tell)
            with pytest.raises(Power):
                recovery.run()
        monkeypatch.undo()
        again = cdc.recovery(journal=recovery.journal)
        again.run()
        assert again.done["redecode"]["repeated"] == {}
        nothing_is_lost()
