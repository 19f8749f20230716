"""The pages of a base backup, every one of them: read by our own code, without a server."""

from collections.abc import Iterator
from random import Random

from checks.check import Observation, check
from checks.links import of_every_link
from checks.page_checksums import page_checksums
from checks.pages import PageTrouble
from checks.subjects import BaseBackup
from fixtures.faults import backups, pages
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.wal.lsn import PAGE_SIZE, Lsn


@check(
    "base.page-checksums",
    on=BaseBackup,
    severity="blocker",
    advice="Rows in this page are damaged. Find its table (oid2name, or pg_filenode_relation on "
    "the server), restore that table from the set before this one (`--without`), and test disk "
    "and memory.",
)
@of_every_link
def page_checksums_agree(base: BaseBackup) -> Iterator[Observation]:
    """Every page in the newest base backup, and in those below it, carries its own checksum."""
    if not base.facts["data_checksums"]:
        off = "off on the server: nothing can tell a damaged page from a good one"
        yield Observation("data_checksums", off)
        return
    for name, report in base.contents.pages.items():
        yield Observation(name, _told(report.wrong_sums))


def _told(troubles: list[PageTrouble]) -> str | None:
    if not troubles:
        return None
    first = "; ".join(f"block {trouble.block}: {trouble.what}" for trouble in troubles[:3])
    return first + (f"; {len(troubles) - 3} more" if len(troubles) > 3 else "")


@page_checksums_agree.detects
def page_bit_flipped(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Bit rot in a page before it was backed up: every digest is one of the damaged bytes."""

    def flip(page: bytearray, _number: int) -> None:
        page[rng.randrange(pages.HEADER, PAGE_SIZE)] ^= 1 << rng.randrange(8)

    return pages.change_page(scratch, _table_file(scratch, rng), rng, flip).told_as(
        "its checksum is"
    )


@page_checksums_agree.detects
def pages_exchanged(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A disk that wrote two pages to each other's place: each is whole, and not where it was."""
    return pages.swap_pages(scratch, _table_file(scratch, rng), rng).told_as("its checksum is")


@page_checksums_agree.detects
def old_half_of_a_page(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A torn write: one half of the page is of another time."""

    def tear(page: bytearray, _number: int) -> None:
        half = PAGE_SIZE // 2
        page[half:] = rng.randbytes(half)

    return pages.change_page(scratch, _table_file(scratch, rng), rng, tear).told_as(
        "its checksum is"
    )


def _table_file(scratch: Scratch[BaseBackup], rng: Random) -> str:
    return table_file(scratch.copy, rng)


def table_file(base: BaseBackup, rng: Random) -> str:
    """The file of a table of several pages, none of them newer than the backup."""
    start, found = base.start, base.contents.pages.items()
    return rng.choice(
        [name for name, seen in found if seen.pages > 3 and "_" not in name and seen.newest < start]
    )


@check(
    "base.page-headers",
    on=BaseBackup,
    severity="blocker",
    advice="The file is not what PostgreSQL wrote, or comes from another moment than this backup: "
    "restore from the set before it (`--without`), and find out what else writes to that volume.",
)
@of_every_link
def page_headers_make_sense(base: BaseBackup) -> Iterator[Observation]:
    """Every page of the newest base backup, and of those below it, is one, and of its time."""
    end = Lsn.parse(base.facts["end_lsn"])
    for name, report in base.contents.pages.items():
        yield Observation(name, _told(report.bad_headers))
        late = f"block {report.newest_block} is of {Lsn(report.newest)}, the backup ends at {end}"
        yield Observation(name, late if report.newest > end else None)


@page_headers_make_sense.detects
def page_from_the_future(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A file of a later day, copied in by hand: its checksums are right."""
    end = Lsn.parse(scratch.copy.facts["end_lsn"])
    later = Lsn(end + rng.randrange(1 << 20, 1 << 30))
    return pages.change_page(
        scratch, _table_file(scratch, rng), rng, lambda page, number: date(page, number, later)
    ).told_as("the backup ends at")


@page_headers_make_sense.detects
def header_garbled(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A page that something else than PostgreSQL computed a checksum for."""

    def rewrite(page: bytearray, number: int) -> None:
        page[pages.LOWER : pages.LOWER + 2] = _little(rng.randrange(PAGE_SIZE, 1 << 16), 2)
        _seal(page, number)

    return pages.change_page(scratch, _table_file(scratch, rng), rng, rewrite).told_as(
        "its parts end at"
    )


@page_headers_make_sense.detects
def last_page_cut(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A file system that lost the end of a file, before the backup listed it."""
    name, lost = _table_file(scratch, rng), rng.randrange(1, PAGE_SIZE)

    def cut(found: str, content: bytes) -> bytes:
        return content[:-lost] if found.removeprefix("./") == name else content

    backups.repack(scratch, cut, forged=True)
    return Damage(
        name, f"its last {lost} bytes are gone, all lists agree", says="bytes that are no page"
    )


def date(page: bytearray, number: int, position: Lsn) -> None:
    """Have a page say that it was written at that position, with a checksum that is right."""
    high, low = position >> 32, position & 0xFFFFFFFF
    page[pages.POSITION : pages.POSITION + 8] = _little(high, 4) + _little(low, 4)
    _seal(page, number)


def _seal(page: bytearray, number: int) -> None:
    (checksum,) = page_checksums(bytes(page), number)
    page[pages.CHECKSUM : pages.CHECKSUM + 2] = _little(checksum, 2)


def _little(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little")
