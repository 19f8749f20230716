"""The events that a lost slot never sent, told exactly: each once, before the new slot's first.

The stretch is decoded twice from base backup and archive. First by ourselves, without writing:
which changes are in no topic, by the place that an event's `source` names? Then by the connector's
stand-in (pipeline.cdc.stand_in), from the first of those on. In the end the topics are read again.
A run that is killed leaves what it wrote, and the next one finds it.
"""

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pipeline.cdc import stand_in
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.needs import Need
from pipeline.cdc.redecoded import NotTold, Owed
from pipeline.cdc.resnapshot import stop_connectors
from pipeline.cdc.signalled import POSITION, patch
from pipeline.cdc.stand_in import ChangePlace, StandIn
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.wire import Decoder
from pipeline.config import PipelineConfig
from pipeline.errors import RecoveryRefused, RestoreError, TargetUnreachable
from pipeline.postgres.redecode.decoding import Door
from pipeline.postgres.redecode.pgoutput import Committed
from pipeline.postgres.redecode.standby import CataloguesPruned
from pipeline.postgres.redecode.telling import as_facts
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.registry.client import RegistryClient
from pipeline.runbooks import live, redecoding
from pipeline.runbooks.runbook import Facts
from pipeline.runbooks.side import alone

LOOPBACK = "127.0.0.1"
FOR_GOOD = (CataloguesPruned, NotTold, TargetUnreachable)
"""Errors that do not pass by themselves: what is left is to read every row again."""
_HERE = {LOOPBACK, "localhost", "::1"}


def obstacles(config: PipelineConfig, now: Reading, found: Sequence[Need]) -> Iterator[str]:
    """Say why what is missing cannot be told exactly; nothing is started or written for it.

    That the catalogues were not pruned, only decoding tells; it comes before anything is written.
    """
    for need in found:
        if need.reread and not need.gap:
            yield str(need)
    if (each := reader(config, now)) is None:
        yield f"no connector, or more than one, reads slot {config.cdc.slot!r}"
        return
    for told in (*stand_in.unfit(each.config), *_elsewhere(config, each)):
        yield f"{each.name}: {told}"
    offsets = [one.lsn for one in each.mine]
    if len(offsets) != 1 or offsets[0] is None:
        yield f"{each.name}: no offset tells what it has sent"
        return
    try:
        _free_port(_address(config))
    except RestoreError as error:
        yield str(error)
    yield from redecoding.obstacles(config, offsets[0])


def reader(config: PipelineConfig, now: Reading) -> Connector | None:
    """Find the one connector of ours that reads the slot."""
    found = [each for each in now.connectors if each.own and each.slot == config.cdc.slot]
    return found[0] if len(found) == 1 else None


def _elsewhere(config: PipelineConfig, each: Connector) -> Iterator[str]:
    for setting, expected in (
        ("publication.name", config.cdc.publication),
        ("topic.prefix", config.cdc.topic_prefix),
    ):
        if (found := each.told(setting)) != expected:
            yield f"{setting} is {found!r}, expected {expected!r}"
    address = config.scratch and config.scratch.address
    if address is None and urlsplit(config.connect.url).hostname not in _HERE:
        yield f"its worker at {config.connect.url} reaches no side server: set scratch.address"


@dataclass
class Redelivery:
    """What one connector owes up to `end`, where its slot begins now. Close it."""

    config: PipelineConfig
    connector: str
    end: Lsn
    progress: Callable[[str], None]
    began: bool = False
    """Whether events may have been written."""
    _owed: Owed = field(default_factory=Owed)
    _ends: dict[Lsn, Lsn] = field(default_factory=dict)
    """Where a transaction ends, by where its commit begins."""
    _missing: list[ChangePlace] = field(default_factory=list)
    _before: Mapping[str, Any] | None = None
    """The last change before the first that is missing."""

    def close(self) -> None:
        self._owed.close()

    def prove(self) -> Facts:
        """Decode the stretch, and find what is in no topic; writes nothing.

        Raises PipelineError where it cannot be decoded whole, or topics do not tell.
        """
        with self._client() as client, connect(self.config.postgres, autocommit=True) as source:
            one = self._stand_in(client)
            one.remove()
            start, told, changes = self._start(one), one.settings, 0
            live.handed_over(source, self.config)
        with redecoding.redecoded(self.config, start, self.end, self.progress) as events:
            for event in events:
                if isinstance(event, Committed):
                    self._ends[event.transaction.lsn] = event.end_lsn
                    continue
                for facts in stand_in.captured(told, as_facts(event)):
                    self._owed.hold(facts)
                    changes += 1
        self._look()
        before: Mapping[str, Any] | None = None
        for facts, there in self._owed.judged():
            if not there:
                self._before = self._before if self._missing else before
                self._missing.append(_place(facts))
            before = facts
        self.progress(f"  {len(self._missing):,} of {changes:,} changes are in no topic")
        return {
            "from": str(start),
            "to": str(self.end),
            "changes": changes,
            "missing": len(self._missing),
        }

    def tell(self) -> Facts:
        """Have the stand-in tell what is missing, and prove that nothing is any more."""
        if self._missing:
            with self._client() as client:
                self._told_by(self._stand_in(client))
            self._look()
            if left := list(self._owed.missing()):
                raise RestoreError(
                    f"{len(left)} changes are in no topic still, the first at {left[0]['at']}, "
                    f"transaction {left[0]['xid']}: {left[0]['op']} {left[0].get('table', '')}"
                )
        repeated = dict(self._owed.repeated)
        for topic, count in repeated.items():
            self.progress(f"  {topic}: {count:,} events of this stretch are there more than once")
        return {"produced": len(self._missing), "repeated": repeated}

    def _told_by(self, one: StandIn) -> None:
        door, waiting = self._door(one), deque(self._missing)
        start = confirmed = self._start(one)
        with redecoding.opened(self.config, start, self.end, self.progress, door) as steps:
            try:
                for step in steps:
                    last = None
                    while waiting and waiting[0].commit < step:
                        last = waiting.popleft()
                    if last is not None:
                        if not self.began:  # Connect asks the server before it takes a connector
                            one.make(door)
                        begins = _at(confirmed) if self.began else self._position(confirmed)
                        self.began = True
                        one.tell(begins, last)
                    if not waiting:
                        return
                    confirmed = step
            finally:
                one.remove()

    def _position(self, confirmed: Lsn) -> Mapping[str, Any]:
        """Behind what it shall go on, as Debezium stores it: a commit, or a change within one.

        Not within where the missing change shares the record of the one before: what the topics
        have of that transaction comes again then. A slot is not read from before what it confirmed.
        """
        first, before = self._missing[0], self._before
        earlier = (end for commit, end in self._ends.items() if commit < first.commit)
        told = _at(max([confirmed, *earlier]))
        if before is None or (place := _place(before)).commit != first.commit:
            return told
        if place.at == first.at:
            return told
        within = dict.fromkeys(("lsn", "lsn_proc"), int(place.at))
        return {**told, **within, "txId": place.xid, "messageType": before["op"].upper()}

    def _look(self) -> None:
        with RegistryClient(self.config.registry) as registry:
            for told in self._owed.look(self.config, Decoder(registry.schema_by_id)):
                self.progress(f"  {told}")

    def _client(self) -> ConnectClient:
        return ConnectClient(self.config.connect)

    def _stand_in(self, client: ConnectClient) -> StandIn:
        return StandIn(client, self.connector, self.config.cdc.topic_prefix)

    def _start(self, one: StandIn) -> Lsn:
        if (start := one.stored.lsn) is None:
            raise RestoreError(f"{self.connector}: its snapshot did not come to its end")
        return start

    def _door(self, one: StandIn) -> Door:
        address = _address(self.config)
        return Door(address, _free_port(address), one.settings["database.user"])


def _address(config: PipelineConfig) -> str:
    return (config.scratch and config.scratch.address) or LOOPBACK


def _free_port(address: str) -> int:
    """Find a port of an address of this machine; RestoreError where it is none."""
    try:
        (family, *_), *_ = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
        with closing(socket.create_server((address, 0), family=family)) as free:
            return int(free.getsockname()[1])
    except OSError as error:
        raise RestoreError(
            f"no side server can listen on {address}: {error}. [scratch] address is of this machine"
        ) from error


def forget(config: PipelineConfig, connectors: Iterable[str]) -> None:
    """Leave nothing of a stand-in, or of its server, that a killed run left behind."""
    with ConnectClient(config.connect) as client:
        for name in connectors:
            StandIn(client, name, config.cdc.topic_prefix).remove()
    if config.scratch is not None:
        with suppress(RecoveryRefused), alone(config):  # who holds it is at work
            pass


def went_on(config: PipelineConfig, connector: str, end: Lsn, begins: Lsn | None) -> bool:
    """Whether an earlier run handed over, and the slot has nothing that the offset has not."""
    with ConnectClient(config.connect) as client:
        stored = StandIn(client, connector, config.cdc.topic_prefix).stored.lsn
    return stored is not None and begins is not None and stored >= end and begins <= stored


def hand_over(config: PipelineConfig, connector: str, end: Lsn) -> None:
    """Say that everything up to there was told, unless it has gone on from there already."""
    with ConnectClient(config.connect) as client:
        one = StandIn(client, connector, config.cdc.topic_prefix)
        if (one.stored.lsn or Lsn(0)) < end:
            stop_connectors(client, [connector])
            patch(client, connector, one.prefix, end)


def _at(commit: Lsn) -> Mapping[str, Any]:
    """An offset by which all before was told."""
    return {**dict.fromkeys(POSITION, int(commit)), "messageType": "COMMIT"}


def _place(facts: Mapping[str, Any]) -> ChangePlace:
    at = Lsn.parse(facts["at"])
    return ChangePlace(Lsn.parse(facts["lsn"]) if facts["lsn"] else at, at, facts["xid"])
