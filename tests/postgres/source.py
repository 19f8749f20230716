"""A server that archives what is done on it, and what `pipeline find` says of that."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from fixtures.stacks.artifacts import installed
from fixtures.stacks.ports import Ports
from pipeline.postgres.base.inventory import table_inventory
from pipeline.postgres.history.find import Findings, find
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools
from pipeline.wait import wait_until
from tests.quiet import QUIET

SOON = timedelta(seconds=30)


class Source:
    """A server that archives into its own repository."""

    def __init__(self, root: Path, port: int) -> None:
        self.tools = Tools(installed().postgres / "bin")
        self.repository = root / "repo"
        self.archive = self.repository / "wal"
        self.archive.mkdir(parents=True)
        self.server = LocalServer(root / "data", self.tools, root / "log")
        self._port = port
        self.tools.own(root)

    def initialise(self) -> None:
        options = (
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--wal-segsize=1",
            "--encoding=UTF8",
        )
        self.tools.run("initdb", *options, "-D", self.server.data)

    def start(self) -> None:
        settings = {
            "port": str(self._port),
            "unix_socket_directories": "",
            "wal_level": "logical",
            **QUIET,
            "max_prepared_transactions": "2",
            "dynamic_shared_memory_type": "mmap",
            "archive_mode": "on",
            # a segment has its name only once it is whole
            "archive_command": f"test ! -f {self.archive}/%f && cp %p {self.archive}.%f"
            f" && mv {self.archive}.%f {self.archive}/%f",
        }
        self.server.start(settings)
        wait_until("connection", self._unready, within=SOON)

    def _unready(self) -> str | None:
        try:
            self.connect().close()
        except psycopg.OperationalError as error:
            return str(error)
        return None

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host="127.0.0.1", port=self._port, user="postgres", autocommit=True)

    def run(self, *statements: str) -> Any:  # noqa: ANN401 - whatever the last one answers
        with self.connect() as connection:
            for statement in statements:
                answer = connection.execute(statement.encode())
            return answer.fetchone() if answer.description else None

    def transaction(self, *statements: str) -> int:
        """Run as one transaction and return its id."""
        with self.connect() as connection, connection.transaction():
            for statement in statements:
                connection.execute(statement.encode())
            row = connection.execute("select pg_current_xact_id()::text").fetchone()
        assert row is not None
        return int(row[0])

    def facts(self) -> dict[str, Any]:
        """What the manifest of a base backup taken now would say."""
        (lsn,) = self.run("select pg_current_wal_insert_lsn()::text")
        (database,) = self.run("select oid::bigint from pg_database where datname = 'postgres'")
        with self.connect() as connection:
            tables = table_inventory(connection, exact=True)
        timeline = int(
            self.run("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")[0], 16
        )
        return {
            "timeline": timeline,
            "start_lsn": lsn,
            "database_oid": database,
            "tables": tables,
        }

    def archive_all(self) -> str:
        """Switch segments and return the name of the last archived one."""
        # an empty segment is not switched, and never archived
        message = "select pg_logical_emit_message(false, 'test', '')"
        (name,) = self.run(message, "select pg_walfile_name(pg_switch_wal())")

        def archived() -> str | None:
            return None if (self.archive / name).exists() else f"{name} is not archived"

        wait_until("archiving", archived, within=SOON)
        return str(name)

    def find(
        self,
        facts: dict[str, Any],
        table: str,
        **options: Any,  # noqa: ANN401 - as `find` takes them
    ) -> Findings:
        self.archive_all()
        return find(self.repository, self.tools, backup_facts=facts, table=table, **options)


@contextmanager
def running_source() -> Iterator[Source]:
    """A fresh server, readable by the user that it runs as."""
    ports = Ports()
    with tempfile.TemporaryDirectory(prefix="find-") as folder:
        source = Source(Path(folder), ports.take())
        source.initialise()
        source.start()
        try:
            yield source
        finally:
            source.server.stop()
            ports.close()


def copy_of(source: Source, folder: Path) -> Path:
    """A copy of the repository that the server's user may read, which pytest's folder is not."""
    copy = source.repository.parent / folder.name
    shutil.copytree(source.repository, copy)
    source.tools.own(copy)
    return copy
