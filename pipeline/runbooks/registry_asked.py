"""What an operator asks of a recovery of the registry; its journal keeps it for who resumes it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self


class Way(StrEnum):
    """How schemas come back; each one keeps their ids, or says that it did not.

    By the topic that the registry keeps its state in, by its own export and import (Apicurio), or
    by registering each under its id in mode IMPORT (Confluent's interface).
    """

    STORAGE = "storage"
    EXPORT = "export"
    IDS = "ids"


@dataclass(frozen=True)
class Asked:
    """`backup` is the label of a set, None for the newest; `origin` the cluster of another one's.

    With `merge` a registry that holds something is added to, where nothing contradicts. `cdc` says
    that connectors are stopped meanwhile, and go on afterwards. `instead_of` names an unfinished
    recovery that nobody will go on with.
    """

    way: Way = Way.EXPORT
    backup: str | None = None
    origin: str | None = None
    merge: bool = False
    cdc: bool = True
    instead_of: str | None = None

    def as_facts(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """As the journal kept it."""
        known = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        return cls(**known | {"way": Way(facts["way"])})
