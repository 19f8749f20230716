"""What a restored server holds, examined by PostgreSQL's own means and by the schema's rules.

None of it shows in a digest of a backup: the source had it when it was backed up.
"""

from collections.abc import Iterator
from random import Random

from psycopg import sql

from checks.check import NotRun, Observation, check
from checks.relation_rules import references, sequences
from checks.restored import TrialRestore
from checks.subjects import in_every_database
from fixtures.faults import server, sources
from fixtures.faults.pages import used_pages
from fixtures.scratch import Damage, Scratch
from pipeline.errors import RestoreError
from pipeline.postgres.server.amcheck import NotAtHand, findings
from pipeline.postgres.wal.lsn import PAGE_SIZE


def _examined(trial: TrialRestore, kind: str) -> Iterator[Observation]:
    """Give each relation of a kind, of every database, as amcheck finds it.

    RestoreError names what it cannot read.
    """
    unread = list[str]()
    for where, connection in trial.databases():
        try:
            for one in findings(connection, kinds=(kind,), catalogues=True):
                if one.unread is None:
                    name = f"{where}{one.schema}.{one.name}"
                    yield Observation(name, "; ".join(one.damage) or None)
                else:
                    unread.append(f"{where}{one}: {one.unread}")
        except NotAtHand as error:
            raise NotRun(f"amcheck is not at hand: {error}") from error
    if unread:
        raise RestoreError(f"NOT examined: {'; '.join(unread)}")


@check(
    "restore.indexes-complete",
    on=TrialRestore,
    severity="blocker",
    advice="Rows cannot be found by this index, and unique keys may be there twice: REINDEX it on "
    "the source now and after a restore of this set, then look for rows that it let in twice.",
)
def indexes_complete(trial: TrialRestore) -> Iterator[Observation]:
    """Every B-tree is in order, and has an entry for every row of its table."""
    yield from _examined(trial, "index")


@indexes_complete.detects
def rows_that_the_index_never_saw(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A build of an index that raced with writers; the source answers, and misses rows."""
    ready = "update pg_index set indisready = {} where indexrelid = 'shop.customers_pkey'::regclass"
    first = rng.randrange(1_000, 9_000)
    sources.base_backup_after(
        scratch,
        sql.SQL(ready).format("false"),
        sql.SQL("insert into shop.customers values ({}, 'unindexed')").format(first),
        sql.SQL(ready).format("true"),
    )
    return Damage(
        "shop.customers_pkey",
        f"it has no entry for customer {first}",
        says="lacks matching index tuple",
    )


@indexes_complete.detects
def lost_write_of_an_index_page(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The disk acknowledged a page and kept its older version, whose checksum is right."""
    index = "shop.customers_pkey"
    with sources.running(scratch):
        server.execute(scratch, "checkpoint")
        old = sources.file_of(scratch, index).read_bytes()
    leaf = used_pages(old)[1]  # after the metapage; 100 customers fit in one leaf
    start, stop = leaf * PAGE_SIZE, (leaf + 1) * PAGE_SIZE

    def put_back(content: bytearray) -> None:
        content[start:stop] = old[start:stop]

    insert = sql.SQL("insert into shop.customers select n, 'lost' from generate_series({}, {}) n")
    first = rng.randrange(1_000, 9_000)
    sources.base_backup_of_changed_file(
        scratch, index, put_back, insert.format(first, first + rng.randrange(20))
    )
    return Damage(index, f"block {leaf} is older than its table", says="lacks matching index tuple")


@check(
    "restore.tables-sound",
    on=TrialRestore,
    severity="blocker",
    advice="Rows of this table are damaged or unreadable: restore it from the last set in which "
    "this check holds (`pipeline restore table --without …`), and test the disk of the source.",
)
def tables_sound(trial: TrialRestore) -> Iterator[Observation]:
    """Every page of every table is laid out as it must be, frozen ones and TOAST included."""
    yield from _examined(trial, "table")


@tables_sound.detects
def toast_chunk_missing(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A part of a long value is gone; its row is there, and counts."""
    insert = "insert into shop.orders (customer, note) values (1, repeat('x', {}))"
    sources.base_backup_of_changed_file(
        scratch,
        "shop.orders",
        sources.lose_first_item,
        "alter table shop.orders alter note set storage external",
        sql.SQL(insert).format(rng.randrange(10_000, 50_000)),
        toast=True,
    )
    return Damage(
        "shop.orders", "a chunk of its longest value is gone", says="when expecting chunk"
    )


@tables_sound.detects
def frozen_page_damaged(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """Damage in a page that vacuum never reads again, with a checksum that is right."""
    sources.base_backup_of_changed_file(
        scratch,
        "shop.customers",
        lambda content: sources.move_line_pointer(content, rng),
        "vacuum (freeze) shop.customers",
    )
    return Damage(
        "shop.customers",
        "a line pointer of its first, frozen page was moved",
        says="line pointer",
    )


@check(
    "restore.references-hold",
    on=TrialRestore,
    advice="Rows were lost or let in behind the constraint's back (a lost page, replication role, "
    "NOT VALID). Find them with the query named here, and the last set in which it holds.",
)
def references_hold(trial: TrialRestore) -> Iterator[Observation]:
    """Every foreign key and check constraint holds for every row, also where it is NOT VALID."""
    yield from in_every_database(trial, references)


@references_hold.detects
def referenced_row_vanished(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A row that a damaged page took along; no digest of the backup differs."""
    refer = sql.SQL("update shop.orders set customer = 1 where id = {}")
    sources.base_backup_of_changed_file(
        scratch, "shop.customers", sources.lose_first_item, refer.format(rng.randrange(1, 2_000))
    )
    what = "customer 1 is gone"
    return Damage("shop.orders_customer_fkey", what, says="select * from")


@references_hold.detects
def orphan_behind_a_constraint_that_was_not_validated(
    scratch: Scratch[TrialRestore], rng: Random
) -> Damage:
    """A load that went around the constraint, which was then added back without a look."""
    customer = rng.randrange(10_000, 99_999)
    add = "alter table shop.orders add constraint {} foreign key (customer) references {} not valid"
    sources.base_backup_after(
        scratch,
        "alter table shop.orders drop constraint orders_customer_fkey",
        sql.SQL("insert into shop.orders (customer, note) values ({}, '')").format(customer),
        sql.SQL(add).format(sql.Identifier("later"), sql.Identifier("shop", "customers")),
    )
    what = f"an order names customer {customer}, who is not there"
    return Damage("shop.later", what, says="it is NOT VALID")


@check(
    "restore.sequences-ahead",
    on=TrialRestore,
    advice="The first inserts after a restore would fail, or give a number again that was given "
    "before: setval() the sequence on the source to the column's maximum.",
)
def sequences_ahead(trial: TrialRestore) -> Iterator[Observation]:
    """No sequence of a column would give a number that the column holds already."""
    yield from in_every_database(trial, sequences)


@sequences_ahead.detects
def sequence_set_back(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A script that restarts sequences for a test, in the wrong database."""
    number = rng.randrange(1, 100)
    restart = sql.SQL("select setval('shop.orders_id_seq', {})").format(number)
    sources.base_backup_after(scratch, restart)
    return Damage("shop.orders_id_seq", f"it was set back to {number}", says="it would give")


@sequences_ahead.detects
def rows_beyond_the_sequence(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A load that brought its own numbers."""
    number = rng.randrange(100_000, 900_000)
    insert = "insert into shop.orders overriding system value values ({}, 1, 'loaded')"
    sources.base_backup_after(scratch, sql.SQL(insert).format(number))
    return Damage("shop.orders_id_seq", f"an order has number {number}", says="it would give")


@sequences_ahead.detects
def sequence_that_no_column_owns_set_back(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """It was made by hand, and only the default of a column tells what it is for."""
    number = rng.randrange(2, 100)
    sources.base_backup_after(
        scratch,
        "create sequence shop.invoices",
        "create table shop.invoice (id int default nextval('shop.invoices') primary key)",
        "insert into shop.invoice select from generate_series(1, 200)",
        sql.SQL("select setval('shop.invoices', {})").format(number),
    )
    return Damage("shop.invoices", f"it was set back to {number}", says="it would give")
