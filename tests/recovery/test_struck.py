"""Killed at any call to the outside, a recovery is resumed and comes to the right end."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pipeline.postgres.server import clients
from pipeline.postgres.server.isolation import SIGNALS, WRITTEN_BY_ALTER_SYSTEM
from pipeline.repository.journal import Journal
from pipeline.runbooks import side
from pipeline.runbooks.point_in_time import new_recovery
from tests.recovery.history import Source
from tests.recovery.orchard import STAGED, Orchard
from tests.recovery.striking import strikes_everywhere, struck
from tests.recovery.test_point_in_time import STEPS
from tests.recovery.without_connect import recovery

TABLE_STEPS = ["plan", "stage", "apply", "prove", "reconcile"]
ENOUGH = 6
# about as many calls as each step makes
MANY = dict.fromkeys(STEPS, 6) | {"restore": 20, "replay": 30, "open": 30}


def damaged(source: Source) -> tuple[Journal, Callable[[], None]]:
    """A recovery to right before a transaction, not begun yet, and what runs it, or goes on."""
    source.back_up("one")
    source.write("kept")
    dropped = source.write("dropped")
    source.expect(dropped.after)
    journal = new_recovery(source.config)
    return journal, lambda: recovery(source, journal, f"before:xid:{dropped.xid}").run()


def recovered(source: Source, journal: Journal) -> None:
    """Rows are those of the target, clients are in, and nothing of the recovery is left over."""
    assert source.run("select string_agg(note, ',') from notes") == "kept"
    source.run("insert into notes (note) values ('written')")
    assert [name for name in (*SIGNALS, "backup_label") if (source.data / name).exists()] == []
    assert clients.RULES not in (source.data / WRITTEN_BY_ALTER_SYSTEM).read_text()
    aside = f"{source.data.name}.damaged-{journal.recovery}"
    beside = sorted(path.name for path in source.data.parent.glob(f"{source.data.name}*"))
    assert [name for name in beside if name.startswith(f"{source.data.name}.damaged")][-1:] == [
        aside
    ]
    assert (source.config.repository.path / "wal" / "00000002.history").exists()


def test_a_recovery_that_dies_at_some_call_of_every_step(source: Source, seed: int) -> None:
    journal, run = damaged(source)
    rng = Random(seed)
    calls = [struck(step, rng.randint(1, MANY[step]), run) for step in STEPS]
    assert len([call for call in calls if call]) >= ENOUGH
    run()
    recovered(source, journal)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_recovery_that_dies_at_every_call_of_a_step(source: Source, step: str) -> None:
    journal, run = damaged(source)
    assert strikes_everywhere(step, run)
    run()
    recovered(source, journal)


def spoilt(orchard: Orchard) -> tuple[Callable[[], None], Callable[[], None]]:
    """A restore of a damaged table, and what sees that it was restored and all is tidy."""
    before = orchard.everything()
    target = orchard.damage("delete from fruits where no % 2 = 0")
    journal = orchard.recovery(target, "fruits").journal
    place: Path = side.scratch(orchard.recovery(target, "fruits").config)

    def run() -> None:
        orchard.recovery(target, "fruits", journal=journal).run()

    def restored() -> None:
        assert orchard.everything() == before
        assert orchard.run(STAGED) == 0
        assert not list(place.glob(f"{side.PREFIX}*/data"))

    return run, restored


def test_a_restore_of_tables_that_dies_at_some_call_of_every_step(
    orchard: Orchard, seed: int
) -> None:
    run, restored = spoilt(orchard)
    rng = Random(seed)
    for step in TABLE_STEPS:
        struck(step, rng.randint(1, 10), run)
    run()
    restored()


@pytest.mark.slow
@pytest.mark.parametrize("step", TABLE_STEPS)
def test_a_restore_of_tables_that_dies_at_every_call_of_a_step(orchard: Orchard, step: str) -> None:
    run, restored = spoilt(orchard)
    assert strikes_everywhere(step, run, every={"stage": 9, "apply": 5}.get(step, 1))
    run()
    restored()
