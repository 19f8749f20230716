"""Topics beside their tables: what no position tells, because it is in no event."""

from collections.abc import Iterator
from random import Random

from psycopg.abc import Query

from checks import topic_rows
from checks.check import Observation, check
from checks.connectors import Connectors
from fixtures.connect_material import connector
from fixtures.faults import connectors, kafka_live, server
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.debezium import idle
from pipeline.cdc.routing import routes, unrouted
from pipeline.errors import ServerError
from pipeline.postgres.wal.lsn import Lsn

BUDGET = 1_000_000
"""Records that are read at most, the smallest topics first: a minute or so, 0.5 GB at most."""
_WHOLE = """
    select concat_ws('.', p.schemaname, p.tablename) as table
      from pg_publication_tables p where p.pubname = %s and p.rowfilter is null order by 1
"""


@check(
    "cdc.topics-tell-every-row",
    on=Connectors,
    severity="blocker",
    advice="Events were skipped, or written by somebody else: signal an incremental snapshot for "
    "the tables named here; what no row tells any more needs a tombstone, as `pipeline recover` "
    "writes them. docs/procedures.md, scenario 2.",
)
def topics_tell_every_row(connectors: Connectors) -> Iterator[Observation]:
    """Topics that keep an event of every row name all rows of their table, and no others.

    Tables without a row filter, as many as BUDGET has room for. Values are not compared.
    """
    config = connectors.source.config
    yield Observation(config.cdc.topic_prefix, None)
    if reading := [name for name in connectors.own if connectors.offset(name) is None]:
        raise ServerError(f"{', '.join(reading)}: the snapshot is not in the topics yet")
    if told := "; ".join(idle(config)):  # what it has not read is missing, and need not be lost
        raise ServerError(f"{told}: events of what was not read are in no topic yet")
    rows = connectors.source.rows(_WHOLE, config.cdc.publication)
    places = routes(config, [row["table"] for row in rows])
    known = {place.topic: place for place in places.values() if place.topic is not None}
    if not places:
        raise ServerError(f"publication {config.cdc.publication!r} has no whole table to compare")
    left = BUDGET
    sizes = topic_rows.sizes(config.kafka, list(known))
    for topic, size in sorted(sizes.items(), key=lambda each: each[1]):
        if (left := left - size) < 0:
            break
        found, table = topic_rows.difference(connectors, known[topic]), known[topic].table
        yield Observation(table, None)
        yield from (Observation(table, told) for told in found.told)
        yield from (Observation(where, why) for where, why in found.strangers.items())
    if told := "; ".join(unrouted(places, ())):  # last: what was looked at counts
        raise ServerError(told)


@topics_tell_every_row.detects
def message_that_is_no_event(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Somebody tried a producer on the topic: a recovery would stop at its key."""
    topic = f"{scratch.config.cdc.topic_prefix}.shop.orders"
    offset = kafka_live.produce(scratch, topic, b"hello", b"world")
    return Damage(f"{topic}[0]@{offset}", "it was produced by hand", says="its value is no event")


def _unheard(scratch: Scratch[Connectors], *changes: Query) -> None:
    """Change rows while the connector stands, and have it go on behind them."""
    connectors.stop(scratch)
    server.execute(scratch, *changes)
    (row,) = scratch.copy.source.rows("select pg_current_wal_flush_lsn()::text as lsn")
    connectors.move_offset(scratch, Lsn.parse(row["lsn"]))
    with connectors.own(scratch) as client:
        client.resume(connector(scratch.config))
        client.wait_running(connector(scratch.config))


@topics_tell_every_row.detects
def rows_in_no_event(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """An offset that was set forwards, and a connector that runs again: no position tells."""
    _unheard(scratch, "insert into shop.orders (customer, note) values (1, 'unheard')")
    return Damage("shop.orders", "a row was skipped", says="1 rows are in no event")


@topics_tell_every_row.detects
def events_of_no_row(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """A deletion that was skipped: consumers keep the row for ever."""
    number = rng.randrange(1, 2_000)
    _unheard(scratch, f"delete from shop.orders where id = {number}".encode())
    what = f"the deletion of {number} was skipped"
    return Damage("shop.orders", what, says="1 events are of no row")
