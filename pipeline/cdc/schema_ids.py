"""Schema ids that the records of CDC topics carry: each must mean what it meant to its writer.

A registry that was emptied, or filled anew, answers every id that it lists itself. What counts is
the ids in the records, which outlive it. Format: a zero, and the id in four bytes
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

from pipeline.cdc.names import same_name
from pipeline.cdc.topics import sampled
from pipeline.cdc.wire import PREFIX, Decoder, Undecodable
from pipeline.config import PipelineConfig
from pipeline.registry.client import RegistryClient

SAMPLE = 200
"""Records that are decoded at each end of a partition."""


@dataclass
class _Said:
    """What the schemas of a topic's keys, or of its values, are called."""

    newest: tuple[int, str] = (-1, "")
    first: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, stem: str, moment: int, place: str, number: int) -> None:
        """Take in a record's; what is no struct has none."""
        if stem:
            self.first.setdefault(stem, (place, number))
            self.newest = max(self.newest, (moment, stem))


def problems(config: PipelineConfig, registry: RegistryClient, topics: Iterable[str]) -> list[str]:
    """Say which ids the registry does not know, or knows as the id of another schema."""
    decoder = Decoder(registry.schema_by_id)
    unknown = cache(lambda number: bool(registry.missing_ids([number])))
    wrong, renamed = defaultdict[tuple[str, str, int], list[str]](list), list[str]()
    for topic in topics:
        said = {"key": _Said(), "value": _Said()}
        for place, moment, part, raw in _framed(config, topic):
            number = int.from_bytes(raw[1:PREFIX], "big")
            try:
                name = decoder.message(raw).name
            except Undecodable as error:
                why = f"is of another schema: cannot decode the {part}: {error}"
                if unknown(number):
                    why = f"is unknown to the registry, and a {part} has it"
                wrong[topic, part, number].append(f"{place}: schema id {number} {why}")
            else:
                said[part].add(_stem(name), moment, place, number)
        renamed += _renamed(said)
    return [f"{told[0]}{_more(len(told))}" for told in wrong.values()] + renamed


def _framed(config: PipelineConfig, topic: str) -> Iterator[tuple[str, int, str, bytes]]:
    """Keys and values that begin with a schema's id, each with its place and time."""
    for record in sampled(config.kafka, topic, SAMPLE):
        place = f"{topic}[{record.partition()}]@{record.offset()}"
        for part, raw in (("key", record.key()), ("value", record.value())):
            if raw is not None and raw[:1] == b"\0" and len(raw) >= PREFIX:
                yield place, record.timestamp()[1], part, raw


def _stem(name: str) -> str:
    """Leave out whether it names a key, a row or its envelope: a transform changes that."""
    return name.rpartition(".")[0] or name


def _renamed(said: dict[str, _Said]) -> Iterator[str]:
    """A schema of the same shape decodes; the newest records' writer tells the table's name."""
    for part, each in said.items():
        newest = each.newest[1]
        for stem, (place, number) in each.first.items():
            if not same_name(stem, newest):
                yield (
                    f"{place}: schema id {number} is of another schema: it is called {stem!r}, "
                    f"that of the newest {part} {newest!r}"
                )


def _more(times: int) -> str:
    return f" ({times} of the records that were looked at)" if times > 1 else ""
