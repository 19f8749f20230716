"""Publication and slot as a set has them, made again on the server: the publication first.

A slot that is made now begins now. What was committed before is for nobody behind it, so none is
made while a connector could go on by it over the gap: `recover cdc` brings the connectors along.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.cdc import needs
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors
from pipeline.cdc.needs import Wanted
from pipeline.cdc.resnapshot import prepare_source
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import Reading
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.postgres.replication import advance
from pipeline.postgres.replication.publications import differences, recreate
from pipeline.postgres.replication.slots import Connection, Slot, find_slot
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.runbooks.cdc_preconditions import publication, room, server, slot_of_others
from pipeline.runbooks.runbook import Precondition

_READ = (Part.SERVER, Part.SLOTS, Part.PUBLICATIONS)


def mend(connection: Connection, name: str, wish: Wanted, *, new_slot: bool) -> list[str]:
    """Publication first, then a new slot with its flags where the old one cannot be read."""
    if wish.publication is None:
        raise ServerError(f"slot {name!r}: no publication is known that it could follow")
    if not new_slot:
        return recreate(connection, wish.publication)
    flags = Slot.of({"name": name, "failover": wish.failover, "two_phase": wish.two_phase})
    return prepare_source(connection, wish.publication, name, like=flags).mended


@dataclass(frozen=True)
class SlotRestore:
    """One restore of publication and slot; `now` is the server, `known` the set."""

    config: PipelineConfig
    now: Reading
    known: Reading
    to: Lsn | None = None
    without_connect: bool = False

    @property
    def wish(self) -> Wanted:
        return needs.wanted(self.config, self.now, self.known)

    def preconditions(self) -> Sequence[Precondition]:
        """List what has to hold before anything is made."""

        def read() -> Iterator[str]:
            yield from map(str, self.now.misses(_READ, [self.config.postgres.dbname]))

        return (
            Precondition("state", read, "Nothing is made by what was not read: start or grant it"),
            server(self.now),
            slot_of_others(self.config, self.now),
            publication(self.config, self.wish),
            room(self.config, self.now),
            Precondition(
                "connectors",
                self._running,
                "By a new slot it would go on over the gap in silence: stop it, then pipeline "
                "recover cdc, which does all of this",
                "--without-connect where Connect is away",
            ),
            Precondition(
                "position",
                self._skips,
                "Never move a slot to make an error go away: pipeline recover cdc",
            ),
        )

    def lines(self) -> Iterator[str]:
        """Say what would be made."""
        name, wish = self.config.cdc.slot, self.wish
        found = self.now.publication(self.config.postgres.dbname, self.config.cdc.publication)
        if wish.publication is not None:
            told = differences(wish.publication, found.publication if found else None)
            yield from (f"publication: {one}" for one in told)
        slot = self.now.slot(name)
        if self._unusable:
            flags = [flag for flag in ("failover", "two_phase") if getattr(wish, flag)]
            why = (slot.lost or "of before the publication") if slot else "not there"
            yield f"slot {name!r} is {why}: it is made with {' and '.join(flags) or 'no flag'}"
        for other in (*self.now.slots, *self.known.slots):
            if other.name != name and self.now.slot(other.name) is None:
                yield f"slot {other.name!r} was there too, {other.plugin}: it is left to its owner"
        if self.to is not None:
            yield f"slot {name!r} is advanced to {self.to}"

    def run(self, progress: Callable[[str], None]) -> Slot:
        """Publication, slot, position; then read back that all is as it was wanted."""
        cdc, name = self.config.cdc, self.config.cdc.slot
        with connect(self.config.postgres, autocommit=True) as connection:
            for line in mend(connection, name, self.wish, new_slot=self._unusable):
                progress(f"  mended: {line}")
            if self.to is not None:
                advance.advance(connection, name, cdc.publication, self.to)
            slot = find_slot(connection, name)
        if slot is None or slot.lost:
            raise ServerError(f"slot {name!r} was made, and is now {slot and slot.lost}")
        return slot

    @property
    def missed(self) -> bool:
        """Whether events were missed that slot and offset do not tell of any more behind this."""
        found = list(needs.of_source(self.config, self.now, self.wish))
        return any(need.reread for need in found)

    @property
    def _unusable(self) -> bool:
        found = needs.of_source(self.config, self.now, self.wish)
        return any(need.new_slot for need in found)

    def _running(self) -> Iterator[str]:
        if self.without_connect or not self._unusable:
            return
        with ConnectClient(self.config.connect) as client:
            there = set(client.names())
            for name in own_connectors(self.config, client):
                if name in there and (state := client.status(name).state) != "STOPPED":
                    yield f"{name} is {state}"

    def _skips(self) -> Iterator[str]:
        if self.to is None:
            return
        if self._unusable:
            yield "a slot that is made now begins where the WAL ends now: leave --advance-to"
            return
        cdc = self.config.cdc
        with connect(self.config.postgres, autocommit=True) as connection:
            yield from advance.obstacles(connection, cdc.slot, cdc.publication, self.to)
