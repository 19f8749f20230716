"""A second connector with the settings of the first, that tells what a lost slot never sent.

Nobody writes events as a connector does, with its converters, schema ids and partitions, but that
connector. So the events of a stretch are left to Debezium itself: beside the first one, which is
STOPPED, another reads a slot on a side server. It begins behind an offset that it is given before
it runs, as any connector does after a restart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple

from pipeline.cdc.connectors import ConnectClient, ConnectorOffset
from pipeline.cdc.include_lists import left_out, message_left_out, skips
from pipeline.cdc.names import unquoted
from pipeline.cdc.state.connect import StoredOffset
from pipeline.errors import RestoreError
from pipeline.postgres.redecode.decoding import Door
from pipeline.postgres.redecode.standby import SLOT
from pipeline.postgres.wal.lsn import Lsn
from pipeline.rest import POLL
from pipeline.wait import wait_until

Settings = Mapping[str, str]
SUFFIX = "-redecode"
ARRIVES = timedelta(hours=2)
"""How long the events of one step may take: a transaction of millions of rows is one."""
STORES = timedelta(seconds=60)
_SIGNALS = "signal.data.collection"
_WRITING = ("signal.", "notification.", "heartbeat.action.query")
"""Settings by which a connector writes to its database, or hears of what is not in the stretch."""
_LETTERS = {"insert": "c", "update": "u", "delete": "d", "truncate": "t"}
_STRATEGY = "io.debezium.schema.SchemaTopicNamingStrategy"
_ONLY = {
    "plugin.name": "pgoutput",
    "topic.naming.strategy": _STRATEGY,
    "topic.delimiter": ".",
    "skip.messages.without.change": "false",
}
"""Where a setting is another one, changes and events cannot be held against each other."""


class ChangePlace(NamedTuple):
    """Which change an event is of: where its commit and its own record begin, and whose it is."""

    commit: Lsn
    at: Lsn
    xid: int | None


def unfit(told: Settings) -> Iterator[str]:
    """Say why events of a connector with such settings could not be told, or not be proven."""
    if transforms := told.get("transforms"):
        yield f"transforms={transforms} may give events another form, or another topic"
    for setting, expected in _ONLY.items():
        if (found := told.get(setting, expected)) != expected:
            yield f"{setting} is {found!r}, expected {expected!r}"
    if keys := told.get("message.key.columns"):
        yield f"message.key.columns={keys} may give rows of one record of WAL the same key"
    if "${" in told.get("database.user", "${}"):
        yield "its database.user is known to its worker alone"
    if "database.password" not in told:
        yield "it has no database.password, by which a side server would know it"


def captured(told: Settings, facts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give a decoded change as often as a connector tells of it: of each table that it reads."""
    if facts["op"] == "message":
        if not message_left_out(told, facts["prefix"]):
            yield facts
        return
    signals = unquoted(told.get(_SIGNALS, ""))
    for table in facts.get("tables", (facts.get("table"),)):
        if (
            not skips(told, _LETTERS[facts["op"]])
            and table != signals
            and not left_out(told, table)
        ):
            yield {**{name: facts[name] for name in facts if name != "tables"}, "table": table}


@dataclass(frozen=True)
class StandIn:
    """It takes the place of the connector `original`; `prefix` is its topics'."""

    client: ConnectClient
    original: str
    prefix: str

    @property
    def name(self) -> str:
        return self.original + SUFFIX

    @cached_property
    def settings(self) -> dict[str, str]:
        """Those of the original."""
        return self.client.config(self.original)

    @cached_property
    def stored(self) -> StoredOffset:
        """Up to where the original has told everything."""
        for one in self.client.offsets(self.original):
            if one.partition == {"server": self.prefix}:
                return StoredOffset(partition=one.partition, offset=one.offset)
        raise RestoreError(f"{self.client.url}: {self.original} has no offset of {self.prefix!r}")

    def make(self, door: Door) -> None:
        """Create it STOPPED."""
        kept = {name: told for name, told in self.settings.items() if not name.startswith(_WRITING)}
        own = {
            "name": self.name,
            "database.hostname": door.address,
            "database.port": str(door.port),
            "database.sslmode": "disable",
            "slot.name": SLOT,
            "slot.drop.on.stop": "false",
            "publication.autocreate.mode": "disabled",
            "snapshot.mode": "no_data",
        }
        self.client.create(self.name, kept | own, stopped=True)
        self.client.wait_stopped(self.name)

    def tell(self, begins: Mapping[str, Any], last: ChangePlace) -> None:
        """Let it run from an offset on until the brokers have all up to a change, and stop it."""
        wanted = [ConnectorOffset({"server": self.prefix}, dict(begins))]

        def elsewhere() -> str | None:
            # right behind its creation a connector may read as one without any
            self.client.patch_offsets(self.name, wanted)
            found = self.client.offsets(self.name)
            return None if found == wanted else f"it stores {found}"

        wait_until(f"{self.name} begins at {dict(begins)}", elsewhere, within=STORES, every=POLL)
        self.client.resume(self.name)

        def behind() -> str | None:
            trouble = self.client.status(self.name).trouble or ""
            if "FAILED" in trouble:
                raise RestoreError(f"{self.client.url}: {self.name}: {trouble}")
            found = [one.offset for one in self.client.offsets(self.name)]
            return None if any(_reaches(one, last) for one in found) else f"{trouble} at {found}"

        what = f"{self.name} tells what was committed at {last.commit}"
        wait_until(what, behind, within=ARRIVES, every=POLL)
        self.client.stop(self.name)
        self.client.wait_stopped(self.name)

    def remove(self) -> None:
        """Leave nothing of it, also what a killed run left; its offsets would outlive it.

        Raises RestoreError where one that is not ours has its name.
        """
        if self.name in self.client.names():
            if (slot := self.client.config(self.name).get("slot.name")) != SLOT:
                raise RestoreError(
                    f"{self.client.url}: {self.name} reads slot {slot!r}: it is not ours, and has "
                    "the name that ours would have"
                )
            self.client.stop(self.name)
            self.client.wait_stopped(self.name)
            self.client.delete_offsets(self.name)
            self.client.delete(self.name)


def _reaches(offset: Mapping[str, Any], last: ChangePlace) -> bool:
    """Whether all up to a change was sent: its commit, or itself where nothing came behind it.

    Positions of changes alone tell nothing: those of transactions side by side lie among each
    other. Connect stores an offset once the brokers have every record up to it.
    """
    if int(offset.get("lsn_commit") or 0) > last.commit:
        return True
    return offset.get("lsn") == last.at and last.xid in {None, offset.get("txId")}
