"""Tables of another server in a schema of their own on the live one, before anybody sees them.

Rows come as unlogged copies `rows_1`, `rows_2`, …, which no consumer of changes is told of. What
the live server has no more comes as empty tables beside them, made by pg_dump with their indexes,
constraints, sequences, triggers, grants, policies, comments, replica identity and publications.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psycopg import Connection, sql

from pipeline.config import PostgresConfig
from pipeline.errors import RecoveryRefused, RestoreError, ToolError
from pipeline.postgres.base import large_objects
from pipeline.postgres.base.digests import expected_objects, prepare, present_objects, table_digests
from pipeline.postgres.logical.catalogue import catalogue
from pipeline.postgres.logical.relations import (
    Relation,
    columns,
    family,
    family_if_there,
    foreign_keys,
)
from pipeline.postgres.replication.publications import add_table, find_publication
from pipeline.postgres.server.session import UNGUARDED, environment, options
from pipeline.postgres.server.tools import Tools, address
from pipeline.postgres.table.copied import Copied, holders
from pipeline.postgres.table.patience import LOCK_WITHIN, PATIENCE
from pipeline.postgres.table.rewind import Rewound
from pipeline.wait import wait_until

PREFIX = "pipeline_restore_"

_PUBLISHED = """
    SELECT pubname::text, schemaname::text, tablename::text FROM pg_publication_tables
     WHERE (schemaname, tablename) IN
           (SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n
                ON n.oid = c.relnamespace WHERE c.oid = ANY (%s)) ORDER BY 1, 2, 3
"""
# a schema without privileges of its own has one row, and no grant
_SCHEMAS = """
    SELECT CASE WHEN row_number() OVER (PARTITION BY n.oid) = 1
                THEN format('CREATE SCHEMA %%I AUTHORIZATION %%I', nspname, owner.rolname) END,
           format('GRANT %%s ON SCHEMA %%I TO ', privilege_type, nspname)
           || CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(g.rolname) END
           || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
      FROM pg_namespace n JOIN pg_roles owner ON owner.oid = nspowner
      LEFT JOIN aclexplode(nspacl) ON grantee <> nspowner LEFT JOIN pg_roles g ON g.oid = grantee
     WHERE nspname = ANY (%s)
"""
_PUBLICATIONS = """
    SELECT DISTINCT p.pubname::text FROM pg_publication p
      JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE r.prrelid = ANY (%s) ORDER BY 1
"""


@dataclass(frozen=True)
class Staging:
    """A schema on the live server that takes what the side server gives."""

    live: Connection[Any]
    postgres: PostgresConfig
    schema: str

    def fill(self, side: Connection[Any], tables: Sequence[str]) -> Copied:
        """Copy tables, as the side server knows them by name, with all that belongs to them.

        Raises ConfigError for a table that was not there at the target, RestoreError for one
        whose rows cannot be compared with what the live server has under its name.
        """
        drop_staging(self.live)
        self.live.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        try:
            return self._fill(side, tables)
        except BaseException:
            drop_staging(self.live)
            raise

    def _fill(self, side: Connection[Any], tables: Sequence[str]) -> Copied:
        copied = self._look(side, tables)
        for table in copied.rewound:
            if table.relation.place not in copied.missing:
                refuse_unlike(self.live, table)
        if copied.missing:
            self._make_structure(side, copied)
        for table in copied.rewound:
            self._copy(side, table, copied)
        lost = [told for table in copied.rewound for told in self._lost_objects(side, table)]
        return replace(copied, gone=(*copied.gone, *lost))

    def _lost_objects(self, side: Connection[Any], table: Rewound) -> Iterator[str]:
        """Count large objects that rows refer to, and that are gone: a restore of tables has none.

        A column of numbers may refer to something else: only what was there at the target counts.
        """
        gone = "SELECT array_agg({column}) FROM {copy} WHERE {column} NOT IN ({there})"
        then = "SELECT count(*) FROM pg_largeobject_metadata WHERE oid = ANY (%s::oid[])"
        there = sql.SQL("SELECT oid FROM pg_largeobject_metadata")
        for one in table.columns:
            if one.type.rpartition(".")[2] not in large_objects.NUMBERS:
                continue
            column = sql.Identifier(one.name)
            query = sql.SQL(gone).format(column=column, copy=table.copy, there=there)
            (numbers,) = self.live.execute(query).fetchone() or (None,)
            (count,) = side.execute(then, [numbers or []]).fetchone() or (0,)
            if count:
                yield f"{count} large objects that {table.relation}.{one.name} refers to"

    def _look(self, side: Connection[Any], tables: Sequence[str]) -> Copied:
        relations = {one.oid: one for table in tables for one in family(side, table)}
        missing = [one for one in relations.values() if not _there(self.live, one)]
        for one in relations.values():
            _refuse_unlogged(one)
        oids, gone = list(relations), {one.oid for one in missing}
        keys = foreign_keys(side, oids)
        with side.transaction():
            prepare(side)
            objects, everything = expected_objects(side, oids), expected_objects(side)
            digests = table_digests(side, oids)
        with self.live.transaction():
            prepare(self.live)
            held = present_objects(self.live)
        return Copied(
            schema=self.schema,
            relations=tuple(relations.values()),
            missing=tuple(one.place for one in missing),
            columns=tuple(tuple(columns(side, one.oid)) for one in holders(relations.values())),
            objects=tuple(objects),
            gone=tuple(one for one in everything if one not in held and one not in objects),
            digests=tuple(digests),
            keys=tuple(keys),
            published=tuple(_published(side, self.live, oids)),
            again=catalogue(side, gone),
            kept=catalogue(side, relations.keys() - gone),
            schemas=tuple(_schemas(side, self.live, {one.schema for one in missing})),
        )

    def _make_structure(self, side: Connection[Any], copied: Copied) -> None:
        """Dump what is missing under the name of the staging schema, which it gets on the side."""
        here = sql.Identifier(self.schema)
        missing = [one for one in copied.relations if one.place in copied.missing]
        side.execute(sql.SQL("CREATE SCHEMA {}").format(here))
        for one in missing:
            name = sql.Identifier(*one.place)
            side.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(name, here))
        names = [f"--table={replace(one, schema=self.schema).quoted}" for one in missing]
        tools, info = Tools.of(self.postgres), side.info
        with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
            tools.own(Path(folder))
            dump = Path(folder) / "structure.dump"
            tools.run(
                "pg_dump",
                *(
                    "--schema-only",
                    "--no-publications",
                    "--format=custom",
                    *names,
                    f"--file={dump}",
                ),
                *(f"--host={info.host}", f"--port={info.port}", f"--username={info.user}"),
                *(f"--dbname={info.dbname}", "--no-password"),
                env={"PGOPTIONS": options()},
            )
            wait_until(
                f"structure of {', '.join(map(str, missing))}",
                lambda: self._feed(tools, dump),
                within=LOCK_WITHIN,
            )
        self._publish(side, missing)
        for one in missing:  # the side goes on under the names that everything else uses
            side.execute(
                sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                    sql.Identifier(self.schema, one.name), sql.Identifier(one.schema)
                )
            )

    def _publish(self, side: Connection[Any], missing: Sequence[Relation]) -> None:
        """Put what is made again into its publications, before a row could be written to it."""
        names = {one.name for one in missing}
        oids = [one.oid for one in missing]
        for (name,) in side.execute(_PUBLICATIONS, [oids]).fetchall():
            if find_publication(self.live, name) is None:
                continue  # gone as well: told at the end
            found = find_publication(side, name)
            for table in found.tables if found else ():
                if table.schema == self.schema and table.name in names:
                    add_table(self.live, name, table)

    def _feed(self, tools: Tools, dump: Path) -> str | None:
        """Give the structure to the live server; foreign keys need a short lock elsewhere."""
        postgres = self.postgres
        try:
            tools.run(
                "pg_restore",
                *("--exit-on-error", "--single-transaction"),
                *(*address(postgres), f"--dbname={postgres.dbname}", str(dump)),
                # the words that are looked for below are those of no other language
                env=environment(
                    postgres, UNGUARDED | {"lock_timeout": PATIENCE, "lc_messages": "C"}
                ),
            )
        except ToolError as error:
            if "lock timeout" in error.output:
                return "a table that it refers to is locked"
            raise RestoreError(f"the tables cannot be made again: {error}") from error
        return None

    def _copy(self, side: Connection[Any], table: Rewound, copied: Copied) -> None:
        one, gone = table.relation, table.relation.place in copied.missing
        like = sql.Identifier(self.schema if gone else one.schema, one.name)
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
        with side.transaction(), self.live.transaction():
            self.live.execute(
                sql.SQL("CREATE UNLOGGED TABLE {} (LIKE {})").format(table.copy, like)
            )
            prepare(side)  # both sides must read and write values alike
            prepare(self.live)
            # their own encoding, or SQL_ASCII would be held to that of the session
            encoding = sql.Literal(side.info.parameter_status("server_encoding"))
            give = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (ENCODING {})").format(
                names, one.rows_of, encoding
            )
            take = sql.SQL("COPY {} ({}) FROM STDIN (ENCODING {})").format(
                table.copy, names, encoding
            )
            with (
                side.cursor().copy(give) as giving,
                self.live.cursor().copy(take) as taking,
            ):
                for block in giving:
                    taking.write(block)
            self.live.execute(sql.SQL("ANALYZE {}").format(table.copy))


def refuse_unlike(live: Connection[Any], table: Rewound) -> None:
    """Raise RestoreError where rows cannot be compared with the live table."""
    (found, *_) = family(live, table.relation.quoted)
    if refusal := table.refusal(columns(live, found.oid)):
        raise RestoreError(
            f"{refusal}. Move the live table out of the way, into a schema of its own (ALTER "
            "TABLE … SET SCHEMA …): it is then made again as it was at the target"
        )


def refuse_early(live: Connection[Any], tables: Sequence[str]) -> None:
    """Refuse what a look at live tables is enough for: before an hour of replay, not after it."""
    for table in tables:
        # gone: the side server knows whether it ever was
        for one in family_if_there(live, table):
            _refuse_unlogged(one)
            if not one.partition:
                refuse_unlike(live, Rewound(one, tuple(columns(live, one.oid)), sql.SQL("")))


def _refuse_unlogged(one: Relation) -> None:
    if not one.logged:
        raise RestoreError(f"{one} is unlogged: the WAL holds none of its rows")


def drop_staging(live: Connection[Any]) -> None:
    """Drop what an interrupted restore left; only one of them runs at a time."""
    found = live.execute(
        "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", [PREFIX]
    ).fetchall()
    for (name,) in found:
        live.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


def schema_for(recovery: str) -> str:
    """Name of a recovery's staging schema."""
    schema = PREFIX + "".join(c if c.isalnum() else "_" for c in recovery.lower())
    if len(schema.encode()) > 63:
        raise RecoveryRefused(f"the recovery's name {recovery!r} is too long for a schema")
    return schema


def _published(
    side: Connection[Any], live: Connection[Any], oids: Sequence[int]
) -> Iterator[tuple[str, str, str]]:
    """Which publications of the live server told of a table at the target."""
    kept = {row[0] for row in live.execute("SELECT pubname::text FROM pg_publication").fetchall()}
    rows = side.execute(_PUBLISHED, [list(oids)]).fetchall()
    yield from (row for row in rows if row[0] in kept)


def _schemas(side: Connection[Any], live: Connection[Any], names: set[str]) -> Iterator[str]:
    """Spell what makes those schemas that the live server has not, with owners and grants."""
    held = {row[0] for row in live.execute("SELECT nspname::text FROM pg_namespace").fetchall()}
    found = side.execute(_SCHEMAS, [sorted(names - held)]).fetchall()
    yield from (statement for row in found for statement in row if statement)


def _there(live: Connection[Any], one: Relation) -> bool:
    row = live.execute("SELECT to_regclass(%s)", [one.quoted]).fetchone()
    return row is not None and row[0] is not None
