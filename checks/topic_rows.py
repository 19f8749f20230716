"""Rows of a table beside the events of its topic; neither is locked, and nothing is changed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from checks.connectors import Connectors
from pipeline.cdc.keys import plain
from pipeline.cdc.reconcile import compared
from pipeline.cdc.routing import Route
from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.cluster.topics import Topic, describe, extents
from pipeline.postgres.wal.lsn import Lsn
from pipeline.wait import wait_until

ARRIVES = timedelta(seconds=10)
"""How long an event may be on its way, once its change was sent to the connector."""
EVERY = timedelta(seconds=1)
EXAMPLES = 5
_FOREVER = {"retention.ms": "-1", "retention.bytes": "-1"}
_SENT = """
    select pg_current_wal_flush_lsn()::text as written,
           (select r.sent_lsn::text from pg_replication_slots s
              join pg_stat_replication r on r.pid = s.active_pid where s.slot_name = %s) as sent
"""


@dataclass(frozen=True)
class Difference:
    """Keys that one side holds and the other does not, as text, and records that are no events."""

    missing: set[str]
    ghosts: set[str]
    strangers: dict[str, str] = field(default_factory=dict)

    def also_in(self, later: "Difference") -> "Difference":
        """What is different still: what was on its way meanwhile is not."""
        strangers = self.strangers | later.strangers
        return Difference(self.missing & later.missing, self.ghosts & later.ghosts, strangers)

    @property
    def told(self) -> Iterator[str]:
        """Yield the differences in words."""
        if self.missing:
            yield f"{len(self.missing)} rows are in no event: {_examples(self.missing)}"
        if self.ghosts:
            yield f"{len(self.ghosts)} events are of no row: {_examples(self.ghosts)}"


def sizes(kafka: KafkaConfig, names: list[str]) -> dict[str, int]:
    """How many offsets the topics have that keep an event of every row; others are left out.

    A topic with a retention may have let go of the only event of an old row.
    """
    found = [topic for topic in describe(kafka) if topic.name in names]
    told = extents(kafka, [place for topic in found for place in topic.places])
    return {
        topic.name: sum(told[place].end - told[place].start for place in topic.places)
        for topic in found
        if _keeps_all(topic) or not any(told[place].start for place in topic.places)
    }


def _keeps_all(topic: Topic) -> bool:
    settings = topic.defaults | topic.overrides
    return topic.compacted or all(settings.get(key) == told for key, told in _FOREVER.items())


def difference(connectors: Connectors, place: Route) -> Difference:
    """Compare a table with its topic, again until what was on its way has arrived.

    Raises ServerError where it cannot be told whether it has.
    """
    table, topic = place.table, place.known
    written, reader = _positions(connectors)
    until = time.monotonic() + (ARRIVES.total_seconds() if reader else 0)
    found: list[Difference] = []

    def arriving() -> str | None:
        now = _once(connectors, place)
        found.append(found[-1].also_in(now) if found else now)
        late = next(found[-1].told, None)
        return late if time.monotonic() < until else None

    wait_until(f"{topic} tells what {table} holds", arriving, within=2 * ARRIVES, every=EVERY)
    if any(found[-1].told):
        _, sent = _positions(connectors)
        if sent is None or sent < written:
            raise ServerError(
                f"{table}: {next(found[-1].told)}; but the connector was sent WAL up to {sent}, "
                f"and the server had written up to {written}: they may be on their way"
            )
    return found[-1]


def _once(connectors: Connectors, place: Route) -> Difference:
    with connectors.source.connection() as connection:
        config, there = connectors.source.config, {place.table: place}
        found = compared(config, connection, place.table, there)
    if found.trouble:
        raise ServerError(f"{place.topic}: {found.trouble}")
    ghosts = {plain(raw) for _, raw in found.ghosts}
    missing = {", ".join(map(str, key)) for key in found.missing}
    return Difference(missing, ghosts, {each.place: each.why for each in found.strangers})


def _positions(connectors: Connectors) -> tuple[Lsn, Lsn | None]:
    """What the server has written, and what the slot's reader was sent of it."""
    (row,) = connectors.source.rows(_SENT, connectors.source.config.cdc.slot)
    return Lsn.parse(row["written"]), Lsn.parse(row["sent"]) if row["sent"] else None


def _examples(keys: set[str]) -> str:
    return "; ".join(sorted(keys)[:EXAMPLES]) + ("; …" if len(keys) > EXAMPLES else "")
