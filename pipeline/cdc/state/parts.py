"""The parts that a reading of CDC consists of, and what all of them have in common."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

from pipeline.postgres.wal.lsn import Lsn


class Part(StrEnum):
    """What a reading consists of; each part is read, or named with the reason why not."""

    SERVER = "server"
    SLOTS = "slots"
    PUBLICATIONS = "publications"
    SERVICE_TABLES = "service tables"
    PREPARED = "prepared transactions"
    SUBSCRIPTIONS = "subscriptions"
    CONNECTORS = "connectors"
    OFFSETS = "offsets"
    PLUGINS = "plugins"
    TOPICS = "topics"
    INTERNAL_TOPICS = "internal topics"


OF_SERVER = (
    Part.SERVER,
    Part.SLOTS,
    Part.PUBLICATIONS,
    Part.SERVICE_TABLES,
    Part.PREPARED,
    Part.SUBSCRIPTIONS,
)
OF_CONNECT = (Part.CONNECTORS, Part.OFFSETS, Part.PLUGINS)
OF_KAFKA = (Part.TOPICS, Part.INTERNAL_TOPICS)


def _position(told: Any) -> Lsn | None:  # noqa: ANN401 - JSON
    return told if told is None or isinstance(told, Lsn) else Lsn.parse(told)


def _told(lsn: Lsn | None) -> str | None:
    return None if lsn is None else str(lsn)


Position = Annotated[Lsn, PlainValidator(_position), PlainSerializer(_told)]


class Read(BaseModel):
    """A part of a reading: frozen, and open to what later versions tell beside it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
