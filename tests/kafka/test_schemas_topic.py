"""A `_schemas` that the project writes in Confluent's format: archived, read by us, judged."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic

from checks.registry_subjects import SchemaBackup
from checks.rules.registry_agreement import answers_as_it_keeps
from fixtures.kafka_story import client, flush, producer
from fixtures.stacks.protocol import Stack
from pipeline.cdc import schemas
from pipeline.kafka.archive import archive
from pipeline.registry.schemas import Inventory, RegisteredSchema, as_json
from pipeline.repository.sets import Draft, Repository
from pipeline.repository.store import StoredObject

pytestmark = pytest.mark.stack
ORDER = '{"type":"record","name":"Order","fields":[]}'
ONE = RegisteredSchema("orders-value", 1, 1, ORDER, "AVRO", deleted=True)
TWO = RegisteredSchema("orders-value", 2, 2, ORDER.replace("Order", "Sale"), "AVRO")


def _written(stack: Stack, name: str) -> None:
    admin = client(stack.config.kafka)
    made = NewTopic(name, 1, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([made])[name].result()
    writer = producer(stack.config.kafka)
    for one in (ONE, TWO):
        key = {"keytype": "SCHEMA", "subject": one.subject, "version": one.version, "magic": 1}
        value = {"subject": one.subject, "version": one.version, "id": one.id}
        told = value | {"schema": one.schema, "deleted": one.deleted}
        writer.produce(name, json.dumps(told).encode(), json.dumps(key).encode())
    flush(writer)


def test_what_was_answered_is_held_against_the_archived_topic(
    broker: Stack, repository: Repository, tmp_path: Path
) -> None:
    _written(broker, "_schemas")

    def judged(*told: RegisteredSchema) -> dict[str, str | None]:
        inventory = Inventory("READWRITE", "BACKWARD", {}, told)

        def beside(draft: Draft) -> tuple[dict[str, Any], list[StoredObject]]:
            stored = draft.put(schemas.REGISTRY, [as_json(inventory)])
            return {"scope": None, "storage": "_schemas"}, [stored]

        kind = schemas.KIND
        archive.take(broker.config, repository, ["_schemas"], kind=kind, beside=beside)
        seen = answers_as_it_keeps.examine(SchemaBackup(tmp_path))
        return {one.subject: one.problem for one in seen}

    assert judged(ONE, TWO) == {str(ONE): None, str(TWO): None}
    assert judged(TWO)[str(ONE)] == "the topic holds it, and it was not answered"
    third = RegisteredSchema("orders-value", 3, 3, ORDER, "AVRO")
    assert "the topic does not hold it" in str(judged(ONE, TWO, third)[str(third)])
