"""Schema ids that the records of topics carry: each must mean what it meant to its writer.

A registry that was emptied, or filled anew, answers every id that it lists itself. What counts is
the ids in the records, which outlive it: each is asked for, held against the text that the backup
of the registry knew, and records are decoded by what it answers.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from pipeline.cdc.framed import KEY, VALUE, Seen, number_of, reframed
from pipeline.cdc.names import same_name
from pipeline.cdc.schemas import Known
from pipeline.cdc.topics import sampled
from pipeline.cdc.wire import Decoder, Undecodable
from pipeline.config import PipelineConfig
from pipeline.registry.client import RegistryClient, SchemaMissing
from pipeline.registry.schemas import AVRO, canonical

SAMPLE = 200
"""Records that are decoded at each end of a partition."""


class _Framed(NamedTuple):
    """A key or value that begins with a schema's id."""

    place: str
    moment: int
    part: str
    raw: bytes
    number: int


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


def problems(
    config: PipelineConfig,
    registry: RegistryClient,
    topics: Iterable[str],
    *,
    then: Known | None = None,
    services: Collection[str] = (),
) -> list[str]:
    """Say which ids the registry does not know, or knows as the id of another schema.

    `then` is what the newest backup of the registry knew. Topics of `services` hold whatever these
    like, under any name: what only looks framed is left alone there, unless all of it does.
    """
    asked = _Asked(registry, then)
    told = list[str]()
    for topic in topics:
        of_service = topic in services
        lines, said = _of_topic(asked, topic, _framed(config, topic, of_service=of_service))
        told += [*lines, *([] if of_service else _renamed(said))]
    return told


class _Asked:
    """The registry, which is asked for each id once."""

    def __init__(self, registry: RegistryClient, then: Known | None) -> None:
        self.then, self._registry = then, registry
        self._decoder = Decoder(registry.schema_by_id)
        self.wrong = cache(self._wrong)
        self._type = cache(registry.type_by_id)

    def _wrong(self, number: int) -> str | None:
        """Say why an id is not what it was, as far as that is seen without a record."""
        try:
            text = self._registry.schema_by_id(number)
        except SchemaMissing:
            return "is unknown to the registry, and a {part} has it"
        was = self.then.inventory.by_id.get(number) if self.then else None
        if was is None or canonical(was.type, text) == canonical(was.type, was.schema or ""):
            return None
        label = self.then.label if self.then else ""
        return f"is of another schema: it was {was} in {label}, and its text is another one now"

    def name_of(self, number: int, raw: bytes) -> str:
        """Decode, and tell what the schema is called; Undecodable where it does not fit."""
        try:
            return self._decoder.message(reframed(raw, number)).name
        except Undecodable:
            if self._type(number) != AVRO:
                return ""  # only Avro is decoded here
            raise


def _of_topic(
    asked: _Asked, topic: str, found: Iterator[_Framed]
) -> tuple[list[str], dict[str, _Said]]:
    """Say what is wrong with ids of a topic, and what their schemas are called."""
    wrong, said = defaultdict[tuple[str, int], list[str]](list), {KEY: _Said(), VALUE: _Said()}
    for one in found:
        told = wrong[one.part, one.number]
        at = f"{one.place}: schema id {one.number}"
        if why := asked.wrong(one.number):
            told.append(f"{at} {why.replace('{part}', one.part)}")
            continue
        try:
            name = asked.name_of(one.number, one.raw)
        except Undecodable as error:
            told.append(f"{at} is of another schema: cannot decode the {one.part}: {error}")
        else:
            said[one.part].add(_stem(name), one.moment, one.place, one.number)
    seen = {number for (_, number), told in wrong.items() if told}
    for number in asked.then.carried.get(topic, ()) if asked.then else ():
        if number not in seen and (why := asked.wrong(number)):
            told = wrong["record", number]
            told.append(f"{topic}: schema id {number} {why.replace('{part}', 'record')}")
    return [f"{told[0]}{_more(len(told))}" for told in wrong.values() if told], said


def _framed(config: PipelineConfig, topic: str, *, of_service: bool) -> Iterator[_Framed]:
    """Keys and values that begin with a schema's id; of a service's where all of them do."""
    seen, found = {KEY: Seen(), VALUE: Seen()}, list[_Framed]()
    for record in sampled(config.kafka, topic, SAMPLE):
        place = f"{topic}[{record.partition()}]@{record.offset()}"
        for part, raw in ((KEY, record.key()), (VALUE, record.value())):
            seen[part].add(raw, place)
            if raw is not None and (number := number_of(raw)) is not None:
                found.append(_Framed(place, record.timestamp()[1], part, raw, number))
    for one in found:
        if not of_service or seen[one.part].carries_ids():
            yield one


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
