"""What a server says of itself: its control file, and the running server of it."""

import os
import socket
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.postgres.server.session import connect
from pipeline.postgres.server.tools import Tools
from pipeline.repository.kinds import DATABASE, SYSTEM


def system_identifier(data: Path, tools: Tools) -> str:
    """Identity of the server whose folder it is."""
    return control_data(data, tools)["Database system identifier"]


def identifier_of(connection: psycopg.Connection[Any]) -> str | None:
    """Identity of the server that answers."""
    row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
    return None if row is None else str(row[0])


def passed_on(connection: psycopg.Connection[Any]) -> bool:
    """Whether somebody stands between: to the server he is a client of his own, from his own port.

    Who only changes addresses on the way (a router, a service of Kubernetes) keeps the port.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        port = None if ours.family == socket.AF_UNIX else ours.getsockname()[1]
    return connection.execute("select inet_client_port()").fetchone() != (port,)


def origin_of_server(postgres: PostgresConfig) -> dict[str, str]:
    """The facts that logical backups of this database have; without its server those known here."""
    known = {DATABASE: postgres.dbname}
    try:
        with connect(postgres, autocommit=True) as connection:
            found = identifier_of(connection)
    except psycopg.OperationalError:  # it may be what was lost
        return known
    return known if found is None else known | {SYSTEM: found}


def control_data(data: Path, tools: Tools) -> dict[str, str]:
    """Every line of the control file, as pg_controldata names it."""
    lines = tools.run("pg_controldata", f"--pgdata={data}").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
