"""What breaks off in the middle: a plug is pulled, or something happens while bytes are stored."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipeline.repository.store import FolderStore, StoredObject


class Power(BaseException):
    """What no step may catch: the plug is pulled."""


class Interrupted(FolderStore):
    """A store during whose first block something happens to the sender."""

    def __init__(self, root: Path, strike: Callable[[], None]) -> None:
        super().__init__(root)
        self._strike = strike

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        return super().put(key, self._struck(chunks))

    def _struck(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        blocks = iter(chunks)
        yield next(blocks)
        self._strike()
        yield from blocks
