"""A place without a marker is no repository, and a repository archives the WAL of one server."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.errors import ConfigError, TargetUnreachable
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal import wal_command
from pipeline.repository import marker
from pipeline.runbooks.plan import make
from tests.segments import SIZE, segment_bytes
from tests.sets import committed

NAMES = [f"0000000100000000000000{n:02X}" for n in range(1, 4)]


def segment(folder: Path, name: str, server: int) -> Path:
    path = folder / name
    path.write_bytes(segment_bytes(name, server))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.toml").write_text(f'[repository]\npath = "{tmp_path / "mounted"}"\n')
    return tmp_path / "mounted"


def run(place: Path, *words: str) -> str:
    configuration = str(place.with_name("pipeline.toml"))
    done = CliRunner().invoke(app, [*words, "--config", configuration])
    if isinstance(done.exception, ConfigError):
        return str(done.exception)
    assert done.exception is None, repr(done.exception)
    return done.output


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
def test_wal_is_not_pushed_below_a_volume_that_is_not_mounted(
    place: Path, capfd: pytest.CaptureFixture[str], *, there: bool
) -> None:
    if there:
        place.mkdir()
        (place / "wal").mkdir()
    assert wal_command.push(place, segment(place.parent, NAMES[0], 7)) == 1
    assert (
        "has no repository.json. Is its volume mounted? `pipeline init`" in capfd.readouterr().err
    )
    assert not list(place.rglob("*.*")) if there else not place.exists()


@pytest.mark.parametrize(
    "command",
    [
        "backup base",
        "backup logical",
        "backup topics",
        "backup offsets",
        "backup cdc",
        "wal receive",
    ],
)
def test_nothing_is_backed_up_there_either(place: Path, command: str) -> None:
    assert "Is its volume mounted?" in run(place, *command.split())
    assert not place.exists()


def test_init_makes_a_repository_once(place: Path) -> None:
    assert run(place, "init") == f"{place} is now a repository\n"
    written = (place / marker.MARKER).read_bytes()
    assert run(place, "init") == f"{place} is already a repository\n"
    assert (place / marker.MARKER).read_bytes() == written
    assert wal_command.push(place, segment(place.parent, NAMES[0], 7)) == 0


def test_what_an_earlier_version_made_is_a_repository(place: Path) -> None:
    committed(place, "base")
    assert marker.refusal(str(place)) is None
    assert wal_command.push(place, segment(place.parent, NAMES[0], 7)) == 0


def test_wal_of_another_server_is_refused_by_name(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(place, "init")
    ours, foreign = (segment(place.parent, name, n) for name, n in zip(NAMES, (7, 8), strict=False))
    assert wal_command.push(place, ours) == 0
    assert wal_command.push(place, foreign) == 1
    told = capfd.readouterr().err
    assert "the server with system identifier 7, this is WAL of 8" in told
    assert [path.name for path in (place / "wal").iterdir()] == [ours.name]
    run(place, "init", "--server", "8")  # pg_upgrade gives a new identifier
    assert wal_command.push(place, foreign) == 0


WITHOUT_HEADER = {
    "00000002.history": "1\t0/3000000\tno recovery target specified\n",
    f"{NAMES[0]}.00000028.backup": "START WAL LOCATION: 0/100028 (file 000000010000000000000001)\n",
}


@pytest.mark.parametrize("name", WITHOUT_HEADER)
def test_what_has_no_header_is_archived(place: Path, name: str) -> None:
    run(place, "init")
    marker.of_another(str(place), "7")
    file = place.parent / name
    file.write_text(WITHOUT_HEADER[name])
    assert wal_command.push(place, file) == 0


def test_what_a_timeline_left_unfinished_is_archived(place: Path) -> None:
    run(place, "init")
    assert wal_command.push(place, segment(place.parent, f"{NAMES[0]}.partial", 7)) == 0


@pytest.mark.parametrize(
    "name",
    ["notes.txt", NAMES[0][:-1], NAMES[0].replace("1", "a"), f"{NAMES[0]}.gz", "1.history", ".."],
)
def test_a_file_of_another_name_is_no_wal(
    place: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who copies into the archive by hand has his slip told, and nothing answers 0 to it."""
    run(place, "init")
    file = segment(place.parent, NAMES[0], 7)
    if name != "..":
        file = file.rename(place.parent / name)
    assert wal_command.push(place, file if name != ".." else place / "..") == 1
    assert "a server archives no file of that name" in capfd.readouterr().err
    assert not (place / "wal").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: SIZE // 2])


def garbled(path: Path) -> None:
    path.write_bytes(b"\x17" * SIZE)


def zeroed(path: Path) -> None:
    """As a file system gives back what it had allocated and never written."""
    path.write_bytes(bytes(SIZE))


def of_another_place(path: Path) -> None:
    segment(path.parent, NAMES[1], 7).rename(path)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "it has 524288 bytes, expected 1048576 by its header"),
        (garbled, "it does not begin as a segment"),
        (zeroed, "it does not begin as a segment"),
        (of_another_place, "it begins at 0x200000, expected 0x100000 by its name"),
        (emptied, "it does not begin as a segment"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    place: Path,
    damage: Callable[[Path], None],
    told: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What is acknowledged the server forgets, and nobody could archive it any more."""
    run(place, "init")
    file = segment(place.parent, NAMES[0], 7)
    damage(file)
    assert wal_command.push(place, file) == 1
    assert told in capfd.readouterr().err
    assert not (place / "wal").exists()


@pytest.mark.parametrize("name", WITHOUT_HEADER)
def test_a_history_that_is_none_is_refused(place: Path, name: str) -> None:
    run(place, "init")
    (place.parent / name).write_bytes(b"")
    assert wal_command.push(place, place.parent / name) == 1


def test_a_recovery_takes_no_backup_of_another_server(place: Path) -> None:
    """Also where no receiver ever wrote which server it is."""
    told = ("system_identifier", "timeline", "start_lsn", "end_lsn", "end_time", "wal_segment_size")
    values = ("8", 1, "0/2000028", "0/2000100", "2026-01-01T00:00:00+00:00", 1 << 24)
    foreign = committed(place, "base", facts=dict(zip(told, values, strict=True)))
    marker.of_another(str(place), "7")
    config = PipelineConfig(repository=RepositoryConfig(path=place))
    with pytest.raises(TargetUnreachable, match=f"{foreign.label}: is of another server"):
        make(config, Target.parse("latest"))


def test_a_new_repository_is_closed_to_others(place: Path) -> None:
    run(place, "init")
    assert place.stat().st_mode & 0o007 == 0
