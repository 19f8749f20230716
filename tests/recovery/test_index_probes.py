"""Looking rows up by every kind of index finds them all where none is lost."""

import pytest

from checks.index_probes import NotAsked, index_columns, lost_rows
from checks.zero_pages import vanished
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.postgres.wal.lsn import PAGE_SIZE
from tests.recovery.history import Source

PLACES = """
    create type mood as enum ('sad', 'ok');
    create table places as
      select n as id, md5(n::text)::uuid as key, 'name ' || n as name,
             (array['sad', 'ok'])[1 + n % 2]::mood as mood,
             case when n % 5 > 0 then jsonb_build_object('n', n, 'of', array[n % 3]) end as doc,
             case when n % 7 = 0 then '{}' when n % 5 > 0 then array[n, n % 10] end as numbers,
             array_to_tsvector(array['it''s', 'a\\b', 'word ' || n % 9]) as words,
             point(n, n % 11) as place, box(point(n, n), point(n + 1, n + 1)) as area,
             case when n % 6 = 0 then 'empty' else int4range(n, n + 3) end as span,
             ('10.0.' || n % 250 || '.0/24')::cidr::inet as address,
             case when n % 9 = 0 then 'NaN' else n::float8 end as weight
        from generate_series(1, 1200) n;
"""
INDEXES = [
    "hash (id)", "hash (key)", "hash (name)", "hash (mood)", "hash (doc)", "hash (weight)",
    "hash (lower(name)) where id > 100",
    "gin (doc)", "gin (doc jsonb_path_ops)", "gin (numbers)", "gin (words)",
    "gin (numbers, words) where numbers is not null",
    "gist (place)", "gist (area)", "gist (span)", "gist (words)", "gist (address inet_ops)",
    "spgist (place)", "spgist (place kd_point_ops)", "spgist (name)", "spgist (span)",
    'spgist (name collate "C")', "spgist (address)", "spgist (area)",
    "brin (id)", "brin (name)", "brin (span)", "brin (key uuid_bloom_ops)",
    "brin (id int4_minmax_multi_ops, weight)", "brin (address inet_inclusion_ops)",
]  # fmt: skip


def test_no_index_is_said_to_have_lost_rows_that_it_has(source: Source) -> None:
    """B-trees of the same columns are there too, and must not be asked instead."""
    creates = [f"create index on places using {one}" for one in INDEXES]
    source.run(
        *PLACES.split(";\n")[:-1],
        "create index on places (id)",
        "create index on places (name)",
        *creates,
        "delete from places where id % 4 = 0",
        "update places set name = 'other ' || id, place = point(id, 0) where id % 10 = 1",
        "analyze",
    )
    with source.connect() as connection:
        columns = index_columns(connection)
        assert len({column.oid for column in columns}) == len(INDEXES)
        assert {one.place: lost_rows(connection, one, seed=7) for one in columns} == {
            one.place: None for one in columns
        }
        usable = "select bool_and(indisvalid) from pg_index"
        assert connection.execute(usable).fetchone() == (True,)


def test_an_index_that_no_value_finds_itself_in_was_not_asked(source: Source) -> None:
    source.run(
        "create table prefixes as select 'name ' || n as name from generate_series(1, 10) n",
        "create function never(text, text) returns bool immutable language sql as 'select false'",
        "create operator === (leftarg = text, rightarg = text, function = never)",
        "create operator class odd for type text using hash as"
        " operator 1 ===, function 1 hashtext(text)",
        "create index on prefixes using hash (name odd)",
    )
    with source.connect() as connection:
        (column,) = index_columns(connection)
        with pytest.raises(NotAsked, match="prefixes_name_idx: no operator of its hash"):
            lost_rows(connection, column, seed=7)


def test_a_page_that_was_never_used_has_lost_nothing(
    breakable: NativeStack, source: Source
) -> None:
    source.run("vacuum documents", "create index on documents (id)", "checkpoint")
    path = source.data / source.run("select pg_relation_filepath('documents')")
    breakable.stop(Component.POSTGRES)
    with path.open("ab") as file:
        file.write(bytes(2 * PAGE_SIZE))
    breakable.start(Component.POSTGRES)
    with source.connect() as connection:
        found = dict(vanished(connection))
    assert found["public.documents"] is None
    assert set(found.values()) == {None}
