"""An expected end tells of one timeline: of a newer one it knows nothing, neither good nor bad."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig
from pipeline.errors import LossNotAccepted
from pipeline.postgres.base.reach import reach
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.plan import make
from tests.recovery.history import History, copied

LATEST = Target.parse("latest")


@pytest.fixture
def branched(history: History, tmp_path: Path) -> PipelineConfig:
    """A repository whose newest base backup is one of timeline 2, which left 1 before it."""
    folder = history.source.stack.folder / "scratch" / tmp_path.name
    config = history.elsewhere(copied(history.repository, folder, history.source.tools))
    left = history.source.commits["three"].after
    (folder / "wal/00000002.history").write_text(f"1\t{left}\tbefore a mistake\n")
    for path in list((folder / "wal").glob("00000001" + "?" * 16)):
        if int(path.name[16:], 16) >= left // (16 << 20):  # the same bytes lead on in both
            shutil.copyfile(path, path.with_name(f"00000002{path.name[8:]}"))
    second = history.source.backups["second"].manifest
    later = second.started + timedelta(hours=1)
    repository = Repository(FolderStore(folder))
    label = repository.new_label("base", later)
    (entry,) = [e for e in second.objects if e.key.endswith("base.tar.zst")]
    with (folder / entry.key).open("rb") as stream:
        stored = repository.store.put(f"sets/base/{label}/base.tar.zst", stream)
    facts = second.facts | {"timeline": 2}
    changes = {"label": label, "started": later, "facts": facts, "objects": (stored,)}
    repository.commit(second.model_copy(update=changes))
    return config


def expect(config: PipelineConfig, timeline: int, lsn: int) -> None:
    known = ExpectedEnd.read(config.repository.path)
    replace(known, timeline=timeline, lsn=Lsn(lsn)).write(config.repository.path)


@pytest.mark.parametrize("beyond", [1 << 30, -(16 << 20)])
def test_what_an_older_timeline_came_to_is_no_loss_of_a_newer_one(
    history: History, branched: PipelineConfig, beyond: int
) -> None:
    """Its tail was let go at the recovery that began the newer one; of that nobody has word."""
    expect(branched, 1, history.end + beyond)
    with pytest.raises(LossNotAccepted, match="of timeline 2 had come is unknown") as refused:
        make(branched, LATEST)
    assert "bytes of WAL are missing" not in str(refused.value)
    newest = reach(branched)[-1]
    assert (newest.timeline, newest.missing) == (2, ())
    assert newest.complete
    assert "of timeline 2 had come is unknown" in newest.reason
    assert newest.until == history.source.commits["last"].time


def test_of_its_own_timeline_the_expected_end_is_believed(
    history: History, branched: PipelineConfig
) -> None:
    expect(branched, 2, history.end)
    assert make(branched, LATEST).shortfall == ""
    expect(branched, 2, history.end + (1 << 30))
    with pytest.raises(LossNotAccepted, match="bytes of WAL are missing"):
        make(branched, LATEST)
    assert not reach(branched)[-1].complete
