"""Two threads for one stream: the next blocks are made while the last ones are worked on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Queue
from threading import Event, Thread

DEPTH = 8  # blocks that may wait


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None = None


@contextmanager
def ahead(blocks: Iterable[bytes]) -> Iterator[Iterator[bytes]]:
    """Give the same blocks, made by another thread; an error of theirs is raised where they end.

    It helps where both sides leave the interpreter: hashing, compressing, reading and writing do.
    At the end of the context that thread has ended too, whether all blocks were taken or not.
    """
    waiting: Queue[bytes | _Ended] = Queue(DEPTH)
    given_up = Event()

    def fill() -> None:
        error = None
        try:
            for block in blocks:
                if given_up.is_set():
                    break
                waiting.put(block)
        except BaseException as found:  # noqa: BLE001 - raised again where the blocks are taken
            error = found
        waiting.put(_Ended(error))

    ended: list[_Ended] = []

    def taken() -> Iterator[bytes]:
        while not isinstance(block := waiting.get(), _Ended):
            yield block
        ended.append(block)
        if block.error is not None:
            raise block.error

    thread = Thread(target=fill)
    thread.start()
    try:
        yield taken()
    finally:
        given_up.set()
        while not ended:
            if isinstance(block := waiting.get(), _Ended):
                ended.append(block)
        thread.join()
