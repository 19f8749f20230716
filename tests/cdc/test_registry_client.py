"""The registry client against a real registry."""

import json
from collections.abc import Iterator

import pytest

from fixtures.stacks.protocol import Stack
from pipeline.errors import ServerError
from pipeline.registry.client import RegistryClient, SchemaMissing
from pipeline.registry.schemas import as_json, of_json

pytestmark = pytest.mark.stack


def _schema(*fields: str) -> str:
    parts = [{"name": name, "type": "string", "default": ""} for name in fields]
    return json.dumps({"type": "record", "name": "Client", "fields": parts})


@pytest.fixture
def registry(stack: Stack) -> Iterator[RegistryClient]:
    with RegistryClient(stack.config.registry) as client:
        yield client


def test_an_inventory_tells_versions_ids_settings_and_what_was_deleted(
    registry: RegistryClient,
) -> None:
    first = registry.register("inventory-value", _schema("a"))
    second = registry.register("inventory-value", _schema("a", "b"))
    registry.register("inventory-gone", _schema("c"))
    registry.set_compatibility("FULL", "inventory-value")
    registry.delete("inventory-gone")

    found = registry.inventory()
    ours = {(s.subject, s.version): (s.id, s.deleted) for s in found.schemas}
    assert ours["inventory-value", 1] == (first, False)
    assert ours["inventory-value", 2] == (second, False)
    gone = next(s for s in found.schemas if s.subject == "inventory-gone")
    assert (gone.deleted, gone.schema) == (True, _schema("c")), "records may need it"
    with pytest.raises(SchemaMissing):  # Apicurio lists it, and tells no more by this interface
        registry.version("inventory-gone", 1, deleted=True)
    assert found.subject_compatibility["inventory-value"] == "FULL"
    assert (found.mode, found.compatibility) == ("READWRITE", registry.compatibility())
    assert of_json(as_json(found)) == found


def test_an_id_that_does_not_answer_is_named(registry: RegistryClient) -> None:
    known = registry.register("answers-value", _schema("d"))
    assert json.loads(registry.schema_by_id(known)) == json.loads(_schema("d"))
    with pytest.raises(SchemaMissing, match="HTTP 404"):
        registry.schema_by_id(999_999)


def test_unknown_subjects_and_refusals_are_told_apart(registry: RegistryClient) -> None:
    with pytest.raises(SchemaMissing, match=r"/subjects/nobody/versions.*HTTP 404"):
        registry.versions("nobody")
    registry.register("refuses-value", _schema("e"))
    registry.set_compatibility("FULL", "refuses-value")
    breaking = json.dumps({"type": "record", "name": "Client", "fields": []}).replace(
        "[]", '[{"name": "f", "type": "int"}]'
    )
    with pytest.raises(ServerError, match="HTTP 409"):
        registry.register("refuses-value", breaking)
