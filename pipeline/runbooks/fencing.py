"""The old server is kept down: asked again for as long as a recovery relies on it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.config import PostgresConfig
from pipeline.errors import ServerError
from pipeline.postgres.server.server import LocalServer, not_refused
from pipeline.postgres.server.tools import Tools
from pipeline.wait import wait_until

WITHIN = timedelta(seconds=30)


def stop_server(postgres: PostgresConfig, folder: Path, tools: Tools, log: Path) -> str:
    """Stop what runs in the folder, see that the address refuses, and answer the address."""
    LocalServer(folder, tools, log).stop()
    address = f"{postgres.host}:{postgres.port}"
    wait_until(
        f"fence of {address}", lambda: not_refused(postgres.host, postgres.port), within=WITHIN
    )
    return address


def running(
    postgres: PostgresConfig, folder: Path, tools: Tools, restored: LocalServer | None = None
) -> str | None:
    """Tell that the old server runs again, or that its address answers, else None.

    Who was killed while it opened the `restored` server finds that one at the address.
    """
    if (pid := LocalServer(folder, tools, folder).pid()) is not None:
        return f"a server runs in {folder}, process {pid}"
    if restored is not None and restored.pid() is not None:
        return None
    told = not_refused(postgres.host, postgres.port)
    return f"{postgres.host}:{postgres.port} {told}" if told else None


def as_it_lay(data: Path) -> dict[str, Any]:
    """Describe a data folder so that it shows whether a server has worked in it since."""
    files = [data / "global/pg_control", *(data / "pg_wal").glob("?" * 24)]
    try:
        return {path.name: list(_size_and_time(path)) for path in files if path.exists()}
    except OSError as error:
        raise ServerError(f"{data} cannot be read: {error}") from error


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
