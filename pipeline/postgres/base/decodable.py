"""What a base backup notes so that a lost slot's stretch can be decoded on it again.

A slot on a standby begins at a record of running transactions, and only at one that lies behind
the moment at which the standby is consistent. A busy server writes one every 15 seconds, an idle
one none; so one is written right behind each copy.
"""

from collections.abc import Iterator
from typing import Any

import psycopg

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import BackupError, ServerError, StoreError
from pipeline.postgres.replication import guard
from pipeline.postgres.server.control import identifier_of
from pipeline.postgres.server.session import connect
from pipeline.repository import kinds
from pipeline.repository.sets import Repository

KIND = kinds.BASE.name
FACT = "decodable"
_SINCE = 160000  # server_version_num
_LOG = "select pg_log_standby_snapshot()::text"


def note(postgres: PostgresConfig) -> dict[str, Any]:
    """Write the record, and answer where it ends or what was missing, with the level of the WAL.

    It is never a reason to fail: the copy serves every other purpose without it.
    """
    with connect(postgres, autocommit=True) as connection:
        row = connection.execute("select current_setting('wal_level')").fetchone()
        if row is None:
            raise BackupError("the server did not tell its wal_level")
        facts = {"wal_level": row[0], "running_xacts_lsn": None, "lacking": None}
        if connection.info.server_version < _SINCE:
            return facts | {"lacking": "decoding on a standby needs PostgreSQL 16"}
        try:
            row = connection.execute(_LOG).fetchone()
        except psycopg.errors.InsufficientPrivilege:
            grant = f'GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO "{postgres.user}"'
            return facts | {"lacking": grant}
        except psycopg.Error as error:
            return facts | {"lacking": str(error).strip().splitlines()[0]}
    return facts | {"running_xacts_lsn": None if row is None else row[0]}


def told(facts: dict[str, Any]) -> Iterator[str]:
    """Say what decoding a lost stretch will lack, where changes can be decoded at all."""
    if facts["wal_level"] == "logical" and facts["lacking"]:
        yield (
            "no record of running transactions was written behind the copy, so a slot's lost "
            "changes can be decoded only from the next one of the server's own on: "
            f"{facts['lacking']}"
        )
    if failed := (facts["guard"] or {}).get("failed"):
        yield f"the catalogue guard does not hold: {failed}"


def keep_guard(config: PipelineConfig, repository: Repository) -> dict[str, Any] | None:
    """Make the configured catalogue guard, or move it on; answer what it holds, or what failed.

    Before the copy, whose checkpoint makes it durable. It is moved to where the newest base backup
    noted the catalogues, so that a stretch that begins behind that one can be decoded.
    """
    name = config.cdc.catalogue_guard
    if name is None:
        return None
    try:
        with connect(config.postgres, autocommit=True) as connection:
            now = guard.current(connection)
            began = guard.held(connection, name) is None
            wanted = now if began else _noted(repository, name, identifier_of(connection))
            if wanted is not None:
                guard.hold(connection, config.postgres, name, wanted)
    except (psycopg.Error, ServerError) as error:
        return {"name": name, "failed": " ".join(str(error).split())}
    return {"name": name, "now": now, "holds": wanted}


def _noted(repository: Repository, name: str, server: str | None) -> int | None:
    """What the newest base backup of this server noted for the guard; None where none did."""
    for label in reversed(repository.labels(KIND)):
        try:
            facts = repository.get(label).manifest.facts
        except (BackupError, StoreError):
            continue
        noted = (facts.get(FACT) or {}).get("guard") or {}
        if facts.get("system_identifier") == server and noted.get("name") == name:
            return noted.get("now")
    return None
