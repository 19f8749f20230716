"""What tables were at a moment, as a journal keeps it from one step of a restore to the next."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from psycopg import sql
from pydantic import TypeAdapter

from pipeline.postgres.logical.relations import Column, ForeignKey, Name, Relation
from pipeline.postgres.table.rewind import Rewound


@dataclass(frozen=True)
class Copied:
    """What tables were at the target: plain values, kept in the journal.

    `again` and `kept` are what was stated then of all that belongs to tables: to those that are
    missing and made again, and to those that the live server still has.
    """

    schema: str
    relations: tuple[Relation, ...]
    missing: tuple[Name, ...]
    columns: tuple[tuple[Column, ...], ...]
    objects: tuple[str, ...]
    gone: tuple[str, ...]
    digests: tuple[dict[str, Any], ...]
    keys: tuple[ForeignKey, ...]
    published: tuple[tuple[str, str, str], ...]
    again: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    schemas: tuple[str, ...] = ()
    """Statements that make schemas that are gone."""

    @property
    def rewound(self) -> list[Rewound]:
        """List tables whose rows are compared: partitions are their root's business."""
        return [
            Rewound(one, self.columns[place], sql.Identifier(self.schema, f"rows_{place + 1}"))
            for place, one in enumerate(holders(self.relations))
        ]

    @property
    def rows(self) -> int:
        return sum(table["rows"] for table in self.digests)

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """Read back what the journal kept as JSON."""
        return TypeAdapter(cls).validate_python(facts)


def holders(relations: Iterable[Relation]) -> list[Relation]:
    """Those whose rows are compared."""
    return [one for one in relations if not one.partition]
