"""Data folders that a restore unpacked: a place for one, and what a server on it answers."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from pipeline.postgres.base.place import UNFINISHED
from pipeline.postgres.replay.replay import private_server
from pipeline.postgres.server.server import LocalServer
from tests.recovery.history import Source

_NUMBERS = itertools.count(1)


def free_place(source: Source) -> Iterator[Path]:
    """Yield a place that does not exist yet; what was begun beside it must be gone at the end."""
    folder = source.stack.folder / "scratch" / f"restored-{next(_NUMBERS)}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    assert not folder.with_name(folder.name + UNFINISHED).exists()


@contextmanager
def opened(data: Path, source: Source) -> Iterator[psycopg.Connection[Any]]:
    """Run a private server on it."""
    server = LocalServer(data, source.tools, data.with_name("restored.log"))
    with (
        private_server(server, user="postgres", port=5432, settings={}) as connect,
        connect() as connection,
    ):
        yield connection


def state_of(data: Path, source: Source, query: str) -> Any:  # noqa: ANN401 - the query's row
    with opened(data, source) as connection:
        return connection.execute(query.encode()).fetchone()
