"""Decoded changes held against the topics: which events of a stretch are in none of them.

Debezium names in each event's `source` the record that it is of, by its position and transaction.
Rows of one COPY share both, so their keys are told apart as well. A change of the key is two
events, a delete and a create. What pg_logical_emit_message() wrote is in a topic of its own.
"""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from pipeline.cdc.routing import routes, source_of, table_of
from pipeline.cdc.topics import end_offsets, records
from pipeline.cdc.wire import Decoder, Undecodable
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.postgres.wal.lsn import Lsn
from pipeline.registry.client import RegistryClient


class NotTold(ServerError):
    """A record of which nobody can tell whose change it is, now or later."""


Place = tuple[str, int, int | None]
"""Table, position of the record and transaction: what a change and its event have in common."""
MESSAGES = "."
"""What stands for the table of a message, as its event has neither schema nor table."""
_EVENTS = {"insert": ["c"], "update": ["u"], "delete": ["d"], "truncate": ["t"], "message": ["m"]}
_NEW_KEY = ["d", "c"]


def not_in_topics(
    config: PipelineConfig, changes: Iterable[Mapping[str, Any]], tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Give those of the decoded changes, as `telling.as_facts` has them, that no topic has.

    All are taken, and all topics read, before the first is given.
    """
    with Owed() as owed:
        for facts in changes:
            owed.hold(facts)
        with RegistryClient(config.registry) as registry:
            for told in owed.look(config, Decoder(registry.schema_by_id)):
                tell(f"  {told}")
        if owed.uncompared:
            tell(f"  NOT compared: {owed.uncompared:,} truncations")
        yield from owed.missing()


class Owed:
    """Changes that must be in topics. They are kept on disk; in memory is the place of each."""

    def __init__(self) -> None:
        # it ends with this object, and is read once more
        self._kept = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._seen: dict[Place, dict[str, set[Any]]] = {}
        self._shared = set[Place]()
        """Places of several changes: rows of one COPY."""
        self.repeated = Counter[str]()
        """Events that a topic has more than once, by topic, as the last look found them."""
        self.uncompared = 0
        """Truncations of several tables as one: a connector tells of each, and by default of none.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._kept.close()

    def hold(self, facts: Mapping[str, Any]) -> None:
        """Take in one decoded change."""
        if "tables" in facts:
            self.uncompared += 1
            return
        if (place := _place(facts)) in self._seen:
            self._shared.add(place)
        self._seen.setdefault(place, defaultdict(set))
        self._kept.write(json.dumps(facts) + "\n")

    @property
    def tables(self) -> list[str]:
        """Tables of which a change is held."""
        return sorted({table for table, _, _ in self._seen})

    def _topics(self, config: PipelineConfig) -> Iterator[str]:
        """Name where each table's events are, and the messages."""
        tables = self.tables
        for place in routes(config, (table for table in tables if table != MESSAGES)).values():
            yield place.known
        if MESSAGES in tables:
            yield f"{config.cdc.topic_prefix}.message"

    def look(self, config: PipelineConfig, decoder: Decoder) -> Iterator[str]:
        """Read the topic of each table to its end, and yield what people must know of them.

        ServerError where a record cannot be read, or tells of no source: what is in such a topic
        nobody knows, and that is not the same as nothing. What an earlier look found is forgotten.
        """
        self.repeated.clear()
        self._seen = {place: defaultdict(set) for place in self._seen}
        for topic in self._topics(config):
            if not end_offsets(config.kafka, topic):
                yield f"{topic} does not exist: no event of it is anywhere"
                continue
            found = 0
            for record in records(config.kafka, topic):
                if record.value() is not None:
                    found += self._saw(record, decoder)
            yield f"{topic}: {found:,} events of this stretch"

    def _saw(self, record: Any, decoder: Decoder) -> bool:  # noqa: ANN401 - a message of the driver
        where = f"{record.topic()}[{record.partition()}]@{record.offset()}"
        try:
            values = decoder.message(record.value()).values
        except Undecodable as error:
            raise NotTold(f"{where}: UNKNOWN of which change it is: {error}") from error
        if (source := source_of(values)) is None:
            raise NotTold(
                f"{where}: UNKNOWN of which change it is: it has no source, as events have that "
                "keep their envelope"
            )
        table = table_of(source)
        lsn, xid = source.get("lsn"), source.get("txId")
        events = None if lsn is None else self._seen.get((table, lsn, xid))
        if events is None:
            return False
        if record.key() is None and (table, lsn, xid) in self._shared:
            raise NotTold(
                f"{where}: UNKNOWN of which change it is: it has no key, and one record of WAL "
                f"holds several rows of {table}"
            )
        # without a key nothing but its place tells an event from its repetition
        key = record.key() or (record.partition(), record.offset())
        if key in events[values["op"]]:
            self.repeated[record.topic()] += 1
            return False
        events[values["op"]].add(key)
        return True

    def missing(self) -> Iterator[dict[str, Any]]:
        """Give every change, in the order of commits, whose events are not all in a topic."""
        return (facts for facts, there in self.judged() if not there)

    def judged(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Give every change, in the order of commits, and whether its events are in a topic.

        Of a COPY of which some rows are missing the last ones are named, as many as there are. Once
        for each look.
        """
        self._kept.seek(0)
        for line in self._kept:
            facts = json.loads(line)
            events = self._seen[_place(facts)]
            ways = [_EVENTS[facts["op"]]]
            if facts["op"] == "update" and facts["old"] is not None:
                ways.append(_NEW_KEY)
            way = next((way for way in ways if all(events[op] for op in way)), None)
            for op in way or ():
                events[op].pop()
            yield facts, way is not None


def _place(facts: Mapping[str, Any]) -> Place:
    return facts.get("table", MESSAGES), Lsn.parse(facts["at"]), facts["xid"]
