"""What was there when a base backup was taken, and what its restore shows of it."""

from collections.abc import Iterator
from random import Random
from typing import Any

from psycopg import sql

from checks.check import Observation, check
from checks.page_checksums import CHECKSUM, page_checksums
from checks.restored import DigestRestore
from fixtures.faults import backups, pages, server, sources
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.wal.lsn import PAGE_SIZE

_LETTERS = b"customer "
_STATUS, _ABORTED = 0b11, 0b10  # two bits of the commit log for each transaction (clog.h)


@check(
    "restore.rows-as-digested",
    on=DigestRestore,
    severity="blocker",
    advice="The backup or the WAL behind it holds other rows than the server did, and no checksum "
    "tells: hold an older set against its digests, and the live table against both, before "
    "anything is restored from this one; `recover postgres --without` passes over it.",
)
def rows_as_digested(restored: DigestRestore) -> Iterator[Observation]:
    """Replayed to their LSN, the base backup shows every table that has a digest as it was."""
    tables = restored.tables
    yield Observation(restored.backup.label, None)
    for table, problem in tables:
        yield Observation(table, problem)


@rows_as_digested.detects
def letter_changed_under_a_good_checksum(scratch: Scratch[DigestRestore], rng: Random) -> Damage:
    """Memory or a disk turned a bit before the page's checksum was taken: all lists agree."""

    def change(page: bytearray, number: int) -> None:
        places = [at for at in range(len(page)) if page.startswith(_LETTERS, at)]
        page[rng.choice(places)] ^= 0x20  # the bit that makes it a capital
        page[CHECKSUM] = next(page_checksums(bytes(page), number)).to_bytes(2, "little")

    pages.change_page(scratch, _file_of(scratch, "customers"), rng, change)
    return Damage(
        "shop.customers",
        "the name of a customer begins with another letter",
        says="rows with digest",
    )


@rows_as_digested.detects
def commit_forgotten_by_the_commit_log(scratch: Scratch[DigestRestore], rng: Random) -> Damage:
    """The commit log has no checksum: a lost write of it makes a transaction an aborted one."""
    del rng
    with sources.running(scratch), server.connected(scratch) as connection:
        query = "select xmin::text::bigint from shop.orders order by id limit 1"
        (xid,) = connection.execute(query).fetchone() or (0,)

    def forget(name: str, content: bytes) -> bytes:
        if name.removeprefix("./") != "pg_xact/0000":
            return content
        changed, shift = bytearray(content), 2 * (xid % 4)
        changed[xid // 4] = changed[xid // 4] & ~(_STATUS << shift) | _ABORTED << shift
        return bytes(changed)

    backups.repack(scratch, forget, forged=True)
    return Damage(
        "shop.orders",
        f"the commit log says that transaction {xid} was rolled back",
        says="rows with digest",
    )


@rows_as_digested.detects
def lost_write_of_a_table_page(scratch: Scratch[DigestRestore], rng: Random) -> Damage:
    """The disk acknowledged a page and kept its older version; the server has the new one still."""
    customer = rng.randrange(1, 100)
    change = sql.SQL("update shop.customers set name = 'another' where id = {}").format(customer)
    with sources.running(scratch):
        server.execute(scratch, "checkpoint")
        path = sources.file_of(scratch, "shop.customers")
        old = path.read_bytes()
        # vacuumed: a later reader would mark the row as committed, and so write the page again
        server.execute(scratch, change, "vacuum shop.customers", "checkpoint")
        path.write_bytes(old[:PAGE_SIZE] + path.read_bytes()[PAGE_SIZE:])
        sources.back_up_base(scratch, digests=True)
    return Damage(
        "shop.customers",
        f"the change of customer {customer} is not on the disk",
        says="rows with digest",
    )


@rows_as_digested.detects
def page_of_another_table(scratch: Scratch[DigestRestore], rng: Random) -> Damage:
    """The same block of another table was written here: its checksum is right in both places."""
    with sources.running(scratch):
        copy = (
            "create table shop.former as select id, 'former ' || name as name from shop.customers"
        )
        server.execute(scratch, copy)
        sources.back_up_base(scratch, digests=True)
    other = backups.content_of(scratch, backups.latest_base(scratch), _file_of(scratch, "former"))

    def exchange(page: bytearray, number: int) -> None:
        page[:] = other[number * PAGE_SIZE :][:PAGE_SIZE]

    pages.change_page(scratch, _file_of(scratch, "customers"), rng, exchange)
    return Damage(
        "shop.customers",
        "one of its pages is the same block of shop.former",
        says="rows with digest",
    )


def _file_of(scratch: Scratch[Any], table: str) -> str:
    facts = backups.latest_base(scratch).manifest.facts
    node = next(one["relfilenode"] for one in facts["tables"] if one["name"] == table)
    return f"base/{facts['database_oid']}/{node}"
