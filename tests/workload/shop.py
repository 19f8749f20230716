"""A server with an empty shop, and what its clients' ledger says of it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from pydantic import SecretStr

from fixtures import cache
from fixtures.ledger import Classification, Ledger, classify
from fixtures.ledger.decision import Beyond
from fixtures.ledger.survivors import postgres_survivors
from fixtures.stacks.artifacts import installed
from fixtures.stacks.ports import Ports
from fixtures.stacks.postgres import PostgresServer
from fixtures.stacks.runs import Run
from fixtures.workload import Workload, create_shop
from pipeline.config import PostgresConfig
from pipeline.postgres.server.tools import Tools

PASSWORD = "not a secret"  # noqa: S105 - of a server that lives for one test
SOON = timedelta(seconds=30)


@dataclass(frozen=True)
class Shop:
    """A server of this test's own, with an empty shop."""

    server: PostgresServer
    config: PostgresConfig
    ledger: Ledger

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.config.conninfo(), autocommit=True)

    def workload(self, **settings: Any) -> Workload:  # noqa: ANN401 - as Workload takes them
        return Workload(self.config.conninfo(), self.ledger, seed=1, **settings)

    def classify(
        self,
        fault: float | None = None,
        fenced: float | None = None,
        beyond: Beyond | None = None,
    ) -> Classification:
        with self.connect() as connection:
            survivors = postgres_survivors(connection)
            return classify(
                self.ledger, {"postgres": survivors}, fault=fault, fenced=fenced, beyond=beyond
            )

    @contextmanager
    def copied(self) -> Iterator[Callable[[], None]]:
        """Copy the stopped server's folder; yields what puts the copy back."""
        copy = self.server.folder.with_name("copy")

        def put_back() -> None:
            shutil.rmtree(self.server.folder)
            shutil.copytree(copy, self.server.folder)
            Tools.of(self.config).own(self.server.folder)

        shutil.copytree(self.server.folder, copy)
        yield put_back


@contextmanager
def open_shop(ledger: Path) -> Iterator[Shop]:
    """A new server in a run of its own."""
    run, ports = Run.begin(cache.folder() / "runs"), Ports()
    try:
        password_file = run.folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        config = PostgresConfig(
            port=ports.take(),
            password=SecretStr(PASSWORD),
            bin=installed().postgres / "bin",
            data=run.folder / "postgres",
        )
        Tools.of(config).own(run.folder)
        server = PostgresServer(
            config=config,
            log=run.folder / "postgres.log",
            password_file=password_file,
            settings={},
        )
        server.start()
        shop = Shop(server, config, Ledger(ledger))
        with shop.connect() as connection:
            create_shop(connection)
        yield shop
    finally:
        run.end()
        ports.close()


def active(shop: Shop, which: LiteralString) -> int:
    """How many sessions are at work, of those."""
    with shop.connect() as connection:
        found = connection.execute(
            f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND {which}"
        ).fetchone()
    return int(found[0]) if found else 0
