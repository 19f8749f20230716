"""What the catalogue of a database says about itself and should not, on a source or restored."""

from collections.abc import Iterator
from typing import Any

import psycopg

from checks.check import Observation
from checks.relation_rules import settled

_COLLATIONS = """
    select 'collation ' || c.oid::regcollation as name, collversion as noted,
           pg_collation_actual_version(c.oid) as found
      from pg_collation c
     where collversion is not null and c.oid in (
               select attcollation from pg_attribute a join pg_class t on t.oid = a.attrelid
                where t.relkind in ('i', 'I')
               union all select unnest(partcollation) from pg_partitioned_table
               union all select rngcollation from pg_range)
    union all
    select 'database ' || datname, datcollversion, pg_database_collation_actual_version(oid)
      from pg_database where datcollversion is not null and datname = current_database()
"""
# one that is being built is invalid until it is done
_INDEXES = """
    select n.nspname || '.' || c.relname as name, i.indisunique as is_unique,
           i.indisvalid and i.indisready and i.indislive as usable
      from pg_index i join pg_class c on c.oid = i.indexrelid
      join pg_namespace n on n.oid = c.relnamespace
     where n.nspname !~ '^pg_(temp|toast_temp)'
       and i.indexrelid not in (select index_relid from pg_stat_progress_create_index)
     order by 1
"""
_EXTENSIONS = """
    select e.extname as name, e.extversion as version
      from pg_extension e left join pg_available_extension_versions v
        on v.name = e.extname and v.version = e.extversion
     where v.name is null order by 1
"""


def collations(connection: psycopg.Connection[Any]) -> Iterator[Observation]:
    """Hold the version that text was sorted by against that of the library here."""
    yield Observation("collations", settled(connection))
    for name, noted, found in connection.execute(_COLLATIONS).fetchall():
        other = f"it sorted as version {noted}, here as {found}"
        yield Observation(name, None if noted == found else other)


def indexes(connection: psycopg.Connection[Any]) -> Iterator[Observation]:
    """Look for indexes that PostgreSQL has given up."""
    yield Observation("indexes", settled(connection))
    for name, is_unique, usable in connection.execute(_INDEXES).fetchall():
        told = f"it is invalid{', and does not keep its keys unique' if is_unique else ''}"
        yield Observation(name, None if usable else told)


def extensions(connection: psycopg.Connection[Any]) -> Iterator[Observation]:
    """Look for the files that extensions need, in their versions."""
    yield Observation("extensions", settled(connection))
    for name, version in connection.execute(_EXTENSIONS).fetchall():
        yield Observation(f"extension {name}", f"its version {version} is not installed here")
