"""Blocks that another thread makes come in order, with their error, and leave no thread."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.repository.readahead import DEPTH, ahead


def made(count: int, taken: list[int], error: BaseException | None = None) -> Iterator[bytes]:
    for number in range(count):
        taken.append(number)
        yield bytes([number])
    if error is not None:
        raise error


def test_every_block_comes_once_and_in_order() -> None:
    threads = threading.active_count()
    with ahead(made(100, [])) as blocks:
        assert list(blocks) == [bytes([number]) for number in range(100)]
    assert threading.active_count() == threads


def test_an_error_comes_behind_the_blocks_that_were_made_before_it() -> None:
    with ahead(made(3, [], ValueError("cut"))) as blocks:
        assert [next(blocks) for _ in range(3)] == [b"\0", b"\1", b"\2"]
        with pytest.raises(ValueError, match="cut"):
            next(blocks)


def test_who_gives_up_ends_the_other_thread_and_memory_stays_bounded() -> None:
    taken: list[int] = []
    threads = threading.active_count()
    with ahead(made(200, taken)) as blocks:
        next(blocks)
    assert len(taken) <= DEPTH + 4
    assert threading.active_count() == threads
