"""Who reads the server's WAL: slots of both kinds, and standbys that stream without one.

A base backup brings none of them back, so a recovery ends what they have begun.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

FACT = "readers"
_READERS = """
    SELECT s.slot_name::text, s.slot_type || ' slot'
           || coalesce(' of database ' || s.database || ', ' || s.plugin, '')
           || coalesce(', read by ' || r.application_name, '')
           || coalesce(' from ' || host(r.client_addr), '')
      FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
     WHERE NOT s.temporary
    UNION ALL
    SELECT coalesce(r.application_name, 'process ' || r.pid), 'standby without a slot'
           || coalesce(' at ' || host(client_addr), '')
      FROM pg_stat_replication r
     WHERE r.pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE active)
       -- not a base backup; who may not see states sees all of them
       AND coalesce(r.state, 'streaming') IN ('startup', 'catchup', 'streaming')
     ORDER BY 1
"""


@dataclass(frozen=True)
class Reader:
    """One of them: a slot by its name, a standby by its application's."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name!r}, a {self.what}"


def readers(connection: psycopg.Connection[Any]) -> list[Reader]:
    """Everything that reads the WAL of a server, by name."""
    return [Reader(*row) for row in connection.execute(_READERS)]


def facts(connection: psycopg.Connection[Any]) -> list[dict[str, str]]:
    """Plain values, for a manifest."""
    return [asdict(one) for one in readers(connection)]


def of_facts(told: Mapping[str, Any]) -> list[Reader]:
    """Read them from a manifest; older ones know logical slots only."""
    if FACT in told:
        return [Reader(**one) for one in told[FACT]]
    return [Reader(one["name"], "logical slot") for one in told.get("slots", ())]


def others(found: Iterable[Reader], own: Collection[str | None]) -> list[Reader]:
    """Those whose names are not in `own`."""
    return [one for one in found if one.name not in own]
