"""The registry backed up, emptied and filled anew: every gate asks for the ids in the records."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from fixtures.stacks import registry as server
from fixtures.stacks.protocol import Stack
from pipeline.cdc import schemas
from pipeline.errors import RecoveryRefused, RestoreError
from pipeline.registry.client import RegistryClient
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import registry_ways
from pipeline.runbooks.registry_asked import Way
from pipeline.runbooks.registry_loss import new_recovery
from tests.cdc.registries import OTHER, Shop, emptied, opened

pytestmark = pytest.mark.stack


@pytest.fixture
def shop(stack: Stack, tmp_path: Path) -> Iterator[Shop]:
    with opened(stack, tmp_path) as found:
        yield found


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

    _registered_by_others(shop)
    told = shop.told()
    assert any("is of another schema: it was" in line for line in told), told
    with pytest.raises(RecoveryRefused, match=r"contradict the backup, and nothing was written"):
        shop.recovery(Way.EXPORT, merge=True).run()

    config = shop.source.config
    later = schemas.take(config, Repository(FolderStore(config.repository.path)))
    assert later.manifest.facts["differs"], "a backup of what is wrong says so"
    assert shop.told() == told, "and what is lost does not become right by it"
    with pytest.raises(RecoveryRefused, match=r"was not as in .* by --from"):
        shop.recovery(Way.EXPORT, backup=None).run()
    _caught_when_it_gives_other_ids(shop)


def _registered_by_others(shop: Shop) -> None:
    """Register other schemas, until they have the ids of ours."""
    with RegistryClient(shop.stack.config.registry) as client:
        for number in count():
            other = OTHER.replace("Other", f"Other{number}")
            if client.register(f"other-{number}", other) >= max(shop.ids):
                return


def _caught_when_it_gives_other_ids(shop: Shop) -> None:
    """Apicurio says yes to mode IMPORT, and to an id that is asked for, and gives another."""
    with pytest.raises(RecoveryRefused, match="contradict"):
        shop.recovery(Way.IDS).run()
    journal = new_recovery(shop.source.config)
    with journal.alone():
        journal.write("look", "done")
        with pytest.raises(RestoreError, match=r"gave .* id \d+, expected \d+: it keeps no"):
            registry_ways.by_ids(shop.source.config, shop.taken, journal)
    with RegistryClient(shop.stack.config.registry) as client:
        assert client.mode() == "READWRITE", "the old mode is back"
