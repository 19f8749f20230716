"""What must hold of tables, connectors and topics before a recovery of CDC stops a connector.

A re-read compares each published table with its topic. Whether there will be one is decided only
once the connectors stand, so what it could not do without is asked before that in any case.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache

from pipeline.cdc.debezium import strays
from pipeline.cdc.include_lists import left_out, rows_left_out, uncaptured
from pipeline.cdc.names import renames, unquoted
from pipeline.cdc.routing import Route, routes
from pipeline.cdc.state.reading import Part
from pipeline.runbooks.cdc_asked import Way
from pipeline.runbooks.cdc_evidence import Evidence
from pipeline.runbooks.held_connectors import slot_kept
from pipeline.runbooks.runbook import Precondition

WAIVER = "--without-topic with each table"
REREAD = "--way reread"


def listed(seen: Evidence) -> Sequence[Precondition]:
    """List them in the order in which their steps come."""

    @cache
    def places() -> Mapping[str, Route]:
        if seen.now.misses((Part.CONNECTORS,), seen.names):
            return {}  # that is told already
        return routes(seen.config, seen.tables)

    return (
        Precondition(
            "settings",
            lambda: _stray(seen),
            "Its events would not be found: set the connector right, or [cdc]",
        ),
        Precondition(
            "offset",
            lambda: _unsure(seen),
            "Mend [cdc] topic_prefix, or PATCH the stale one to null while it is STOPPED",
            REREAD,
        ),
        *(() if seen.asked.way is Way.REREAD else [slot_kept(seen.config, waiver=REREAD)]),
        Precondition(
            "left-out",
            lambda: _unknown(seen, places()) if seen.asked.without_topics else (),
            "Name a published table, or its topic, by --without-topic",
        ),
        Precondition(
            "captured",
            lambda: _uncaptured(seen, places()),
            "Its rows would be missing in its topic: change the connector's lists",
            WAIVER,
        ),
        Precondition(
            "topics",
            lambda: _unrouted(seen, places()),
            "Neither what its offset says was delivered nor its rows can be looked for: have "
            "Connect tell of topics (topic.tracking.enable), one for each table, with the envelope",
            WAIVER,
        ),
    )


def _stray(seen: Evidence) -> Iterator[str]:
    for each in seen.own:
        yield from strays(seen.config, each.name, each.config)


def _unsure(seen: Evidence) -> Iterator[str]:
    for each in seen.own if seen.asked.way is not Way.REREAD else ():
        if (why := each.unsure) is not None:
            yield f"{each.name}: which offset is its own is UNKNOWN: {why}"


def _unknown(seen: Evidence, places: Mapping[str, Route]) -> Iterator[str]:
    known = {name for route in places.values() for name in (route.table, route.topic)}
    for name in seen.asked.without_topics:
        if not {name, unquoted(name)} & known:
            there = ", ".join(sorted(places)) or "none"
            yield f"{name} is no published table, and no topic of one; published: {there}"


def _compared(seen: Evidence, places: Mapping[str, Route]) -> Iterator[Route]:
    left: Collection[str] = {one for name in seen.left_out for one in (name, unquoted(name))}
    return (route for route in places.values() if not {route.table, route.topic} & set(left))


def _uncaptured(seen: Evidence, places: Mapping[str, Route]) -> Iterator[str]:
    own = {each.name: each.config for each in seen.own}
    for route in _compared(seen, places):
        if (why := uncaptured(own, route.table)) is not None:
            yield why
        elif seen.asked.way is not Way.SIGNAL:  # whose snapshots none of these settings is for
            for name, told in own.items():
                if setting := rows_left_out(told, route.table):
                    yield f"rows of {route.table} are not read again, by {setting} of {name}"


def _unrouted(seen: Evidence, places: Mapping[str, Route]) -> Iterator[str]:
    """Topics that transforms name are known only by what a connector has written to."""
    back = {each.name: each.config for each in seen.back if renames(each.config)}
    for route in _compared(seen, places):
        gone = [name for name, told in back.items() if left_out(told, route.table) is None]
        if gone:
            why = f"{renames(back[gone[0]])} of {gone[0]} names topics, and Connect has it no more"
            yield f"where events of {route.table} are is UNKNOWN: {why}"
        elif route.topic is None:
            yield f"where events of {route.table} are is UNKNOWN: {route.why}"
