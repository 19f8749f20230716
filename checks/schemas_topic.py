"""Our own reading of `_schemas`, the topic in which Confluent's registry keeps its state.

It is not that registry, and is never reported as it. It replays records by the rules that are
documented of them (https://docs.confluent.io/platform/current/schema-registry/fundamentals/
index.html, "Kafka backend"), in the order of their offsets: the last word on a key counts.

| key, in JSON | value |
|---|---|
| SCHEMA, subject, version | the schema with its id; `deleted` where it is soft-deleted; null where it was deleted for good |
| DELETE_SUBJECT, subject | every version up to the one it names is soft-deleted |
| CONFIG, subject or none | a level of compatibility; null takes it back |
| MODE, subject or none | a mode; null takes it back |
| NOOP, CONTEXT | nothing to a schema |

Topics are compacted by the bytes of a key, not by what it says. A version whose key was written in
other bytes once stands there twice, and rises again when only one of both is deleted
(confluentinc/schema-registry#4420).
"""  # noqa: E501 - a table

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pipeline.registry.schemas import AVRO, Named, RegisteredSchema

TOPIC = "_schemas"
Json = Any
NOTHING = ("NOOP", "CONTEXT")


class Entry(NamedTuple):
    """A record of the topic."""

    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Fold:
    """What a registry knows behind the last record, and what it could not have read."""

    schemas: dict[Named, RegisteredSchema] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)
    highest: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    spellings: dict[Named, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def take(self, entry: Entry) -> None:
        """Take in the next record."""
        try:
            key = json.loads(entry.key or b"")
            kind = key["keytype"]
            # an empty value is no null: the registry cannot read it, and passes over it
            value = None if entry.value is None else json.loads(entry.value)
            self._take(kind, key, value, entry)
        except (ValueError, KeyError, TypeError) as error:
            told = f"neither key nor value of this format: {type(error).__name__}: {error}"
            self.problems.append((entry.offset, told))

    def _take(self, kind: str, key: Json, value: Json, entry: Entry) -> None:
        match kind:
            case "SCHEMA":
                self._schema((key["subject"], int(key["version"])), value, entry)
            case "DELETE_SUBJECT":
                self._delete(key["subject"], int(value["version"]))
            case "CONFIG":
                _set(self.levels, key.get("subject"), value and value["compatibilityLevel"])
            case "MODE":
                _set(self.modes, key.get("subject"), value and value["mode"])
            case _ if kind not in NOTHING:
                self.problems.append((entry.offset, f"keytype {kind} is not known here"))
            case _:
                pass

    def _schema(self, named: Named, value: Json, entry: Entry) -> None:
        if value is None:
            self.schemas.pop(named, None)
            self.spellings[named].discard(entry.key or b"")
            return
        self.spellings[named].add(entry.key or b"")
        one = RegisteredSchema(
            subject=named[0],
            version=named[1],
            id=int(value["id"]),
            schema=value["schema"],
            type=value.get("schemaType") or AVRO,
            references=tuple(value.get("references") or ()),
            deleted=bool(value.get("deleted")),
        )
        if (value["subject"], int(value["version"])) != named:
            told = f"its key says {named}, its value {value['subject']} {value['version']}"
            self.problems.append((entry.offset, told))
        self.schemas[named] = one
        self.highest = max(self.highest, one.id or 0)

    def _delete(self, subject: str, upto: int) -> None:
        for named, one in self.schemas.items():
            if named[0] == subject and named[1] <= upto:
                self.schemas[named] = replace(one, deleted=True)

    def rising(self) -> list[Named]:
        """Versions that are gone here, and that a compaction by bytes would bring back."""
        return [
            named for named, keys in self.spellings.items() if keys and named not in self.schemas
        ]

    def collisions(self) -> list[str]:
        """Ids that stand for two schemas."""
        first: dict[int, RegisteredSchema] = {}
        told = []
        for one in self.schemas.values():
            other = first.setdefault(one.id or 0, one)
            if other.fingerprint != one.fingerprint:
                told.append(f"id {one.id} is {other} and {one}")
        return told


def _set(of: dict[str, str], subject: str | None, value: str | None) -> None:
    if value is None:
        of.pop(subject or "", None)
    else:
        of[subject or ""] = value


def fold(entries: Iterable[Entry]) -> Fold:
    """Replay records in their order."""
    found = Fold()
    for entry in entries:
        found.take(entry)
    return found
