"""Whether a registry answers, is alone, and gives new schemas new ids."""

import secrets
from collections.abc import Iterator
from datetime import timedelta

from confluent_kafka import KafkaException

from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.kafka.cluster.momentary import SECONDS
from pipeline.kafka.groups.groups import client
from pipeline.registry.client import RegistryClient
from pipeline.registry.schemas import READWRITE
from pipeline.wait import wait_until

GLANCE = timedelta(milliseconds=1)
LEFT = timedelta(seconds=60)
"""Beyond Kafka's own 45 s after which a member is gone that did not leave its group."""
PROBE = "pipeline-probe-"


def away(config: PipelineConfig) -> str | None:
    """Ask once whether it answers: None, or what it says instead."""
    try:
        with RegistryClient(config.registry, GLANCE) as registry:
            registry.subjects()
    except ServerError as error:
        return str(error)
    return None


def standing(config: PipelineConfig) -> str | None:
    """Say what is answered at its address: a refusal or a page, too, is no stopped registry's.

    None where nobody listens, or a proxy says that nobody does behind it.
    """
    try:
        with RegistryClient(config.registry, GLANCE) as registry:
            return f"HTTP {registry.ask('GET', '/subjects').status_code}"
    except ServerError:
        return None


def still_read(config: PipelineConfig, storage: str) -> str | None:
    """Say who reads a storage topic, once those had the time to leave that were killed."""
    told: list[str] = []

    def readers() -> str | None:
        told[:] = _readers(config, storage)
        return "; ".join(told) or None

    try:
        wait_until(f"no registry reads {storage}", readers, within=LEFT)
    except ServerError as error:
        if not told:
            raise
        return str(error)
    return None


def _readers(config: PipelineConfig, storage: str) -> Iterator[str]:
    """Name the members of groups that read it: a registry may be behind another address, too."""
    admin = client(config.kafka)
    try:
        names = [g.group_id for g in admin.list_consumer_groups().result(SECONDS).valid]
        told = admin.describe_consumer_groups(names).values() if names else ()
        for group in [future.result(SECONDS) for future in told]:
            for member in group.members:
                places = member.assignment.topic_partitions if member.assignment else ()
                if storage in {place.topic for place in places}:
                    yield f"{member.client_id} at {member.host} still reads {storage}"
    except KafkaException as error:
        raise ServerError(f"who reads {storage}: {error}") from error


def problems(config: PipelineConfig, recovery: str, highest: int) -> Iterator[str]:
    """Register a schema that nobody has, see that its id is a new one, and remove it again."""
    name = f"{PROBE}{recovery}-{secrets.token_hex(4)}"
    record = f'{{"type": "record", "name": "{name.replace("-", "_")}", "fields": []}}'
    with RegistryClient(config.registry) as registry:
        if (mode := registry.mode()) != READWRITE:
            yield f"the registry is in mode {mode}, expected {READWRITE}"
            return
        try:
            given = registry.register(name, record)
        except ServerError as error:
            yield f"nothing can be registered: {error}"
            return
        registry.delete(name)
        registry.delete(name, permanent=True)
        if given <= highest:
            yield f"a new schema was given id {given}, and ids up to {highest} are taken"
        if name in registry.subjects(deleted=True):
            yield f"{name} could not be removed"
