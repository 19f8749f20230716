"""What must hold of tables, connectors and topics before a recovery of CDC stops a connector.

A re-read compares each published table with its topic. Whether there will be one is decided only
once the connectors stand, so what it could not do without is asked before that in any case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from pipeline.cdc.debezium import strays
from pipeline.cdc.include_lists import left_out, rows_left_out, skips, uncaptured
from pipeline.cdc.names import renames
from pipeline.cdc.routing import TELL, Routes, compared, nowhere, routes, unrouted
from pipeline.cdc.state.parts import Part
from pipeline.runbooks.cdc_asked import Way
from pipeline.runbooks.cdc_evidence import Evidence
from pipeline.runbooks.held_connectors import slot_kept
from pipeline.runbooks.runbook import Precondition

WAIVER = "--without-topic with each table"
REREAD = "--way reread"


def listed(seen: Evidence) -> Sequence[Precondition]:
    """List them in the order in which their steps come."""

    @cache
    def places() -> Routes:
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
            lambda: nowhere(places(), seen.asked.without_topics) if places() else (),
            "Name a published table, or its topic, by --without-topic",
        ),
        Precondition(
            "captured",
            lambda: _uncaptured(seen, places()),
            "Its rows would be missing in its topic: change the connector's lists",
            WAIVER,
        ),
        Precondition(
            "deleted",
            lambda: _kept_on_purpose(seen, places()),
            "A re-read writes a tombstone for each row that is gone, and compaction removes it",
            WAIVER,
        ),
        Precondition(
            "topics",
            lambda: _unrouted(seen, places()),
            f"Neither what its offset says was delivered nor its rows can be looked for: {TELL}",
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


def _uncaptured(seen: Evidence, places: Routes) -> Iterator[str]:
    own = {each.name: each.config for each in seen.own}
    for route in compared(places, seen.left_out):
        if (why := uncaptured(own, route.table)) is not None:
            yield why
        elif seen.asked.way is not Way.SIGNAL:  # whose snapshots none of these settings is for
            for name, told in own.items():
                if setting := rows_left_out(told, route.table):
                    yield f"rows of {route.table} are not read again, by {setting} of {name}"


def _kept_on_purpose(seen: Evidence, places: Routes) -> Iterator[str]:
    """A topic from which deletions are kept holds rows that the table has no more."""
    for each in seen.own:
        for route in compared(places, seen.left_out) if skips(each.config, "d") else ():
            if left_out(each.config, route.table) is None:
                yield f"{each.name} skips deletions (skipped.operations): {route.topic} keeps rows"


def _unrouted(seen: Evidence, places: Routes) -> Iterator[str]:
    """Topics that transforms name are known only by what a connector has written to."""
    for each in (each for each in seen.back if renames(each.config)):
        for route in compared(places, seen.left_out):
            if left_out(each.config, route.table) is None:
                gone = f"{renames(each.config)} of {each.name}, which is gone, names topics"
                yield replace(route, why=gone).unknown
    yield from unrouted(places, seen.left_out)
