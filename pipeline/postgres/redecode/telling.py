"""Decoded changes as plain values, and as lines for people."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.postgres.redecode.pgoutput import Change, Message, Row, Truncation, Unchanged

_LONGEST = 40  # of a value, for people
Facts = dict[str, Any]


def as_facts(event: Change | Truncation | Message) -> Facts:
    """Plain values: of the transaction, by its commit, and of the record, `at` its own place."""
    transaction = event.transaction
    told = {
        "xid": transaction.xid if transaction else None,
        "lsn": str(transaction.lsn) if transaction else None,
        "time": transaction.time.isoformat() if transaction else None,
        "at": str(event.lsn),
    }
    if isinstance(event, Message):
        content = event.content.decode(errors="backslashreplace")
        return told | {"op": "message", "prefix": event.prefix, "content": content}
    if isinstance(event, Truncation):
        tables = [str(each) for each in event.relations]
        options = {"cascade": event.cascade, "restart_identity": event.restart_identity}
        return told | {"op": "truncate", "tables": tables, **options}
    rows = {"key": event.key, "old": event.old, "new": event.new}
    missing = [name for name, value in (event.new or {}).items() if value is Unchanged.TOAST]
    return told | {
        "op": event.operation,
        "table": str(event.relation),
        **{name: None if row is None else _sent(row) for name, row in rows.items()},
        "unchanged": missing,
    }


def _sent(row: Row) -> dict[str, str | None]:
    return {name: value for name, value in row.items() if not isinstance(value, Unchanged)}


def heading(facts: Facts) -> str:
    """The line above the changes of a transaction."""
    return f"{facts['time']}  {facts['lsn']}  xid {facts['xid']}"


def line(facts: Facts) -> str:
    """One change for people; values that are long are cut."""
    if facts["op"] == "message":
        outside = "" if facts["xid"] else f"{facts['at']}  "
        return f"  {outside}message {facts['prefix']}: {_shown(facts['content'])}"
    if facts["op"] == "truncate":
        return f"  truncate {', '.join(facts['tables'])}"
    key, old, new = facts["key"], facts["old"], facts["new"]
    told = f"  {facts['op']} {facts['table']} {_row(key)}"
    if old is not None and new is not None:
        was = {name: value for name, value in old.items() if new.get(name, value) != value}
        now = {name: value for name, value in new.items() if old.get(name, None) != value}
        return f"{told}: {_row(was)} -> {_row(now)}"
    rest = new if new is not None else old or {}
    values = _row({name: value for name, value in rest.items() if name not in key})
    return f"{told}: {values}" if values else told


def _row(row: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in row.items())


def _shown(value: str | None) -> str:
    if value is None or len(value) <= _LONGEST:
        return "null" if value is None else repr(value)
    return f"{value[:_LONGEST]!r}… ({len(value):,} characters)"


class Count:
    """What went by, counted by table and operation, with the first and the last transaction."""

    def __init__(self) -> None:
        self.rows = Counter[tuple[str, str]]()
        self.transactions, self._first = 0, ""
        self._last = self._place = ""

    def take(self, facts: Facts) -> bool:
        """Count one change, and answer whether it is the first of its transaction."""
        tables = facts.get("tables") or filter(None, [facts.get("table")])
        self.rows.update((table, facts["op"]) for table in tables)
        if facts["lsn"] in {None, self._place}:
            return False
        self._place, self._last = facts["lsn"], str(facts["xid"])
        self._first = self._first or self._last
        self.transactions += 1
        return True

    def lines(self, what: str = "") -> Iterator[str]:
        """Yield the sum, `what` is said of it, and then each table."""
        total, many = sum(self.rows.values()), self.transactions
        of = f" of transaction {self._last}" if many == 1 else ""
        if many > 1:
            of = f" of {many:,} transactions, {self._first} to {self._last},"
        yield f"{total:,} changes{of}{what}"
        for (table, operation), rows in sorted(self.rows.items()):
            yield f"  {rows:>9,} {operation} of {table}"
