"""What an operator asks of a recovery of topics; its journal keeps it for who resumes it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self


class Way(StrEnum):
    """Where the events of topics that CDC feeds come from; other topics have only the archive."""

    JOINED = "joined"
    CDC = "cdc"


@dataclass(frozen=True)
class Asked:
    """`topics` may be replaced, each by name; none means that only offsets of groups are missing.

    `archive` and `offsets` are labels of sets, None for the newest ones; those of another cluster
    need its id, `origin`. `lose` names topics whose
    records may be given up where they cannot be kept. `replication` is the count of replicas where
    it is not to be the archived one. `without_settings` are overrides that are not brought back.
    `without_topics` are not compared with their tables, and nothing is buried in them.
    `instead_of` names an unfinished recovery that nobody will go on with.
    """

    topics: Sequence[str] = ()
    way: Way = Way.JOINED
    archive: str | None = None
    offsets: str | None = None
    origin: str | None = None
    lose: Sequence[str] = ()
    replication: int | None = None
    without_settings: Sequence[str] = ()
    instead_of: str | None = None
    without_topics: Sequence[str] = ()

    def as_facts(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """As the journal kept it."""
        known = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        return cls(**known | {"way": Way(facts["way"])})

    def resumed(self, again: Self) -> Self:
        """Add what may still be said when it is resumed: what to lose, and how many replicas.

        Topics that are not compared take the place of those said before: a mistyped name only
        shows at the comparison, and could not be taken back otherwise.
        """
        return replace(
            self,
            lose=sorted({*self.lose, *again.lose}),
            replication=again.replication or self.replication,
            without_settings=sorted({*self.without_settings, *again.without_settings}),
            without_topics=sorted(again.without_topics or self.without_topics),
        )
