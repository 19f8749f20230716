"""What single message transforms of a connector do to events, as far as their settings tell."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.cdc.names import KEEP_TOPICS
from pipeline.errors import ConfigError

HARMLESS = KEEP_TOPICS - {"Filter", "ValueToKey", "ExtractField", "ExtractNewRecordState"}
"""They change what is in a value; topic, key and number of the events stay as they are."""
ROUTERS = {"ContentBasedRouter", "EventRouter", "TimestampRouter"}
REGEX_ROUTERS = {
    "RegexRouter": ("regex", "replacement"),
    "ByLogicalTableRouter": ("topic.regex", "topic.replacement"),
}
KEEPS_TOMBSTONES = {"tombstone", "delete-to-tombstone", "rewrite-with-tombstone"}
"""Values of delete.tombstone.handling.mode behind which a deleted key ends as a tombstone."""
UNWRAP = "ExtractNewRecordState"


@dataclass(frozen=True)
class Transform:
    """One of a connector's transforms; `kind` is its class without the package."""

    alias: str
    kind: str
    told: Mapping[str, str]
    predicate: Mapping[str, str]

    def harm(self, topic: str) -> str | None:
        """What it does to events of a topic that a recovery must not find undone, or None.

        Raises ConfigError where its class is none that is known here.
        """
        if not self._applies(topic):
            return None
        kind, _, part = self.kind.partition("$")
        if kind == "Filter":
            return "drops events"
        if part == "Key" or kind == "ValueToKey":
            return "changes keys: no event can be told to be of its row"
        if kind in ROUTERS or self._routes(kind, topic):
            return f"sends events elsewhere than to {topic}"
        if kind == UNWRAP:
            mode = self.told.get("delete.tombstone.handling.mode", "tombstone")
            return None if mode in KEEPS_TOMBSTONES else f"leaves no tombstone ({mode})"
        if kind not in HARMLESS | REGEX_ROUTERS.keys():
            raise ConfigError(
                f"transform {self.alias}: whether {self.kind} drops events, or sends them "
                "elsewhere, is not known: compare its topics with their tables"
            )
        return None

    def _applies(self, topic: str) -> bool:
        if not self.predicate.get("type", "").endswith("TopicNameMatches"):
            return True
        matches = re.fullmatch(self.predicate["pattern"], topic) is not None
        return matches != (self.told.get("negate", "false").lower() == "true")

    def _routes(self, kind: str, topic: str) -> bool:
        if kind not in REGEX_ROUTERS:
            return False
        regex, replacement = (self.told[name] for name in REGEX_ROUTERS[kind])
        found = re.fullmatch(regex, topic)
        return found is not None and found.expand(re.sub(r"\$(\d)", r"\\\1", replacement)) != topic


def of(told: Mapping[str, str]) -> Iterator[Transform]:
    """Yield the transforms of a connector in the order in which they are applied."""
    for alias in filter(None, (each.strip() for each in told.get("transforms", "").split(","))):
        own = _below(told, f"transforms.{alias}.")
        predicate = _below(told, f"predicates.{own['predicate']}.") if "predicate" in own else {}
        yield Transform(alias, own["type"].rpartition(".")[2], own, predicate)


def _below(told: Mapping[str, str], start: str) -> dict[str, str]:
    return {name.removeprefix(start): told[name] for name in told if name.startswith(start)}
