"""Which parts beside PostgreSQL are down: nothing listens there, so a recovery begins without them.

A part that answers wrongly (another login, no leader, a proxy without a worker) is not down: that
does not mend itself, and stands in the way of a recovery as its preconditions say.
"""

import socket
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from urllib.parse import urlsplit

from pipeline.config import PipelineConfig

PATIENCE = 3.0
"""Seconds in which a part that is there takes a connection."""
_PORTS = {"http": 80, "https": 443}


class Part(StrEnum):
    """What CDC is made of beside the database, as preconditions name it."""

    CONNECT = "connectors"
    KAFKA = "kafka"
    REGISTRY = "registry"


def down(config: PipelineConfig) -> dict[Part, str]:
    """Tell of each part that takes no connection where it is, and why; any broker is enough."""
    told = ((part, _refused(places)) for part, places in _places(config) if places)
    found = {part: why for part, why in told if why is not None}
    if Part.KAFKA in found:  # a worker answers, and can neither stop a connector nor write
        found.setdefault(Part.CONNECT, "its brokers are down")
    return found


def lines(down: Mapping[Part, str]) -> Iterator[str]:
    """Say for people which parts a recovery begins without."""
    for part, why in sorted(down.items()):
        yield f"down              {part}: {why}: left for the step reconnect"


def _places(config: PipelineConfig) -> Iterator[tuple[Part, list[tuple[str, int]]]]:
    for part, url in ((Part.CONNECT, config.connect.url), (Part.REGISTRY, config.registry.url)):
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 80)
        yield part, [(parts.hostname, port)] if parts.hostname else []
    brokers = (each.strip() for each in config.kafka.bootstrap_servers.split(","))
    found = (urlsplit(each if "://" in each else f"//{each}") for each in brokers)
    yield Part.KAFKA, [(each.hostname, each.port or 9092) for each in found if each.hostname]


def _refused(places: Iterable[tuple[str, int]]) -> str | None:
    """Tell why none of these takes a connection, or None where one does."""
    told = []
    for host, port in places:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
        except OSError as error:
            told.append(f"{host}:{port}: {error.strerror or error}")
        else:
            return None
    return "; ".join(told)
