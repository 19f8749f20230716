"""What a logical slot with pgoutput sends, as typed changes (manual, 54.9, protocol version 1)."""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeAlias

from pipeline.errors import RestoreError
from pipeline.postgres.wal.lsn import Lsn

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_KEY = 1  # flag of a column
_TRANSACTIONAL = 1  # flag of a message
_CASCADE, _RESTART = 1, 2


class Unchanged(Enum):
    """The value of a column that lies in TOAST and was not written: the server does not send it."""

    TOAST = "unchanged"


Value: TypeAlias = str | Unchanged | None
Row: TypeAlias = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as it was when the row was changed."""

    name: str
    type_oid: int
    modifier: int
    in_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as of a change: the same table has another one after each ALTER."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Transaction:
    """A committed transaction; `lsn` is the start of its commit record, which orders them."""

    xid: int
    lsn: Lsn
    time: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One row. `old` is whole under REPLICA IDENTITY FULL, else the key where it is told at all.

    `lsn` is that of its record, by which Debezium tells events apart; rows of a COPY share one.
    """

    transaction: Transaction
    lsn: Lsn
    relation: Relation
    operation: str
    old: Row | None
    new: Row | None

    @property
    def key(self) -> Row:
        """What names the row now, or named it before it was deleted; empty without identity."""
        row = self.new if self.new is not None else self.old or {}
        return {each.name: row[each.name] for each in self.relation.columns if each.in_key}


@dataclass(frozen=True, slots=True)
class Truncation:
    """Tables that were emptied together."""

    transaction: Transaction
    lsn: Lsn
    relations: tuple[Relation, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class Message:
    """What pg_logical_emit_message() wrote; outside of any transaction where it has none."""

    transaction: Transaction | None
    lsn: Lsn
    prefix: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """The end of a transaction: all of its changes came before."""

    transaction: Transaction
    end_lsn: Lsn


Event: TypeAlias = Change | Truncation | Message | Committed


class _Reader:
    """Takes one message apart, from its first byte to its last."""

    def __init__(self, message: bytes) -> None:
        self._message, self._at = message, 0

    def kind(self) -> str:
        self._at += 1
        return chr(self._message[self._at - 1])

    def numbers(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from(f"!{layout}", self._message, self._at)
        self._at += struct.calcsize(f"!{layout}")
        return found

    def number(self, layout: str) -> int:
        return self.numbers(layout)[0]

    def text(self) -> str:
        end = self._message.index(b"\0", self._at)
        found = self._message[self._at : end]
        self._at = end + 1
        return _text(found)

    def octets(self) -> bytes:
        size = self.number("I")
        self._at += size
        return self._message[self._at - size : self._at]

    def moment(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.number("q"))

    def value(self) -> Value:
        match self.kind():
            case "n":
                return None
            case "u":
                return Unchanged.TOAST
            case "t":
                return _text(self.octets())
            case other:
                raise RestoreError(f"pgoutput: expected a value as text, found kind {other!r}")

    def row(self, relation: Relation, *, only_key: bool = False) -> Row:
        if (count := self.number("H")) != len(relation.columns):
            raise RestoreError(
                f"pgoutput: expected {len(relation.columns)} values of {relation}, found {count}"
            )
        values = [self.value() for _ in relation.columns]
        return {
            column.name: value
            for column, value in zip(relation.columns, values, strict=True)
            if column.in_key or not only_key
        }

    def finish(self) -> None:
        if self._at != len(self._message):
            left = len(self._message) - self._at
            raise RestoreError(f"pgoutput: {left} bytes are left of {self._message[:60]!r}…")


def _text(octets: bytes) -> str:
    # a database of encoding SQL_ASCII promises nothing about its bytes
    return octets.decode(errors="surrogateescape")


class Decoder:
    """Remembers what tables look like, and in which transaction the stream is.

    RestoreError for whatever is not of the protocol: what is not understood is never passed over.
    """

    def __init__(self) -> None:
        self._relations = dict[int, Relation]()
        self._open: Transaction | None = None

    def decode(self, message: bytes, lsn: Lsn) -> Event | None:
        """Answer what the message at a position tells; None where it describes what follows."""
        try:
            return self._decoded(message, lsn)
        except (struct.error, ValueError, IndexError, KeyError) as error:
            raise RestoreError(f"pgoutput: cannot be read: {message[:60]!r}…: {error}") from error

    def _decoded(self, message: bytes, lsn: Lsn) -> Event | None:
        reader = _Reader(message)
        event: Event | None = None
        match reader.kind():
            case "B":
                self._begin(reader)
            case "C":
                event = self._commit(reader)
            case "R":
                self._describe(reader)
            case "I" | "U" | "D" as kind:
                event = self._change(kind, reader, lsn)
            case "T":
                event = self._truncation(reader, lsn)
            case "M":
                event = self._message(reader)
            case "Y":  # a type of somebody's own: its values come as text
                reader.number("I"), reader.text(), reader.text()
            case "O":  # where it was first written; nothing here asks
                reader.number("Q"), reader.text()
            case other:
                raise RestoreError(f"pgoutput: message of an unknown kind {other!r}")
        reader.finish()
        return event

    def _begin(self, reader: _Reader) -> None:
        if self._open is not None:
            raise RestoreError(f"pgoutput: transaction {self._open.xid} was not ended")
        lsn, time = Lsn(reader.number("Q")), reader.moment()
        self._open = Transaction(reader.number("I"), lsn, time)

    def _commit(self, reader: _Reader) -> Committed:
        transaction, self._open = self._transaction(), None
        _, lsn, end = reader.numbers("BQQ")
        reader.moment()
        if lsn != transaction.lsn:
            raise RestoreError(
                f"pgoutput: commit of {transaction.xid}: expected {transaction.lsn}, "
                f"found {Lsn(lsn)}"
            )
        return Committed(transaction, Lsn(end))

    def _describe(self, reader: _Reader) -> None:
        oid, schema, name = reader.number("I"), reader.text(), reader.text()
        identity, columns = reader.kind(), list[Column]()
        for _ in range(reader.number("H")):
            flags, column = reader.number("B"), reader.text()
            type_oid, modifier = reader.numbers("Ii")
            columns.append(Column(column, type_oid, modifier, bool(flags & _KEY)))
        # the protocol leaves the name of pg_catalog out
        relation = Relation(oid, schema or "pg_catalog", name, identity, tuple(columns))
        self._relations[oid] = relation

    def _change(self, kind: str, reader: _Reader, lsn: Lsn) -> Change:
        relation, old, new = self._relations[reader.number("I")], None, None
        part = reader.kind()
        if part in "KO":
            old = reader.row(relation, only_key=part == "K")
            part = reader.kind() if kind == "U" else ""
        if part == "N":
            new = reader.row(relation)
        name, wanted = {
            "I": ("insert", new is not None and old is None),
            "U": ("update", new is not None),
            "D": ("delete", new is None and old is not None),
        }[kind]
        if not wanted:
            raise RestoreError(f"pgoutput: {name} in {relation} without its row")
        return Change(self._transaction(), lsn, relation, name, old, new)

    def _truncation(self, reader: _Reader, lsn: Lsn) -> Truncation:
        count, options = reader.numbers("IB")
        relations = tuple(self._relations[reader.number("I")] for _ in range(count))
        cascade, restart = bool(options & _CASCADE), bool(options & _RESTART)
        return Truncation(self._transaction(), lsn, relations, cascade, restart)

    def _message(self, reader: _Reader) -> Message:
        flags, lsn = reader.numbers("BQ")
        transaction = self._transaction() if flags & _TRANSACTIONAL else None
        return Message(transaction, Lsn(lsn), reader.text(), reader.octets())

    def _transaction(self) -> Transaction:
        if self._open is None:
            raise RestoreError("pgoutput: a change outside of a transaction")
        return self._open
