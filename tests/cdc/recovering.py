"""One captured table whose CDC is broken and recovered, and what must hold behind it."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from fixtures.stacks.native import NativeStack
from pipeline.cdc.reconcile import compared
from pipeline.cdc.state import kept
from pipeline.postgres.replication.slots import find_slot, unread
from pipeline.postgres.server.control import identifier_of
from pipeline.postgres.server.session import environment
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository import marker
from pipeline.repository.journal import Journal
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.cdc import Asked, CdcRecovery, new_recovery
from pipeline.wait import wait_until
from tests.cdc.source import WITHIN, Source, captured


@dataclass
class Broken:
    """A source whose state is backed up; `said` is what its recoveries told people."""

    source: Source
    password_file: Path
    said: list[str] = field(default_factory=list)

    def recovery(self, asked: Asked | None = None, journal: Journal | None = None) -> CdcRecovery:
        config = self.source.config
        identity = identifier_of(self.source.connection) or ""
        made = journal or new_recovery(config)
        return CdcRecovery(config, asked or Asked(), made, identity, progress=self.said.append)

    def recovered(self) -> None:
        """Every row has its event, nothing else has one, and the next change arrives."""
        source = self.source
        source.run("INSERT INTO {} VALUES (777, 'behind the recovery')")
        source.wait_delivered()
        found = compared(source.config, source.connection, source.table)
        assert (found.trouble, list(found.ghosts), list(found.missing)) == (None, [], [])
        source.run("DELETE FROM {} WHERE id = 777")

    @property
    def rows(self) -> Sequence[Any]:
        query = f"SELECT id, note FROM {self.source.table} ORDER BY id"
        return self.source.connection.execute(query.encode()).fetchall()

    @property
    def secrets(self) -> dict[str, str]:
        """Where the password is that the set has masked."""
        return {"database.password": str(self.password_file)}

    def patch(self, lsn: Lsn) -> None:
        """Say that everything up to there was delivered."""
        connect, name = self.source.connect, self.source.name
        [last] = connect.offsets(name)
        position = dict.fromkeys(("lsn", "lsn_commit", "lsn_proc"), int(lsn))
        connect.patch_offsets(name, [replace(last, offset=last.offset | position)])

    def no_task_runs(self) -> str | None:
        """A condition: the connector has a task, and it does not stream."""
        running = find_slot(self.source.connection, self.source.name)
        status = self.source.connect.status(self.source.name)
        return None if status.tasks and running else "no task yet"

    @contextmanager
    def held(self) -> Iterator[int]:
        """Have a process hold the slot that neither reads nor answers; the server's own number."""
        postgres, name = self.source.config.postgres, self.source.name
        with Tools.of(postgres).popen(
            "pg_recvlogical",
            *("--dbname", f"dbname={postgres.dbname} application_name=hung"),
            *("--host", postgres.host, "--port", str(postgres.port), "--user", postgres.user),
            *("--slot", name, "--start", "--file", os.devnull, "--no-loop"),
            *("--option", "proto_version=1", "--option", f"publication_names={name}"),
            env=environment(postgres),
        ) as process:
            try:
                reads = partial(unread, self.source.connection, name)
                wait_until("a reader", reads, within=WITHIN)
                os.kill(process.pid, signal.SIGSTOP)
                query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
                row = self.source.connection.execute(query, [name]).fetchone()
                yield row[0] if row else 0
            finally:
                process.kill()

    def forget_topics(self) -> None:
        """Have Connect forget which topics the connector has written to (KIP-558)."""
        url = f"{self.source.connect.url}/connectors/{self.source.name}/topics"
        httpx.put(f"{url}/reset").raise_for_status()

        def told() -> str | None:
            topics = self.source.connect.topics(self.source.name)
            return f"Connect tells of {topics}" if topics else None

        wait_until("topics forgotten", told, within=WITHIN)

    def stop(self) -> None:
        self.source.connect.stop(self.source.name)
        self.source.connect.wait_stopped(self.source.name)

    def change(self) -> None:
        """An insert, an update and a delete that nobody reads meanwhile."""
        self.source.run("INSERT INTO {} VALUES (100, 'inserted')")
        self.source.run("UPDATE {} SET note = 'changed' WHERE id = 1")
        self.source.run("DELETE FROM {} WHERE id = 2")


@contextmanager
def broken(stack: NativeStack, folder: Path, moved: str = "", **settings: str) -> Iterator[Broken]:
    """Capture a table of three rows, with a repository of its own that holds the state."""
    rows, columns = (
        "SELECT g, 'first' FROM generate_series(1, 3) g",
        "id int PRIMARY KEY, note text",
    )
    with captured(stack, "broken", columns, rows, settings=settings, moved=moved) as one:
        source = _kept(one, folder, "INSERT INTO {} VALUES (4, 'streamed')")
        yield Broken(source, stack.password_file)


@contextmanager
def broken_outbox(stack: NativeStack, folder: Path) -> Iterator[Broken]:
    """Capture an outbox: its events go where its rows say, and have no envelope."""
    columns = "id int PRIMARY KEY, aggregatetype text, aggregateid text, payload text"
    none = "SELECT 0, '', '', '' WHERE false"
    router = {
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    }
    with captured(stack, "outbox", columns, none, settings=router) as one:
        source = _kept(one, folder, "INSERT INTO {} VALUES (1, 'order', '1', 'sent')")
        yield Broken(source, stack.password_file)


def _kept(one: Source, folder: Path, change: str) -> Source:
    """Have a change delivered, and back the state up into a repository there."""
    marker.make(str(folder))
    place = one.config.repository.model_copy(update={"path": folder})
    source = replace(one, config=one.config.model_copy(update={"repository": place}))
    source.run(change)
    source.wait_delivered()
    kept.take(source.config, Repository(FolderStore(folder)))
    return source
