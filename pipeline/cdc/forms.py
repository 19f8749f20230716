"""A column, the shape of its values in an event, and the form in which both are compared."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ServerError

CONNECT = "org.apache.kafka.connect.data."
TIME = "io.debezium.time."
DATA = "io.debezium.data."


class NotComparable(ServerError):
    """Nothing tells which value of the table a value of an event is."""


@dataclass(frozen=True)
class Column:
    """A column of a table: domains are resolved to the type that they are over.

    `kind` is pg_type's name, `category` its typcategory, `digits` the precision of a numeric,
    a time or a timestamp, and the length of a bit string.
    """

    name: str
    kind: str
    category: str = ""
    digits: int | None = None
    scale: int | None = None
    element: "Column | None" = None

    def __str__(self) -> str:
        return f"{self.name} {self.element.kind}[]" if self.element else f"{self.name} {self.kind}"


@dataclass(frozen=True)
class Shape:
    """What a message's schema says of a value: Connect's type, its semantic name, its scale."""

    type: str
    name: str = ""
    scale: int | None = None
    items: "Shape | None" = None
    fields: tuple[tuple[str, "Shape"], ...] = ()
    """Of a struct: that of a row, in an envelope."""

    def __str__(self) -> str:
        return f"{self.type} {self.name}".rstrip()


@dataclass(frozen=True)
class Form:
    """How both sides become comparable; equal by name, so that equal schemas are compared once."""

    name: str
    event: Callable[[Any], Hashable] = field(compare=False)
    table: Callable[[str], Hashable] = field(compare=False)
    loses: str = ""
    """What an event in this form does not tell, where it tells less than the column."""
    otherwise: Callable[[str], tuple[Hashable, ...]] | None = field(default=None, compare=False)
    """As what else a row's value may be found, where snapshots of Debezium get it wrong."""

    def of_row(self, text: str) -> tuple[Hashable, ...]:
        """Give every form in which a row's value may be in the topic, the right one first."""
        right = self.table(text)
        return (right, *self.otherwise(text)) if self.otherwise else (right,)


Maker = Callable[[Column, Shape], Form | None]
"""Chooses the form for a type of columns; None where no rule compares it with that shape."""
