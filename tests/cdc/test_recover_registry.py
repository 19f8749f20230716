"""The registry recovered with every id: by each way, interrupted anywhere, by the command."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.stacks import toml
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.cli import app
from pipeline.errors import RecoveryRefused
from pipeline.repository import marker
from pipeline.runbooks import registry_ways
from pipeline.runbooks.registry_asked import Way
from pipeline.runbooks.runbook import Facts
from tests.cdc.registries import Shop, emptied, opened
from tests.recovery.interrupted import Power

pytestmark = pytest.mark.stack


@pytest.fixture
def shop(stack: NativeStack, tmp_path: Path) -> Iterator[Shop]:
    with opened(stack, tmp_path) as found:
        yield found


def test_a_registry_comes_back_with_every_id_by_its_export(shop: Shop, stack: NativeStack) -> None:
    """What differs, and what no schema explains, is told by the commands meanwhile."""
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
    _recovered(shop, Way.EXPORT)
    assert "not as in" not in told(0, "backup", "schemas")


@pytest.mark.slow
def test_a_registry_comes_back_with_every_id_by_its_topic(shop: Shop) -> None:
    shop.stack.kill(Component.REGISTRY)
    shop.stack.wipe(Component.REGISTRY)
    _recovered(shop, Way.STORAGE)


def _recovered(shop: Shop, way: Way) -> None:
    """Recover, and see that every id stands for its schema, and that nothing is left to do."""
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
