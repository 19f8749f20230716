"""Which topic holds the events of a table: known by its name, or by what the events say themselves.

Transforms, another strategy and another delimiter give topics names of their own. An event tells in
its `source` of which table it is, and there the topics that the connector has written to are asked.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors
from pipeline.cdc.include_lists import left_out
from pipeline.cdc.names import renames, topic_of, unquoted
from pipeline.cdc.topics import sampled
from pipeline.cdc.wire import Decoder, Undecodable
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.registry.client import RegistryClient

SAMPLE = 200
"""Records at each end of a partition by which it is told whose events a topic has."""
NONE_TOLD = "Connect tells of none"
TELL = "have Connect tell of topics (topic.tracking.enable), one a table, with the envelope"


def source_of(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of which change an event is, by its envelope; None of a record without one."""
    found = values.get("source")
    if isinstance(found, Mapping) and {"schema", "table"} <= found.keys():
        return found
    return None


def table_of(source: Mapping[str, Any]) -> str:
    """Of which table an event is."""
    return f"{source['schema']}.{source['table']}"


@dataclass(frozen=True)
class Route:
    """Where the events of a table are; no `topic` where nobody knows, and `why`."""

    table: str
    topic: str | None
    why: str = ""
    by_source: bool = False

    @property
    def unknown(self) -> str:
        """What there is to say where no topic is known."""
        return f"where events of {self.table} are is UNKNOWN: {self.why}"

    @property
    def known(self) -> str:
        """The topic; ServerError where it is not known."""
        if self.topic is None:
            raise ServerError(self.unknown)
        return self.topic

    def is_event(self, decoder: Decoder) -> Callable[[bytes], bool]:
        """Tell envelopes from rows; where only they say whose events these are, each is asked.

        A tombstone names a key alone: where two tables share a topic, it may end both's rows.
        """

        def own(raw: bytes) -> bool:
            source = source_of(decoder.message(raw).values)
            if source is not None and (other := table_of(source)) != self.table:
                raise ServerError(
                    f"{self.topic} has events of {other} beside those of {self.table}"
                )
            return source is not None

        return own if self.by_source else decoder.is_event


Routes = Mapping[str, Route]


def routes(config: PipelineConfig, tables: Iterable[str]) -> dict[str, Route]:
    """Find the topic of each table by its plain name; `tables` may be spelt with SQL's quotes."""
    names = sorted({unquoted(table) for table in tables})
    found = {name: Route(name, topic_of(config.cdc.topic_prefix, name)) for name in names}
    with ConnectClient(config.connect) as connect:
        there = set(connect.names())
        for connector in (one for one in own_connectors(config, connect) if one in there):
            told = connect.config(connector)
            if (why := renames(told)) is not None:
                moved = [name for name in names if left_out(told, name) is None]
                found |= _by_source(config, connect, connector, moved, why)
    return found


def compared(places: Routes, without: Iterable[str]) -> Iterator[Route]:
    """Yield those that are not left out, by the name of the table or of its topic."""
    left = {name for told in without for name in (told, unquoted(told))}
    return (route for route in places.values() if not {route.table, route.topic} & left)


def unrouted(places: Routes, without: Iterable[str]) -> Iterator[str]:
    """Say of which tables nobody knows where their events are."""
    for route in compared(places, without):
        if route.topic is None:
            yield route.unknown


def nowhere(places: Routes, without: Iterable[str]) -> Iterator[str]:
    """Say which names that shall be left out are neither a table's nor its topic's."""
    known = {name for route in places.values() for name in (route.table, route.topic)}
    for name in without:
        if not {name, unquoted(name)} & known:
            there = ", ".join(sorted(places)) or "none"
            yield f"{name} is no published table, and no topic of one; published: {there}"


def _by_source(
    config: PipelineConfig,
    connect: ConnectClient,
    connector: str,
    tables: Collection[str],
    why: str,
) -> Iterator[tuple[str, Route]]:
    """Look at both ends of each topic that a connector has written to."""
    told, holders = f"{why} of {connector} names topics", dict[str, set[str]]()
    try:
        written = connect.topics(connector) if tables else []
    except ServerError as error:
        unknown = f"{told}, and {NONE_TOLD}: {error}"
        yield from ((table, Route(table, None, unknown)) for table in tables)
        return
    with RegistryClient(config.registry) as registry:
        decoder = Decoder(registry.schema_by_id)
        for topic in written:
            for table in _tables_in(config, decoder, topic):
                holders.setdefault(table, set()).add(topic)
    for table in tables:
        found = sorted(holders.get(table, ()))
        which = " and ".join(found) or f"none of the {len(written)} that it has written to"
        where = f"{told}, and they are in {which}" if written else f"{told}, and {NONE_TOLD}"
        yield table, Route(table, found[0] if len(found) == 1 else None, where, by_source=True)


def _tables_in(config: PipelineConfig, decoder: Decoder, topic: str) -> set[str]:
    found = set[str]()
    for value in (record.value() for record in sampled(config.kafka, topic, SAMPLE)):
        try:
            source = source_of(decoder.message(value).values) if value else None
        except Undecodable:  # it is not told whose event it is
            continue
        found |= {table_of(source)} if source is not None else set()
    return found
