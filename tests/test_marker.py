"""A place without a marker is no repository, and a repository archives the WAL of one server."""

import struct
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
from tests.sets import committed

NAMES = [f"0000000100000000000000{n:02X}" for n in range(1, 4)]
SIZE = 1 << 20


def segment(folder: Path, name: str, server: int) -> Path:
    """A segment that begins as PostgreSQL's do."""
    header = struct.pack("=HHIQI4xQII", 0xD118, 2, 1, 1 << 20, 0, server, SIZE, 8192)
    path = folder / name
    path.write_bytes(header.ljust(SIZE, b"\0"))
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


@pytest.mark.parametrize("name", ["00000002.history", f"{NAMES[0]}.00000028.backup"])
def test_what_has_no_header_is_archived(place: Path, name: str) -> None:
    run(place, "init")
    marker.of_another(str(place), "7")
    file = place.parent / name
    file.write_text("1\t0/3000000\tno recovery target specified\n")
    assert wal_command.push(place, file) == 0


def test_a_recovery_takes_no_backup_of_another_server(place: Path) -> None:
    """Also where no receiver ever wrote which server it is."""
    told = ("system_identifier", "timeline", "start_lsn", "end_lsn", "end_time", "wal_segment_size")
    values = ("8", 1, "0/2000028", "0/2000100", "2026-01-01T00:00:00+00:00", 1 << 24)
    foreign = committed(place, "base", facts=dict(zip(told, values, strict=True)))
    marker.of_another(str(place), "7")
    config = PipelineConfig(repository=RepositoryConfig(path=place))
    with pytest.raises(TargetUnreachable, match=f"{foreign.label}: is of another server"):
        make(config, Target.parse("latest"))
