"""What the benchmarks say of their figures; what they measure needs servers, and runs by hand."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from bench.backups import Unhashed
from bench.detection import Seen
from bench.measure import Series, aim, cold, interleaved, write_block
from pipeline.repository.store import FolderStore


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """A round in which the machine was busy falls on both."""
    mine, theirs = Series("mine", (1.0, 20.0, 1.2)), Series("theirs", (2.0, 40.0, 2.0))
    assert mine.over(theirs) == 0.5


@pytest.mark.parametrize(("found", "verdict"), [(1.05, "reached"), (1.06, "missed")])
def test_an_aim_is_told_with_its_figure(found: float, verdict: str) -> None:
    """An aim that is met exactly is reached."""
    told = aim("a backup, as a ratio to plain pg_basebackup,", 1.05, found)
    assert told.endswith(f"at most 1.05: {verdict} ({found}).")


def test_another_contestant_begins_each_round() -> None:
    """Who runs first finds another machine than who runs last."""
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return 1.0

    interleaved({name: lambda name=name: run(name) for name in "abc"}, 3, lambda _: None)  # type: ignore[misc] # mypy infers no type for a default
    assert "".join(order) == "abcbcacab"


def test_a_file_that_a_live_server_removes_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there when the folder is listed, and gone when it is opened."""
    (tmp_path / "gone").write_bytes(b"x")
    opening = os.open

    def removed(path: Path, flags: int) -> int:
        path.unlink()
        return opening(path, flags)

    monkeypatch.setattr(os, "open", removed)
    cold(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_its_digest_the_store_writes_the_same(tmp_path: Path) -> None:
    """Else more than the hashing would be measured."""
    chunks: Iterable[bytes] = [b"one", b"two"]
    hashed = FolderStore(tmp_path / "hashed").put("sets/base/object", chunks)
    plain = Unhashed(tmp_path / "plain").put("sets/base/object", chunks)
    assert (plain.key, plain.size, plain.sha256) == (hashed.key, hashed.size, "")
    (written,) = (path for path in (tmp_path / "plain").rglob("*") if path.is_file())
    assert written.read_bytes() == (tmp_path / "hashed/sets/base/object").read_bytes()


def test_every_rule_that_warns_of_an_intact_repository_is_named_once() -> None:
    """A cell that names one of three looks as if the other two were silent."""
    seen = Seen(content="9 d", warned=("wal.a: x: y", "wal.a: z: y", "base.b: x: y"))
    assert seen.cell("9 d") == "not seen, nothing lost; warns by `wal.a`, `base.b`"
    assert Seen(content="5 e").cell("9 d") == "**silent** (5 of 9)"


def test_a_block_is_written_between_its_own_markers(tmp_path: Path) -> None:
    """Prose, and the blocks of other runs, stay."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- bench: x begins -->\nold\n<!-- bench: x ends -->\nb\n")
    write_block(page, "x", "new")
    assert page.read_text() == ("a\n<!-- bench: x begins -->\n\nnew\n\n<!-- bench: x ends -->\nb\n")
