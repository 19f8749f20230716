"""How fast a slot falls behind: what `pipeline status cdc --watch` shows."""

from collections.abc import Iterator
from datetime import datetime

from pipeline.cdc.state.reading import SeenSlot, Server
from pipeline.postgres.wal.lsn import Lsn


class Pace:
    """Slots of one look beside those of the look before it."""

    def __init__(self) -> None:
        self._last: tuple[datetime, Lsn] | None = None

    def lines(self, server: Server, slots: tuple[SeenSlot, ...], at: datetime) -> Iterator[str]:
        """A line for each slot: who reads it, what waits, and how long the server will keep it."""
        rate = 0.0
        if self._last is not None and (passed := (at - self._last[0]).total_seconds()) > 0:
            rate = max(0.0, (server.flush_lsn - self._last[1]) / passed)
        self._last = at, server.flush_lsn
        yield f"{at:%H:%M:%S}Z  WAL ends at {server.flush_lsn}, {rate:,.0f} bytes a second"
        for slot in slots:
            yield _line(slot, server.flush_lsn, rate)


def _line(slot: SeenSlot, end: Lsn, rate: float) -> str:
    def behind(position: Lsn | None) -> str:
        return "unknown" if position is None else f"{max(0, end - position):,}"

    held = "read" if slot.active else "NOT READ"
    lag = "" if slot.slot_type == "physical" else f", {behind(slot.confirmed_flush_lsn)} behind"
    return (
        f"  {slot.name}: {slot.lost or held}{lag}, {behind(slot.restart_lsn)} bytes kept, "
        f"{_left(slot, rate)}"
    )


def _left(slot: SeenSlot, rate: float) -> str:
    """How long until the server lets go of its WAL, at this rate."""
    if slot.lost:
        return "it is lost"
    if slot.safe_wal_size is None:
        return "no limit"
    if slot.safe_wal_size <= 0:
        return "let go of at the next checkpoint"
    seconds = f"{slot.safe_wal_size / rate:,.0f} s" if rate else "never, at this rate"
    return f"let go of in {seconds}"
