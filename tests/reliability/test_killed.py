"""kill -9 at any moment: no incomplete set is accepted, none is lost, and the next run succeeds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.stacks.versions import since
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository import marker
from tests.recovery.history import Source
from tests.reliability.restore_stories import Restore, RestoreDatabase
from tests.reliability.rounds import Pipeline, Story, repeat
from tests.reliability.stories import Backup, Increment, Push, Receive, Retain, RetainChains

EACH = 11  # kills of each story in the nightly run: with those of tests/kafka more than a hundred


def base(pipeline: Pipeline, _folder: Path) -> Story:
    return Backup(pipeline, "base")


def logical(pipeline: Pipeline, _folder: Path) -> Story:
    return Backup(pipeline, "logical")


def incremental(pipeline: Pipeline, _folder: Path) -> Story:
    since(17, "an incremental backup")
    taken = pipeline.run("backup", "base")
    return Increment(pipeline, "base", {taken.out.rsplit(maxsplit=1)[-1]})


def push(pipeline: Pipeline, folder: Path) -> Story:
    return Push(pipeline, folder)


def retain(pipeline: Pipeline, _folder: Path) -> Story:
    assert pipeline.run("backup", "logical", "--schema-only").code == 0
    return Retain(pipeline)


def retain_chains(pipeline: Pipeline, _folder: Path) -> Story:
    assert pipeline.run("backup", "base").code == 0
    return RetainChains(pipeline)


def receive(pipeline: Pipeline, _folder: Path) -> Story:
    # the slot first: the stream must hold everything from the backup on
    pipeline.source.run("select pg_create_physical_replication_slot('pipeline_receiver', true)")
    start = pipeline.source.back_up("first").manifest.facts["start_lsn"]
    return Receive(pipeline, Lsn.parse(start))


def restore(pipeline: Pipeline, folder: Path) -> Story:
    source = pipeline.source
    source.back_up("restored")
    for number in range(3):
        source.write(f"replayed {number}")
        source.archive()
    source.expect(source.position())
    folder.mkdir()
    source.tools.own(folder)
    return Restore(pipeline, folder, source.run("select count(*) from notes"))


def restore_database(pipeline: Pipeline, _folder: Path) -> Story:
    assert pipeline.run("backup", "logical").code == 0
    tables = pipeline.source.run("select count(*) from pg_stat_user_tables")
    return RestoreDatabase(pipeline, tables)


STORIES = [
    base,
    incremental,
    logical,
    push,
    retain,
    retain_chains,
    receive,
    restore,
    restore_database,
]


@pytest.fixture
def empty(source: Source) -> None:
    """A repository and a scratch folder of nobody else's."""
    source.run(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active"
    )
    for folder in (source.config.repository.path, source.stack.folder / "scratch"):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    marker.make(str(source.config.repository.path))
    source.backups.clear()


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.parametrize("kills", [1, pytest.param(EACH, marks=pytest.mark.slow)])
def test_killed_at_a_random_moment(
    pipeline: Pipeline, seed: int, story: Callable[[Pipeline, Path], Story], kills: int
) -> None:
    told = story(pipeline, pipeline.source.stack.folder / "scratch" / "story")
    repeat(told, pipeline.place(), kills, seed)
