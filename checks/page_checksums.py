"""PostgreSQL's page checksum, for many pages at a time and without an extension in C.

FNV-1a in 32 lanes (storage/checksum_impl.h). One Python integer holds the lanes of all pages,
each in a slot of 64 bits: the product of a lane and the 25-bit prime never reaches the next slot,
so one multiplication serves thousands of lanes. tests/test_page_checksums.py compares with
PostgreSQL's own.
"""

from collections.abc import Iterator
from functools import lru_cache

from pipeline.postgres.wal.lsn import PAGE_SIZE

_PRIME = 16777619
_OFFSETS = (
    *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2),
    *(0x83E13D2C, 0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C),
    *(0xF718902A, 0x0B1C9CDB, 0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979),
    *(0xCCA6C0B2, 0x304A0979, 0x85AA43D4, 0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E),
    *(0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
)
_LANES = len(_OFFSETS)
_ROW = 4 * _LANES  # bytes that all lanes take at once
_AT_A_TIME = 128  # pages; more would fall out of the processor's cache
CHECKSUM = slice(8, 10)  # of a page: its checksum, which counts as zero


def page_checksums(pages: bytes, first_block: int) -> Iterator[int]:
    """Yield the checksum that each page should carry, as block number `first_block` and on."""
    for block, folded in enumerate(folded_sums(pages), first_block):
        yield checksum_in(block, folded)


def folded_sums(pages: bytes) -> Iterator[int]:
    """Yield for each page what its checksum is made of, wherever it lies."""
    for start in range(0, len(pages), _AT_A_TIME * PAGE_SIZE):
        part = bytearray(pages[start : start + _AT_A_TIME * PAGE_SIZE])
        count = len(part) // PAGE_SIZE
        for page in range(count):
            part[page * PAGE_SIZE + CHECKSUM.start : page * PAGE_SIZE + CHECKSUM.stop] = b"\0\0"
        yield from _sums(bytes(part), count)


def checksum_in(block: int, folded: int) -> int:
    """The checksum of a page that is that block of its relation."""
    return (folded ^ block) % 0xFFFF + 1


def _sums(part: bytes, count: int) -> Iterator[int]:
    """Yield for each page the lanes, exclusive-ored into one."""
    low, low15, even, odd = _constants(count)
    for row in range(0, PAGE_SIZE, _ROW):
        taken = b"".join(part[at : at + _ROW] for at in range(row, count * PAGE_SIZE, PAGE_SIZE))
        words = int.from_bytes(taken, "little")
        mixed = even ^ (words & low)
        even = (mixed * _PRIME & low) ^ (mixed >> 17 & low15)
        mixed = odd ^ (words >> 32 & low)
        odd = (mixed * _PRIME & low) ^ (mixed >> 17 & low15)
    for _ in range(2):  # two rounds of zeros mix the last words
        even = (even * _PRIME & low) ^ (even >> 17 & low15)
        odd = (odd * _PRIME & low) ^ (odd >> 17 & low15)
    both = (even ^ odd).to_bytes(count * _ROW, "little")
    for page in range(count):
        folded = int.from_bytes(both[page * _ROW : (page + 1) * _ROW], "little")
        for half in (512, 256, 128, 64):
            folded ^= folded >> half
        yield folded & 0xFFFFFFFF


@lru_cache(4)
def _constants(count: int) -> tuple[int, int, int, int]:
    """Masks over all slots (32 bits; the 15 that a shift by 17 leaves), and both starts."""
    slots = count * _LANES // 2
    low = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * slots, "little")
    low15 = int.from_bytes(b"\xff\x7f\0\0\0\0\0\0" * slots, "little")
    starts = [
        int.from_bytes(b"".join(n.to_bytes(8, "little") for n in lanes) * count, "little")
        for lanes in (_OFFSETS[::2], _OFFSETS[1::2])
    ]
    return low, low15, starts[0], starts[1]
