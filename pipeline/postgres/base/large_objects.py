"""Large objects: what a table refers to by number, and no digest of a table knows of.

They are dumped with a whole database, and with nothing less.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import Connection, errors
from psycopg.rows import dict_row

FACT = "large_objects"
NUMBERS = ("oid", "lo")
"""Types of columns that may refer to one."""

ENTRY = re.compile(
    r"\d+; \d+ \d+ (?:BLOBS? |BLOB METADATA |(?:ACL|COMMENT|SECURITY LABEL) - LARGE OBJECTS? )"
)
"""A line of the list of a dump, as version 16 spells it, and 17 with several in one."""
MANY = 1_000
"""Each is a lock for as long as its transaction lasts (max_locks_per_transaction)."""

# a hole is read as zeros, and a restore writes zeros: neither counts in a page
_HELD = r"""
    WITH held (oid, bytes, who) AS (
             SELECT m.oid, coalesce(max(l.pageno::bigint * current_setting('block_size')::int / 4
                                        + octet_length(l.data)), 0),
                    concat_ws(' ', m.lomowner::regrole,
                              (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(
                                   coalesce(m.lomacl, acldefault('L', m.lomowner))) x))
               FROM pg_largeobject_metadata m LEFT JOIN pg_largeobject l ON l.loid = m.oid
              GROUP BY m.oid),
         line (line) AS (
             SELECT concat_ws(' ', oid, bytes, who) FROM held
             UNION ALL
             SELECT concat_ws(' ', loid, pageno, encode(rtrim(data, '\x00'), 'hex'))
               FROM pg_largeobject WHERE rtrim(data, '\x00') <> '')
    SELECT (SELECT count(*) FROM held) AS count,
           (SELECT coalesce(sum(bytes), 0)::bigint FROM held) AS bytes,
           coalesce(sum(hashtextextended(line, 0)), 0)::text || ':' ||
           coalesce(sum(hashtextextended(line, 1)), 0)::text AS digest FROM line
"""


def read(connection: Connection[Any], *, digest: bool = True) -> dict[str, Any] | None:
    """Number, bytes and digest of all of them, with owners and grants; None if not readable.

    Without `digest` their number alone: their content may be most of a database.
    """
    query = _HELD if digest else "SELECT count(*) FROM pg_largeobject_metadata"
    try:
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query).fetchone()
    except errors.InsufficientPrivilege:
        return None


def other(expected: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> str | None:
    """What is wrong with the large objects, or None where they are equal."""
    if expected == found:
        return None
    told = (
        "none that is readable"
        if one is None
        else f"{one['count']:,} of {one['bytes']:,} bytes with digest {one['digest']}"
        for one in (expected, found)
    )
    return "expected {}, found {}".format(*told)


def dumped(facts: Mapping[str, Any]) -> bool:
    """Whether a logical backup noted large objects, and must hold them."""
    return facts.get(FACT) is not None and facts["scope"] == "database"


def too_many(facts: Mapping[str, Any]) -> bool:
    """Whether one transaction might not be able to restore them."""
    return dumped(facts) and facts[FACT]["count"] > MANY


def left_out(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of large objects a logical backup cannot prove."""
    held = facts.get(FACT)
    if held is None:
        yield "large objects: the backup did not note them"
    elif held["count"] and not dumped(facts):
        yield f"large objects: {held['count']:,} are not in a backup of: {facts['scope']}"
