"""A change event as its envelope tells it: of which table, by which change, and the row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.cdc.last_states import Position
from pipeline.cdc.routing import source_of, table_of
from pipeline.cdc.wire import Message, Undecodable

INCREMENTAL = "incremental"


@dataclass(frozen=True)
class Envelope:
    """What one record's value tells."""

    message: Message
    source: Mapping[str, Any]
    op: str

    @property
    def table(self) -> str:
        return table_of(self.source)

    @property
    def lsn(self) -> int | None:
        return self.source.get("lsn")

    @property
    def xid(self) -> int | None:
        return self.source.get("txId")

    @property
    def position(self) -> Position | None:
        """Where in the stream it is. `sequence` begins with the end of the transaction before."""
        if self.lsn is None:
            return None
        try:
            ended, _ = json.loads(self.source.get("sequence") or "[null, null]")
            return (None if ended is None else int(ended)), self.lsn
        except (ValueError, TypeError) as error:
            raise Undecodable(f"its sequence is {self.source['sequence']!r}") from error

    @property
    def rereads(self) -> bool:
        """Whether it is of a snapshot of every row, not one that runs beside the stream."""
        return self.op == "r" and self.source.get("snapshot") != INCREMENTAL

    @property
    def row(self) -> Message:
        """The row as it is behind the change; Undecodable where it tells of none."""
        values = self.message.values.get("after")
        if not isinstance(values, Mapping):
            raise Undecodable(f"an event of operation {self.op!r} has no row")
        shape = self.message.fields.get("after")
        fields = dict(shape.fields) if shape else {}
        name, bare = shape.name if shape else "", self.message.bare
        return Message(name, fields, values, bare, self.message.number)


def envelope(message: Message) -> Envelope:
    """Read a decoded value as an event; Undecodable where it has no envelope with its source."""
    if (source := source_of(message.values)) is None:
        raise Undecodable("it has no envelope that names its table")
    return Envelope(message, source, str(message.values.get("op")))
