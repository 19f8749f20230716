"""How far a long copy or reading is, told every few seconds."""

import threading
import time
from collections.abc import Callable

SAY_EVERY = 5.0  # seconds


class Tally:
    """Bytes that are done, by any thread, told every few seconds with rate and time left."""

    def __init__(self, what: str, total: int, tell: Callable[[str], None]) -> None:
        self._what, self._total, self._tell = what, total, tell
        self._lock, self._began, self._done = threading.Lock(), time.monotonic(), 0
        self._next = self._began + SAY_EVERY

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + SAY_EVERY
            rate = self._done / (now - self._began)
            left = max(0, self._total - self._done) / rate
            line = f"{self._what} {self._done:,} of {self._total:,} bytes, {rate / 1e6:,.1f} MB/s"
        self._tell(f"{line}, about {left:,.0f} s left")
