"""`pipeline verify` ends in order or killed, and its exit code is the truth."""

import errno
import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import IO

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.keeping import readings
from pipeline.keeping.readings import FILE, open_readings
from pipeline.keeping.verify import verify
from pipeline.wait import wait_until
from tests.verification.kept import OBJECT, Kept, read, recorded

LIMIT = timedelta(seconds=60)


def pipeline(kept: Kept, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", *arguments, "--config", str(configured(kept))])
    return done.exit_code, done.output


def configured(kept: Kept) -> Path:
    path = kept.root.with_suffix(".toml")
    path.write_text(f'[repository]\npath = "{kept.root}"\n')
    return path


def test_a_kill_loses_only_the_object_that_was_being_read(kept: Kept) -> None:
    large = kept.root / "salvage/one/log/large"  # sorts between the sets and the WAL
    large.parent.mkdir(parents=True)
    with large.open("wb") as stream:
        stream.truncate(1 << 40)  # no blocks: it only takes long to read
    words = [sys.executable, "-m", "pipeline", "verify", "--jobs", "1"]
    process = subprocess.Popen(
        [*words, "--config", str(configured(kept))], stdout=subprocess.DEVNULL, cwd=Path.cwd()
    )

    def recorded_sets() -> str | None:
        path = kept.root / FILE
        lines = path.read_bytes().count(b"\n") if path.exists() else 0
        return None if lines == 7 else f"{lines} lines, {process.poll()}"

    try:
        wait_until("readings of both sets", recorded_sets, within=LIMIT)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    large.unlink()
    assert sorted(read(verify(kept.root))) == kept.segments()


def test_a_repository_that_is_read_only_is_verified_and_left_as_it_is(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An auditor's mount: what others noted counts, and what is read now is noted nowhere."""
    verify(kept.root)
    before = (kept.root / FILE).read_bytes()
    locked = readings._locked

    def read_only(path: Path) -> IO[bytes]:
        if path.parent == kept.root:
            raise OSError(errno.EROFS, "Read-only file system")
        return locked(path)

    monkeypatch.setattr(readings, "_locked", read_only)
    for options in ((), ("--full",)):
        code, told = pipeline(kept, *options)
        assert (code, "cannot be written: what is read now is noted" in told) == (0, True)
    assert (kept.root / FILE).read_bytes() == before


def test_what_cannot_be_read_is_not_verified_and_not_recorded(kept: Kept) -> None:
    broken = kept.root / "salvage/one/log/broken"
    broken.parent.mkdir(parents=True)
    broken.symlink_to("/proc/self/mem")  # its first byte is an input/output error
    code, told = pipeline(kept)
    assert (code, "Input/output error" in told, "salvage/one/log/broken" in told) == (
        11,
        True,
        True,
    )
    assert len(recorded(kept)) == 11
    kept.repository.store.delete(kept.segments()[2])
    assert pipeline(kept)[0] == 1  # damage outweighs


def test_where_nothing_is_kept_nothing_is_verified(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, told = pipeline(Kept(tmp_path / "empty"))
    assert (code, "neither a backup set nor WAL" in told) == (11, True)
    code, told = pipeline(Kept(tmp_path / "unmounted"))
    assert (code, "not verified" in told) == (11, True)


def test_two_at_once_are_told(kept: Kept) -> None:
    with open_readings(kept.root):
        code, told = pipeline(kept)
    assert (code, "another verification" in told) == (11, True)


def test_the_report_names_the_damaged_and_the_oldest(kept: Kept, rng: Random) -> None:
    assert pipeline(kept)[0] == 0
    kept.flip(kept.first(), rng)
    code, told = pipeline(kept)
    assert code == 1
    assert f"damaged    {kept.first()}: expected {OBJECT} bytes with sha256" in told
    assert "last read in full 0.0 days ago" in told
    code, told = pipeline(kept, "--json")
    facts = json.loads(told.splitlines()[-1])
    assert (code, facts["exit_code"]) == (1, 1)
    assert facts["damaged"][0]["key"] == kept.first()


@pytest.mark.parametrize("share", ["0", "2", "some", "1/0"])
def test_a_share_that_is_none_is_refused(kept: Kept, share: str) -> None:
    done = CliRunner().invoke(app, ["verify", "--share", share, "--config", str(configured(kept))])
    assert "--share" in str(done.exception)
    assert not (kept.root / FILE).exists()
