"""Pages of tables that are zero although they held rows: PostgreSQL takes them for never used.

A page that is all zero is valid (bufpage.c, PageIsVerified): it was added to the file, and nothing
was written to it yet. Its rows are gone without an error. What tells one from the other is what
was written when it had rows: the visibility map, and the entries of an index.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from pipeline.postgres.wal.lsn import PAGE_SIZE

_CHUNK = 128  # pages that are read at once
_FILE = 131_072  # blocks, before a relation goes on in a new file (RELSEG_SIZE)
_MAPPED = (PAGE_SIZE - 24) * 4  # blocks of one page of the visibility map, two bits for each
_NOTHING = bytes(PAGE_SIZE)
_HEAPS = """
    select c.oid::bigint as oid, coalesce(o.oid, c.oid)::regclass::text as name,
           pg_relation_filepath(c.oid) as path, pg_relation_size(c.oid) / %(page)s as blocks,
           pg_relation_size(c.oid, 'vm') / %(page)s as mapped
      from pg_class c join pg_am a on a.oid = c.relam and a.amname = 'heap'
      left join pg_class o on o.reltoastrelid = c.oid
      join pg_namespace n on n.oid = coalesce(o.relnamespace, c.relnamespace)
     where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p'
       and n.nspname not in ('pg_catalog', 'information_schema')
     order by 2, 1
"""
_TREES = """
    select i.indexrelid::regclass::text from pg_index i
      join pg_class c on c.oid = i.indexrelid and c.relkind = 'i'
      join pg_am a on a.oid = c.relam and a.amname = 'btree'
     where i.indrelid = %s and i.indisvalid and i.indisready
     order by i.indpred is not null, pg_relation_size(c.oid) limit 1
"""
# the first entry of a leaf with a neighbour is a bound, and no row
_POINTED_AT = """
    select distinct (tid::text::point)[0]::bigint
      from generate_series(1, pg_relation_size(%(tree)s::text::regclass) / %(page)s - 1) b,
           lateral {}.bt_page_stats(%(tree)s::text, b) s,
           lateral {}.bt_page_items(%(tree)s::text, b) i,
           lateral unnest(coalesce(i.tids, array[i.htid])) tid
     where s.type in ('l', 'r') and s.btpo_level = 0 and not coalesce(i.dead, false)
       and (i.itemoffset > 1 or s.btpo_next = 0)
       and (tid::text::point)[0]::bigint = any (%(blocks)s)
"""


class Heap(NamedTuple):
    """A table, or where its long values are kept: then by the name of that table."""

    oid: int
    name: str
    path: str
    blocks: int
    mapped: int


def vanished(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str | None]]:
    """Each table of the database, and which of its pages lost the rows that they held."""
    connection.execute("set search_path = pg_catalog")
    connection.execute("checkpoint")  # files are read, not buffers
    found = defaultdict[str, list[str]](list)
    for row in connection.execute(_HEAPS, {"page": PAGE_SIZE}).fetchall():
        heap = Heap(*row)
        told = found[heap.name]
        if zero := list(_zero_blocks(connection, heap)):
            mapped = [block for block in zero if _is_mapped(connection, heap, block)]
            told += [
                f"block {block} is zero, the visibility map knows rows in it" for block in mapped
            ]
            tree, pointed = _pointed_at(connection, heap, [b for b in zero if b not in mapped])
            told += [f"block {block} is zero, index {tree} has rows in it" for block in pointed]
    for name, told in found.items():
        more = f"; {len(told) - 3} more" if len(told) > 3 else ""
        yield name, "; ".join(told[:3]) + more if told else None


def _zero_blocks(connection: psycopg.Connection[Any], heap: Heap) -> Iterator[int]:
    for first in range(0, heap.blocks, _CHUNK):
        chunk = _bytes_of(connection, heap.path, first, _CHUNK)
        if _NOTHING not in chunk:
            continue
        for offset in range(0, len(chunk), PAGE_SIZE):
            if chunk[offset : offset + PAGE_SIZE] == _NOTHING:
                yield first + offset // PAGE_SIZE


def _bytes_of(connection: psycopg.Connection[Any], path: str, block: int, pages: int) -> bytes:
    number, inside = divmod(block, _FILE)
    name = f"{path}.{number}" if number else path
    row = connection.execute(
        "select pg_read_binary_file(%s, %s, %s)",
        [name, inside * PAGE_SIZE, pages * PAGE_SIZE],
        binary=True,
    ).fetchone()
    return bytes(row[0]) if row else b""


def _is_mapped(connection: psycopg.Connection[Any], heap: Heap, block: int) -> bool:
    """Whether the page was once found to hold rows that everybody sees (visibilitymap.c)."""
    page, inside = divmod(block, _MAPPED)
    if page >= heap.mapped:
        return False
    bits = _bytes_of(connection, f"{heap.path}_vm", page, 1)[24 + inside // 4]
    return bool(bits >> 2 * (inside % 4) & 0b11)


def _pointed_at(
    connection: psycopg.Connection[Any], heap: Heap, blocks: list[int]
) -> tuple[str, list[int]]:
    """Of these blocks those of which a B-tree has entries: none is made for a page never used."""
    row = connection.execute(_TREES, [heap.oid]).fetchone() if blocks else None
    if row is None:
        return "", []
    connection.execute("create extension if not exists pageinspect")
    place = connection.execute(
        "select extnamespace::regnamespace::text from pg_extension where extname = 'pageinspect'"
    ).fetchone()
    schema = sql.SQL(place[0] if place else "public")
    query = sql.SQL(_POINTED_AT).format(schema, schema)
    wanted = {"tree": row[0], "page": PAGE_SIZE, "blocks": blocks}
    return row[0], sorted(one for (one,) in connection.execute(query, wanted).fetchall())
