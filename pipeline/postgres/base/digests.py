"""What a database holds, in a form that a restored copy can be compared with.

A table's digest is two sums over its rows of hashtextextended(row as text), by two seeds: the
order of rows does not matter, and a row that is there twice counts twice. Its limits: it finds
accidents, not a forger; a type whose text leaves something out is compared without it; and it
holds within one major version, because neither the hash nor every type's text is promised beyond.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from psycopg import Connection, errors, sql
from psycopg.rows import dict_row

from pipeline.postgres.base import large_objects

# text output depends on these, and on the search path, which names of objects lose or keep
_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "search_path": "pg_catalog",
    "row_security": "off",  # an error where a policy would hide rows
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

# a row as text, or a value of 500 MB in hexadecimal digits, is longer than 1 GB
_TOO_LONG = (errors.ProgramLimitExceeded, errors.InternalError_, errors.OutOfMemory)
_COLUMNS = """
    SELECT attname, 'bytea'::regtype IN (y.oid, y.typbasetype)
      FROM pg_attribute JOIN pg_type y ON y.oid = atttypid
     WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_FIRST_OF_USERS = 16384  # FirstNormalObjectId: what initdb made is in every database

_SPACES = """
    SELECT oid FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
"""
_TABLES = f"""
    SELECT n.nspname AS schema, c.relname AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND n.oid IN ({_SPACES})
       AND (%(only)s::oid[] IS NULL OR c.oid = ANY (%(only)s))
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e'
                          AND e.classid = 'pg_class'::regclass AND e.objid = c.oid)
     ORDER BY 1, 2
"""
# a dump leaves out an index that is not valid, and what a partition's key is called hangs on what
# came first. `relid` is what an object belongs to, a table or a schema: only those of `only` come
# along, and none of what an extension made
_OBJECTS = f"""
    WITH found (classid, objid, relid) AS (
        SELECT 'pg_class'::regclass, c.oid,
               coalesce(i.indrelid,
                        (SELECT d.refobjid FROM pg_depend d
                          WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass
                            AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
                            AND d.deptype IN ('a', 'i')), c.oid)
          FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
         WHERE c.relnamespace IN ({_SPACES})
           AND (i.indexrelid IS NULL OR i.indisvalid OR c.relkind = 'I')
        UNION ALL SELECT 'pg_constraint'::regclass, oid, conrelid FROM pg_constraint
         WHERE connamespace IN ({_SPACES}) AND conparentid = 0
        UNION ALL SELECT 'pg_trigger'::regclass, oid, tgrelid FROM pg_trigger
         WHERE NOT tgisinternal
        UNION ALL SELECT 'pg_policy'::regclass, oid, polrelid FROM pg_policy
        UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
         WHERE pronamespace IN ({_SPACES})
        UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type
         WHERE typtype IN ('e', 'd', 'r') AND typnamespace IN ({_SPACES})
        UNION ALL SELECT 'pg_namespace'::regclass, oid, oid FROM ({_SPACES}) s
        UNION ALL SELECT 'pg_extension'::regclass, oid, 0 FROM pg_extension
        UNION ALL SELECT 'pg_publication'::regclass, oid, 0 FROM pg_publication
        UNION ALL SELECT 'pg_event_trigger'::regclass, oid, 0 FROM pg_event_trigger)
    SELECT o.type || ' ' || o.identity
      FROM found f, pg_identify_object(f.classid, f.objid, 0) o
     WHERE f.objid >= %(first)s
       AND (%(only)s::oid[] IS NULL OR f.relid = ANY (%(only)s))
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e'
                          AND (e.classid, e.objid) IN ((f.classid, f.objid),
                                                       ('pg_class'::regclass, f.relid)))
     ORDER BY 1
"""


def prepare(connection: Connection[Any]) -> None:
    """Make text come out the same on every server, until the end of the transaction."""
    for name, value in _SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def expected_objects(connection: Connection[Any], only: Sequence[int] | None = None) -> list[str]:
    """User objects as type and qualified name, those of extensions aside; `only` takes oids."""
    rows = connection.execute(_OBJECTS, {"only": only, "first": _FIRST_OF_USERS}).fetchall()
    return [row[0] for row in rows]


def present_objects(connection: Connection[Any]) -> set[str]:
    """Objects that there are, those of initdb too: a user's schema public may be one of these."""
    return {row[0] for row in connection.execute(_OBJECTS, {"only": None, "first": 0}).fetchall()}


def table_digests(
    connection: Connection[Any], only: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Rows and digest of every user table that holds rows of its own, partitions among them."""
    with connection.cursor(row_factory=dict_row) as cursor:
        tables = cursor.execute(_TABLES, {"only": only}).fetchall()
        return [{**table, **_digest(connection, table)} for table in tables]


def other_rows(expected: dict[str, Any], restored: dict[str, Any] | None) -> str | None:
    """What is wrong with a restored table, by the digests of both; None where they are equal."""
    if restored is None:
        return "it is not there"
    if _equal(expected, restored):
        return None
    return (
        f"expected {expected['rows']:,} rows with digest {expected['digest']}, "
        f"found {restored['rows']:,} with {restored['digest']}"
    )


def _digest(connection: Connection[Any], table: dict[str, Any]) -> dict[str, Any]:
    # (t.*) and not t: a column may have that name. "C": the hash of a collation may change
    query = (
        "SELECT count(*), coalesce(sum(hashtextextended(line, 0)), 0)::text || ':' ||"
        " coalesce(sum(hashtextextended(line, 1)), 0)::text"
        ' FROM ONLY {} t, LATERAL (SELECT ({})::text COLLATE "C") AS s (line)'
    )
    name = sql.Identifier(table["schema"], table["name"])
    try:
        with connection.transaction():
            found = connection.execute(sql.SQL(query).format(name, sql.SQL("t.*"))).fetchone()
    except _TOO_LONG:
        line = _shortened(connection, name)
        found = connection.execute(sql.SQL(query).format(name, line)).fetchone()
    rows, digest = cast("tuple[int, str]", found)
    return {"rows": rows, "digest": digest}


def _shortened(connection: Connection[Any], name: sql.Identifier) -> sql.Composed:
    """Spell a row with digests for its values: as text it would be longer than text can be."""
    columns = connection.execute(_COLUMNS, [name.as_string(connection)]).fetchall()
    parts = [
        sql.SQL("md5(t.{})" if binary else "md5(t.{}::text)").format(sql.Identifier(column))
        for column, binary in columns
    ]
    return sql.SQL("ROW({})").format(sql.SQL(", ").join(parts))


def differences(connection: Connection[Any], facts: dict[str, Any]) -> Iterator[str]:
    """Yield what a restored database lacks, or holds otherwise, by the facts of its backup."""
    with connection.transaction():
        prepare(connection)
        present = present_objects(connection)
        yield from (f"{name} is missing" for name in facts["objects"] if name not in present)
        found = {(t["schema"], t["name"]): t for t in table_digests(connection)}
        if large_objects.dumped(facts):
            held = large_objects.read(connection)
            if told := large_objects.other(facts[large_objects.FACT], held):
                yield f"large objects: {told}"
    for table in facts["tables"]:
        restored = found.get((table["schema"], table["name"]))
        if restored is not None and (told := other_rows(table, restored)):
            yield f"table {table['schema']}.{table['name']}: {told}"


def _equal(table: dict[str, Any], restored: dict[str, Any]) -> bool:
    """Compare a table; a backup of an earlier version of this package has the first sum only."""
    if ":" not in table["digest"]:
        restored = {**restored, "digest": restored["digest"].partition(":")[0]}
    return table == restored
