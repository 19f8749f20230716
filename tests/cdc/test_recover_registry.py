"""The registry recovered with every id: by each way, interrupted anywhere, by the command."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.stacks import toml
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.cli import app
from pipeline.errors import RecoveryRefused, RestoreError
from pipeline.registry.client import RegistryClient
from pipeline.repository import marker
from pipeline.runbooks import registry_ways
from pipeline.runbooks.registry_asked import Way
from pipeline.runbooks.registry_loss import new_recovery
from pipeline.runbooks.runbook import Facts
from tests.cdc.registries import OTHER, Shop, emptied, opened
from tests.recovery.interrupted import Power

pytestmark = pytest.mark.stack


@pytest.fixture
def shop(stack: NativeStack, tmp_path: Path) -> Iterator[Shop]:
    with opened(stack, tmp_path) as found:
        yield found


def test_a_registry_that_says_yes_and_gives_other_ids_is_caught(shop: Shop) -> None:
    emptied(shop.stack)
    with RegistryClient(shop.stack.config.registry) as client:
        client.register("first-come", OTHER)
        with pytest.raises(RecoveryRefused, match=r"contradict|say --merge"):
            shop.recovery(Way.IDS).run()
        journal = new_recovery(shop.source.config)
        with journal.alone():
            journal.write("look", "done")
            with pytest.raises(RestoreError, match=r"gave .* id \d+, expected \d+: it keeps no"):
                registry_ways.by_ids(shop.source.config, shop.taken, journal)
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
    recovery = shop.recovery(way)
    recovery.run()
    assert recovery.done["prove"]["ids_in_records"] == 2
    assert shop.told() == []
    with pytest.raises(RecoveryRefused, match="nothing is wrong"):
        shop.recovery(Way.EXPORT).run()


@pytest.mark.slow
def test_a_recovery_that_is_killed_after_each_step_and_within_the_import_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(shop.stack)
    recovery = shop.recovery(Way.EXPORT)
    steps = [step.name for step in recovery.steps()]
    imported = registry_ways.by_export

    def killed_within(*words: object, **more: object) -> None:
        monkeypatch.setattr(registry_ways, "by_export", imported)
        imported(*words, **more)  # type: ignore[arg-type]  # passed on as they are
        raise Power

    monkeypatch.setattr(registry_ways, "by_export", killed_within)
    killed: list[str] = []

    def kill(step: str, _facts: Facts) -> None:
        killed.append(step)
        raise Power

    while killed != steps:
        recovery = shop.recovery(Way.EXPORT, resume=recovery.journal)
        recovery.observe = kill
        with pytest.raises(Power):
            recovery.run()
        assert len(killed) <= len(steps), killed
    recovery.run()  # nothing is left to do
    assert shop.told() == []


def test_the_commands_say_what_differs_and_what_no_schema_explains(
    shop: Shop, stack: NativeStack
) -> None:
    emptied(stack)
    config = shop.source.config
    file = config.repository.path / "pipeline.toml"
    toml.write(config, file, password_file=stack.password_file)
    marker.make(str(config.repository.path))

    def told(code: int, *words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--config", str(file)])
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    assert "it is gone, also as a deleted one" in told(0, "recover", "registry", "--plan")
    wrong = told(1, "backup", "schemas")
    assert f"not as in {shop.taken.label}: " in wrong
    assert "no schema explains" in wrong
    stranger = shop.recovery(Way.EXPORT)
    stranger.identity = "another"
    with pytest.raises(RecoveryRefused, match="typed 'another', the cluster's id is"):
        stranger.run()
    shop.recovery(Way.EXPORT).run()
    assert "not as in" not in told(0, "backup", "schemas")
