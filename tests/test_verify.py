"""What is not what it was is named, on the night it shows; nothing counts as read that was not."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.postgres.lsn import Lsn, segment_name
from pipeline.repository import MANIFEST, BackupSet, Manifest, Repository
from pipeline.store import FolderStore
from pipeline.verification.readings import DAMAGED, FILE, Reading, open_readings
from pipeline.verification.verify import SHARE, Verification, verify
from pipeline.wait import wait_until

NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
SEGMENT = 1 << 20
OBJECT = 50_000
LIMIT = timedelta(seconds=60)


@dataclass(frozen=True)
class Kept:
    """A repository of two backup sets with two objects each, and five segments of WAL."""

    root: Path

    @property
    def repository(self) -> Repository:
        return Repository(FolderStore(self.root))

    def commit(self, at: datetime, sizes: tuple[int, ...] = (OBJECT, 20)) -> BackupSet:
        label = self.repository.new_label("base", at)
        objects = tuple(
            self.repository.store.put(f"sets/base/{label}/{name}", [os.urandom(size)])
            for name, size in enumerate(sizes)
        )
        facts = {"wal_segment_size": SEGMENT}
        manifest = Manifest(
            kind="base",
            label=label,
            started=at,
            finished=at,
            made_by="test",
            facts=facts,
            objects=objects,
        )
        return self.repository.commit(manifest)

    def archive(self, number: int, folder: str = "wal") -> str:
        key = f"{folder}/{segment_name(1, Lsn(number * SEGMENT), SEGMENT)}"
        self.repository.store.put(key, [os.urandom(SEGMENT)])
        return key

    def verify(self, night: float = 0, **how: object) -> Verification:
        return verify(self.root, now=NOW + night * DAY, **how)  # type: ignore[arg-type]

    def first(self) -> str:
        """Key of the first set's first object."""
        (folder, *_) = sorted(self.root.glob("sets/base/*"))
        return (folder / "0").relative_to(self.root).as_posix()

    def manifest(self) -> str:
        return str(Path(self.first()).with_name(MANIFEST))

    def segments(self) -> list[str]:
        return list(self.repository.store.list("wal/"))

    def flip(self, key: str, rng: Random) -> None:
        path = self.root / key
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    def forget_that_it_was_written(self, key: str) -> None:
        """Make a change look as bit rot does: the file's times tell nothing."""
        with open_readings(self.root) as readings:
            known = readings.get(key)
            assert known is not None
            readings.add(replace(known, changed=(self.root / key).stat().st_ctime_ns))


@pytest.fixture
def rng(seed: int) -> Random:
    return Random(seed)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    made = Kept(tmp_path / "repository")
    for hour in (1, 2):
        made.commit(NOW - timedelta(hours=hour))
    for number in range(10, 15):
        made.archive(number)
    return made


def damaged(run: Verification) -> list[str]:
    return [damage.key for damage in run.damaged]


def read(run: Verification) -> list[str]:
    return [reading.key for reading in run.read]


def test_everything_is_read_once_and_not_again_that_night(kept: Kept) -> None:
    first = kept.verify()
    assert (first.damaged, len(first.read), first.size) == ([], 11, first.survey.size)
    second = kept.verify()
    assert (second.damaged, read(second)) == ([], [])
    assert second.oldest is not None
    assert second.oldest.read == NOW


def test_full_reads_everything_again(kept: Kept) -> None:
    kept.verify()
    assert len(kept.verify(full=True).read) == 11


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    days=st.integers(1, 9),
    nights=st.lists(st.floats(0.8, 1.2), min_size=14, max_size=14),
)
def test_no_object_stays_unread_for_longer_than_the_share_says(
    sizes: list[int], days: int, nights: list[float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept, at, share = Kept(Path(folder)), 0.0, Fraction(1, days)
        kept.commit(NOW, tuple(sizes))
        for night in nights:
            run = kept.verify(at, share=share)
            assert not run.damaged
            assert run.oldest is not None
            assert NOW + at * DAY - run.oldest.read < days * DAY
            at += night


def test_a_usual_night_reads_its_share_oldest_first(kept: Kept) -> None:
    kept.verify()
    seen: list[str] = []
    for night in range(1, 6):  # five large segments, and each is more than 1/7
        run = kept.verify(night)
        assert run.size < 2 * run.survey.size * SHARE + SEGMENT
        seen += read(run)
    assert len(seen) == len(set(seen)) == 11


Mutation = Callable[[Kept, Random], str]


def flipped_bit(kept: Kept, rng: Random) -> str:
    kept.flip(kept.first(), rng)
    return kept.first()


def cut(kept: Kept, rng: Random) -> str:
    os.truncate(kept.root / kept.first(), rng.randrange(OBJECT))
    return kept.first()


def grown(kept: Kept, _rng: Random) -> str:
    with (kept.root / kept.first()).open("ab") as stream:
        stream.write(b"\0")
    return kept.first()


def object_lost(kept: Kept, _rng: Random) -> str:
    key = kept.first()
    kept.repository.store.delete(key)
    return key


def manifest_lost(kept: Kept, _rng: Random) -> str:
    key = kept.manifest()
    kept.repository.store.delete(key)
    return key


def manifest_flipped(kept: Kept, rng: Random) -> str:
    kept.flip(kept.manifest(), rng)
    return kept.manifest()


def manifest_cut(kept: Kept, rng: Random) -> str:
    path = kept.root / kept.manifest()
    os.truncate(path, rng.randrange(path.stat().st_size))
    return kept.manifest()


def manifest_sealed_anew_around_other_content(kept: Kept, rng: Random) -> str:
    """Class 13 of the catalogue: object and digest agree, and neither is what was written."""
    key, manifest = kept.first(), kept.manifest()
    kept.flip(key, rng)
    sealed = kept.repository.get(kept.repository.labels()[0]).manifest
    content = (kept.root / key).read_bytes()
    kept.repository.store.delete(key)
    stored = kept.repository.store.put(key, [content])
    kept.repository.store.delete(manifest)
    other = sealed.model_copy(update={"objects": (stored, *sealed.objects[1:])})
    kept.repository.store.put(manifest, [other.sealed()])
    return key


def wal_flipped(kept: Kept, rng: Random) -> str:
    key = rng.choice(kept.segments())
    kept.flip(key, rng)
    return key


def wal_cut(kept: Kept, rng: Random) -> str:
    key = rng.choice(kept.segments())
    os.truncate(kept.root / key, rng.randrange(SEGMENT))
    return key


def wal_of_the_middle_lost(kept: Kept, rng: Random) -> str:
    key = rng.choice(kept.segments()[1:])
    kept.repository.store.delete(key)
    return key


MUTATIONS: list[Mutation] = [
    flipped_bit,
    cut,
    grown,
    object_lost,
    manifest_lost,
    manifest_flipped,
    manifest_cut,
    manifest_sealed_anew_around_other_content,
    wal_flipped,
    wal_cut,
    wal_of_the_middle_lost,
]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_damage_that_shows_is_named_at_once_and_until_it_is_mended(
    kept: Kept, mutation: Mutation, rng: Random
) -> None:
    kept.verify()
    before = {key: (kept.root / key).read_bytes() for key in kept.repository.store.list()}
    key = mutation(kept, rng)
    for night in (0, 1, 2):
        assert key in damaged(kept.verify(night))
    for name, content in before.items():
        if name != FILE:
            (kept.root / name).write_bytes(content)
    assert kept.verify(3).damaged == []


@pytest.mark.parametrize("mutation", [flipped_bit, cut, object_lost, manifest_flipped, wal_cut])
def test_what_can_be_known_without_a_first_reading_is(
    kept: Kept, mutation: Mutation, rng: Random
) -> None:
    key = mutation(kept, rng)
    assert damaged(kept.verify()) == [key]


@pytest.mark.parametrize("mutation", [flipped_bit, wal_flipped])
def test_rot_that_leaves_no_trace_is_seen_on_its_turn(
    kept: Kept, mutation: Mutation, rng: Random
) -> None:
    kept.verify()
    key = mutation(kept, rng)
    kept.forget_that_it_was_written(key)
    assert damaged(kept.verify()) == []  # size and times are as they were: --help says so
    assert key in {found for night in range(1, 8) for found in damaged(kept.verify(night))}


@pytest.mark.parametrize("mutation", [flipped_bit, wal_flipped])
def test_full_sees_rot_at_once(kept: Kept, mutation: Mutation, rng: Random) -> None:
    kept.verify()
    key = mutation(kept, rng)
    kept.forget_that_it_was_written(key)
    assert damaged(kept.verify(full=True)) == [key]


def test_what_retention_takes_is_told_and_is_no_damage(kept: Kept) -> None:
    kept.verify()
    store, prefix = kept.repository.store, kept.first().rpartition("/")[0]
    going = [*store.list(prefix), *kept.segments()[:2]]
    for key in going:
        store.delete(key)
    run = kept.verify()
    assert (run.damaged, sorted(run.survey.gone)) == ([], sorted(going))
    assert kept.verify().survey.gone == []


def test_a_streamed_twin_is_enough(kept: Kept) -> None:
    streamed = kept.archive(12, "stream/00000001")
    kept.verify()
    kept.repository.store.delete("wal/" + Path(streamed).name)
    assert kept.verify().damaged == []


def test_what_no_manifest_lists_is_named(kept: Kept) -> None:
    inside = str(Path(kept.first()).with_name("stray"))
    for key in (inside, "sets/base/base-20260301T010101Z-0000/base.tar.zst"):
        kept.repository.store.put(key, [b"x"])
    run = kept.verify()
    assert len(run.survey.unlisted) == 2
    assert f"{inside}: no manifest lists it" in run.survey.unlisted
    assert run.damaged == []


def test_a_segment_that_still_grows_is_not_judged(kept: Kept) -> None:
    growing = (
        kept.root / "stream/00000001" / (segment_name(1, Lsn(15 * SEGMENT), SEGMENT) + ".partial")
    )
    growing.parent.mkdir(parents=True)
    growing.write_bytes(b"x")
    kept.verify()
    growing.write_bytes(b"yy")
    assert kept.verify().damaged == []


def recorded(kept: Kept) -> set[Reading]:
    with open_readings(kept.root) as readings:
        return set(readings)


@contextmanager
def lines_of_three() -> Iterator[tuple[Kept, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(Path(folder))
        kept.commit(NOW)
        kept.verify()
        yield kept, (kept.root / FILE).read_bytes()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_readings_never_claim_what_was_not_read(data: st.DataObject) -> None:
    with lines_of_three() as (kept, sound):
        truth, content = recorded(kept), bytearray(sound)
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(sound))) :]
        else:
            content[data.draw(st.integers(0, len(sound) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (kept.root / FILE).write_bytes(content)
        assert recorded(kept) <= truth


def test_damaged_readings_are_told_kept_and_everything_is_read_again(kept: Kept) -> None:
    kept.verify()
    lines = (kept.root / FILE).read_bytes().splitlines(keepends=True)
    (kept.root / FILE).write_bytes(b"".join([*lines[:2], *lines[3:]]))
    run = kept.verify()
    assert len(run.read) == 11
    assert run.note is not None
    assert "line 3 does not follow" in run.note
    assert (kept.root / DAMAGED).exists()
    assert (kept.verify().note, kept.verify().damaged) == (None, [])


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
