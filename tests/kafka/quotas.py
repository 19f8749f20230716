"""Quotas of a broker for every client that has none of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.protocol.admin import AlterClientQuotasRequest

from pipeline.config import KafkaConfig
from pipeline.kafka.archive.exports import everything
from pipeline.kafka.cluster.raw import RawReader
from pipeline.wait import wait_until
from tests.kafka import topics


@contextmanager
def limited(kafka: KafkaConfig, **limits: float) -> Iterator[None]:
    """Hold every client back for the time of a test."""
    with RawReader(kafka) as reader:
        before = everything(reader)["quotas"]
        _alter(reader, limits, remove=False)
        try:
            wait_until("quotas", lambda: _unset(reader, limits), within=topics.WITHIN)
            yield
        finally:
            _alter(reader, limits, remove=True)
            wait_until("quotas as before", lambda: _other(reader, before), within=topics.WITHIN)


def _alter(reader: RawReader, limits: dict[str, float], *, remove: bool) -> None:
    entry = AlterClientQuotasRequest.EntryData
    request = AlterClientQuotasRequest(
        entries=[
            entry(
                entity=[entry.EntityData(entity_type="client-id", entity_name=None)],
                ops=[entry.OpData(key=k, value=v, remove=remove) for k, v in limits.items()],
            )
        ],
        validate_only=False,
    )
    (told,) = reader.ask(request).entries
    assert not told.error_code, told.error_message


def _other(reader: RawReader, before: object) -> str | None:
    quotas = everything(reader)["quotas"]
    return None if quotas == before else f"{quotas}"


def _unset(reader: RawReader, limits: dict[str, float]) -> str | None:
    quotas = everything(reader)["quotas"]
    there = {"entity": {"client-id": None}, "limits": limits} in quotas
    return None if there else f"{quotas}"
