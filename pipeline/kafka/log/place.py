"""Where something is in Kafka: a partition of one life of a topic, and an offset in it."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Place:
    """A partition of one life of a topic: made anew, a topic has another id."""

    topic: str
    topic_id: Any
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Spot(NamedTuple):
    """An offset in a partition, where a consumer would go on."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"
