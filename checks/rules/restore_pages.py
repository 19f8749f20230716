"""Pages that a restored server reads without an error, and that are not what they were."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import psycopg

from checks.check import Observation, check
from checks.restored import TrialRestore
from checks.subjects import in_every_database
from checks.zero_pages import vanished
from fixtures.faults import sources
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.wal.lsn import PAGE_SIZE


@check(
    "restore.no-page-vanished",
    on=TrialRestore,
    severity="blocker",
    advice="The rows of this page are gone, and no error tells: restore the table from the last "
    "set in which this check holds (`pipeline restore table --without …`), and test the disk of "
    "the source.",
)
def no_page_vanished(trial: TrialRestore) -> Iterator[Observation]:
    """No page of a table is zero of which the visibility map or an index knows rows."""
    yield from in_every_database(trial, _vanished)


def _vanished(connection: psycopg.Connection[Any]) -> Iterator[Observation]:
    yield Observation(f"database {connection.info.dbname}", None)
    for name, problem in vanished(connection):
        yield Observation(name, problem)


def _zeroed(rng: Random) -> Callable[[bytearray], None]:
    """Have one page of a file be zero, whichever."""

    def zero(content: bytearray) -> None:
        start = rng.randrange(len(content) // PAGE_SIZE) * PAGE_SIZE
        content[start : start + PAGE_SIZE] = bytes(PAGE_SIZE)

    return zero


@no_page_vanished.detects
def page_zeroed_that_an_index_knows(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The file system gave zeros back; nothing refers to the rows, and all checksums are right."""
    sources.base_backup_of_changed_file(scratch, "shop.orders", _zeroed(rng))
    return Damage("shop.orders", "one of its pages is zero", says="has rows in it")


@no_page_vanished.detects
def page_zeroed_that_vacuum_knows(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """Of a table without any index; vacuum has noted that its rows are seen by everybody."""
    sources.base_backup_of_changed_file(
        scratch,
        "shop.seen",
        _zeroed(rng),
        "create table shop.seen as select * from shop.orders",
        "vacuum shop.seen",
    )
    return Damage(
        "shop.seen", "one of its pages is zero", says="the visibility map knows rows in it"
    )
