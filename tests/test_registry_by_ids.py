"""Schemas under their own ids in mode IMPORT, against a stand-in of ours that keeps them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from fixtures.stand_in_registry import StandIn, standing_in
from pipeline.config import PipelineConfig, RegistryConfig
from pipeline.errors import ServerError
from pipeline.registry.client import RegistryClient
from pipeline.registry.schemas import Inventory, RegisteredSchema, as_json, differences
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import registry_ways

ORDER = '{"type":"record","name":"Order","fields":[]}'
BASKET = '{"type":"record","name":"Basket","fields":[{"name":"o","type":"Order"}]}'
OF_ORDER = ({"name": "Order", "subject": "orders-value", "version": 3},)
SCHEMAS = (
    RegisteredSchema("baskets/value", 2, 30, BASKET, "AVRO", OF_ORDER),
    RegisteredSchema("orders-value", 3, 7, ORDER, "AVRO"),
    RegisteredSchema("gone-value", 1, 9, ORDER.replace("Order", "Gone"), "AVRO", deleted=True),
)
THEN = Inventory("READWRITE", "FULL", {"orders-value": "NONE"}, SCHEMAS, highest=30)


class Place(NamedTuple):
    """An empty stand-in, a backup of another registry, and a recovery's journal."""

    registry: StandIn
    config: PipelineConfig
    backup: BackupSet
    journal: Journal

    def restore(self) -> None:
        with self.journal.alone():
            self.journal.write("look", "done")
            registry_ways.by_ids(self.config, self.backup, self.journal)

    @property
    def now(self) -> Inventory:
        with RegistryClient(self.config.registry) as client:
            return client.inventory()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with standing_in() as registry, Repository(FolderStore(tmp_path)).begin("schemas") as draft:
        backup = draft.commit({}, [draft.put("registry.json", [as_json(THEN)])])
        config = PipelineConfig.model_construct(registry=RegistryConfig(url=registry.url))
        yield Place(registry, config, backup, Journal.new(tmp_path, "registry"))


def test_every_id_version_reference_and_level_comes_back(place: Place) -> None:
    place.restore()
    assert list(differences(THEN, place.now)) == []
    assert (place.now.mode, place.now.highest) == ("READWRITE", 30)
    assert place.now.version == "stand-in"
    place.restore()  # as after a kill: what is there stays what it is
    assert list(differences(THEN, replace(place.now, highest=30))) == []


def test_the_old_mode_comes_back_also_from_a_run_that_was_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(_self: RegistryClient, subject: str, *_: object, **__: object) -> int:
        asked.append(subject)
        raise ServerError("the registry went away")

    with monkeypatch.context() as patched:
        patched.setattr(RegistryClient, "register", refuse)
        with pytest.raises(ServerError):
            place.restore()
    assert place.registry.modes[""] == "READWRITE"
    assert asked == ["orders-value"], "what is referred to comes first"
    place.registry.modes[""] = "IMPORT"  # what a kill leaves behind
    place.restore()
    assert place.registry.modes[""] == "READWRITE", "as its journal knows"


def test_without_mode_import_no_id_is_given(place: Place) -> None:
    with (
        RegistryClient(place.config.registry) as client,
        pytest.raises(ServerError, match="HTTP 422: Subject is not in import mode"),
    ):
        client.register("orders-value", ORDER, at=(7, 3))
