"""What must hold of CDC before a point-in-time recovery stops or moves anything."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import psycopg

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors, unfit
from pipeline.cdc.delivered import GLANCE
from pipeline.cdc.include_lists import uncaptured
from pipeline.cdc.names import topic_of, unquoted
from pipeline.cdc.routing import TELL, Routes, nowhere, routes, unrouted
from pipeline.config import PipelineConfig
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.postgres.replication.publications import Publication, find_publication
from pipeline.postgres.server import session
from pipeline.registry.client import RegistryClient
from pipeline.runbooks import held_connectors, parts
from pipeline.runbooks.parts import Part
from pipeline.runbooks.reconnect import published
from pipeline.runbooks.runbook import Precondition

Ask = Callable[[], Iterable[str]]
_LATER = "Mend it; or recover without CDC now, and bring CDC back by --resume later"
_WAIVER = "--without-cdc"
_OF_THE_DATABASE = ("point-in-time", "full")
"""Kinds of recoveries that bring the database back: each begins anew."""


def publication(config: PipelineConfig, facts: Mapping[str, Any], label: str) -> Iterator[str]:
    """The one that is brought back is the one by which tables are compared with their topics."""
    known, expected = facts.get("publication"), config.cdc.publication
    if known is None or known["name"] == expected:
        return
    with (
        suppress(psycopg.Error),
        session.connect_at_once(config.postgres) as live,
    ):
        if find_publication(live, expected) is not None:
            return  # it was renamed, or made anew, since the backup
    yield f"cdc.publication is {expected!r}, {label} has {known['name']!r}"


def listed(
    config: PipelineConfig, facts: Callable[[], Mapping[str, Any]], without_topics: Collection[str]
) -> Iterator[Precondition]:
    """List what is asked where CDC is brought back; `facts` are those of the base backup.

    What answers must answer rightly; a part that is down is left for its own step.
    """
    down = parts.down(config)

    def kafka() -> Iterator[str]:
        cluster_id(config.kafka)
        yield from ()

    def registry() -> Iterator[str]:
        with RegistryClient(config.registry) as client:
            client.subjects()
        yield from ()

    @cache
    def places() -> Routes:
        return routes(config, _published(config, facts()))

    asked: list[tuple[Part, str, Ask, str, str]] = [
        (Part.CONNECT, Part.CONNECT, lambda: unfit(config), _LATER, _WAIVER),
        (
            *(Part.CONNECT, "left-out"),
            lambda: nowhere(places(), without_topics) if without_topics else (),
            *("Name a published table, or its topic, by --without-topic", _WAIVER),
        ),
        (
            *(Part.CONNECT, "topics"),
            lambda: unrouted(places(), without_topics) if Part.KAFKA not in down else (),
            f"Nothing could be compared with its table: {TELL}",
            f"--without-topic with each table, or {_WAIVER}",
        ),
        (
            *(Part.CONNECT, "captured"),
            lambda: _uncaptured(config, facts(), without_topics),
            "Its rows would be missing in its topic: change the connector's lists",
            f"--without-topic with each table, or {_WAIVER}",
        ),
        (
            *(Part.CONNECT, held_connectors.NAME),
            lambda: held_connectors.held(config, *_OF_THE_DATABASE),
            *(held_connectors.ADVICE, _WAIVER),
        ),
        (Part.KAFKA, Part.KAFKA, kafka, _LATER, _WAIVER),
    ]
    if config.registry.url:
        none = "; or set registry.url to '' where there is none"
        asked.append((Part.REGISTRY, Part.REGISTRY, registry, _LATER + none, _WAIVER))
    for part, name, ask, advice, waiver in asked:
        yield Precondition(name, ask if part not in down else tuple, advice, waiver)


def _uncaptured(
    config: PipelineConfig, facts: Mapping[str, Any], without: Collection[str]
) -> Iterator[str]:
    """Tell which published tables no connector reads, by its lists."""
    # briefly: one that is away was waited for already, as `connectors` was asked
    with ConnectClient(config.connect, GLANCE) as connect:
        known = set(connect.names())
        own = {one: connect.config(one) for one in own_connectors(config, connect) if one in known}
    for table in _published(config, facts):
        names = {table, unquoted(table), topic_of(config.cdc.topic_prefix, table)}
        if (why := uncaptured(own, table)) and not names & set(without):
            yield why


def _published(config: PipelineConfig, facts: Mapping[str, Any]) -> list[str]:
    """Name the published tables: as the server has them, or where it does not tell the backup."""
    with (
        suppress(psycopg.Error),
        session.connect_at_once(config.postgres) as live,
    ):
        if tables := published(live, config.cdc.publication):
            return tables
    if (told := facts.get("publication")) is None:
        return []
    # of a partitioned table it is its partitions that may be published
    plain = {(one["schema"], one["name"]) for one in facts["tables"] if one["relfilenode"]}
    known = Publication.of(told)
    return [str(one) for one in known.tables if (one.schema, one.name) in plain]
