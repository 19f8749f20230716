"""The registry backed up, emptied and filled anew: every gate asks for the ids in the records."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from fixtures.stacks import registry as server
from fixtures.stacks.protocol import Component, Stack
from pipeline.cdc import schemas
from pipeline.config import RepositoryConfig
from pipeline.errors import RecoveryRefused, RestoreError
from pipeline.kafka.archive import archive
from pipeline.registry.client import RegistryClient
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import registry_ways
from pipeline.runbooks.reconnect import problems
from pipeline.runbooks.registry_asked import Asked, Way
from pipeline.runbooks.registry_loss import RegistryRecovery, new_recovery
from tests.cdc.source import Source, captured

pytestmark = pytest.mark.stack
OTHER = '{"type": "record", "name": "Other", "fields": [{"name": "o", "type": "int"}]}'


class Shop(NamedTuple):
    """A captured table, and the backup of the registry that its records need."""

    stack: Stack
    source: Source
    taken: BackupSet

    @property
    def ids(self) -> list[int]:
        found: list[int] = self.taken.manifest.facts["carried"][self.source.topic]
        return found

    def recover(
        self, way: Way, *, merge: bool = False, backup: str | None = "ours"
    ) -> RegistryRecovery:
        """Recover as an operator does, with a registry that starts cold."""
        config = self.source.config
        asked = Asked(way, backup and self.taken.label, merge=merge)
        journal, identity = new_recovery(config), self.stack.nonce
        recovery = RegistryRecovery(config, asked, journal, identity, self.start_cold)
        recovery.run()
        return recovery

    def start_cold(self) -> None:
        self.stack.stop(Component.REGISTRY)
        self.stack.start(Component.REGISTRY)

    def told(self) -> list[str]:
        return problems(self.source.config, self.source.connection)


@pytest.fixture
def shop(stack: Stack, tmp_path: Path) -> Iterator[Shop]:
    """Its sets are in a repository of its own: the registry is another one for who comes next."""
    with captured(stack, "kept", "id int PRIMARY KEY", "SELECT generate_series(1, 20)") as made:
        own = {"repository": RepositoryConfig(path=tmp_path)}
        source = replace(made, config=made.config.model_copy(update=own))
        repository = Repository(FolderStore(tmp_path))
        topics = archive.take(source.config, repository, [source.topic])
        taken = schemas.take(source.config, repository, topics=topics)
        yield Shop(stack, source, taken)


def _register_all(shop: Shop) -> None:
    journal = new_recovery(shop.source.config)
    with journal.alone():
        journal.write("look", "done")
        registry_ways.by_ids(shop.source.config, shop.taken, journal)


def emptied(stack: Stack) -> None:
    """Start the registry on a storage topic that is new."""
    stack.kill(Component.REGISTRY)
    stack.wipe(Component.REGISTRY)
    stack.start(Component.REGISTRY)


def test_a_registry_is_backed_up_and_no_gate_opens_over_another_one(shop: Shop) -> None:
    facts = shop.taken.manifest.facts
    assert facts["registry"].startswith("Apicurio Registry")
    assert (facts["storage"], facts["unresolved"]) == (server.JOURNAL, {})
    assert len(shop.ids) == 2, "one of keys, one of values"
    assert server.JOURNAL in facts["topics"]
    then = schemas.inventory_of(shop.taken)
    assert set(shop.ids) <= then.by_id.keys()
    assert shop.told() == []

    emptied(shop.stack)
    told = shop.told()
    assert [f"schema id {n} is unknown" in "".join(told) for n in shop.ids] == [True, True], told

    with RegistryClient(shop.stack.config.registry) as client:
        client.register("first-come", OTHER)
        for one in reversed(then.schemas):  # as producers register again, in another order
            client.register(one.subject, one.schema or "", one.type)
    told = shop.told()
    assert any("is of another schema: it was" in line for line in told), told
    with pytest.raises(RecoveryRefused, match=r"contradict the backup, and nothing was written"):
        shop.recover(Way.EXPORT, merge=True)

    config = shop.source.config
    later = schemas.take(config, Repository(FolderStore(config.repository.path)))
    assert later.manifest.facts["differs"], "a backup of what is wrong says so"
    assert shop.told() == told, "and what is lost does not become right by it"
    with pytest.raises(RecoveryRefused, match=r"was not as in .* by --from"):
        shop.recover(Way.EXPORT, backup=None)


def test_a_registry_that_says_yes_and_gives_other_ids_is_caught(shop: Shop) -> None:
    emptied(shop.stack)
    with RegistryClient(shop.stack.config.registry) as client:
        client.register("first-come", OTHER)
        with pytest.raises(RecoveryRefused, match=r"contradict|say --merge"):
            shop.recover(Way.IDS)
        with pytest.raises(RestoreError, match=r"gave .* id \d+, expected \d+: it keeps no ids"):
            _register_all(shop)
        assert client.mode() == "READWRITE", "the old mode is back"


@pytest.mark.parametrize(
    "way", [Way.EXPORT, pytest.param(Way.STORAGE, marks=pytest.mark.slow)], ids=str
)
def test_a_registry_comes_back_with_every_id(shop: Shop, way: Way) -> None:
    """By its own export, and by its storage topic; what was deleted is deleted."""
    stack = shop.stack
    if way is Way.EXPORT:
        emptied(stack)
        assert shop.told() != []
    else:
        stack.kill(Component.REGISTRY)
        stack.wipe(Component.REGISTRY)
    recovery = shop.recover(way)
    assert recovery.done["verify"]["ids_in_records"] == 2
    assert shop.told() == []
    with pytest.raises(RecoveryRefused, match="nothing is wrong"):
        shop.recover(Way.EXPORT)
