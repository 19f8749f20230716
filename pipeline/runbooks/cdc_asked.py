"""What an operator asks of a recovery of CDC; its journal keeps it for who resumes it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self


class Way(StrEnum):
    """How events come back that may be in no topic."""

    NEEDED = "needed"
    """Go on where all is sound; else decode what is missing again, or read every row again."""
    REDECODE = "redecode"
    """As needed, but rows are never read again."""
    REREAD = "reread"
    """Read every row again, whatever positions say."""
    SIGNAL = "signal"
    """As needed, but rows are read again in chunks beside the stream: an incremental snapshot."""


@dataclass(frozen=True)
class Asked:
    """What a recovery may do and by which set.

    `source` is the label of a set of kind slots, None for the newest one of this server; one of
    another needs the identifier of that, `origin`. `terminate` is the process of a stranger that
    reads our slot and is ended. `secrets` gives files with what the set has masked in settings, by
    name. `keep_publication` leaves the publication as it is. `without_topics` are not compared with
    their tables, and nothing is buried in them.
    """

    way: Way = Way.NEEDED
    source: str | None = None
    origin: str | None = None
    terminate: int | None = None
    secrets: Mapping[str, str] | None = None
    keep_publication: bool = False
    without_topics: Sequence[str] = ()

    def as_facts(self) -> dict[str, Any]:
        """As the journal keeps it; of a secret only where it is."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """As the journal kept it."""
        known = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        return cls(**known | {"way": Way(facts["way"])})

    def resumed(self, again: Self) -> Self:
        """Take what is said when it is resumed, where something is."""
        return replace(
            self,
            way=self.way if again.way is Way.NEEDED else again.way,
            terminate=again.terminate or self.terminate,
            secrets={**(self.secrets or {}), **(again.secrets or {})},
            without_topics=sorted(again.without_topics or self.without_topics),
        )
