"""`pipeline` and `pipeline-wal` of a clone: its own code, from anywhere, whoever calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import clone_environment

ROOT = Path(__file__).parents[1]
SHARED = Path(sys.prefix, "lib").resolve().parent


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A second clone with a word of its own, in a folder that shells and #! lines dislike."""
    clone = tmp_path / "a clone's"
    (clone / "pipeline" / "postgres" / "wal").mkdir(parents=True)
    (clone / "pipeline" / "__init__.py").touch()
    told = 'import sys\ndef main():\n    print("own", *sys.argv[1:])\n'
    (clone / "pipeline" / "__main__.py").write_text(told)
    wal = clone / "pipeline" / "postgres" / "wal" / "wal_command.py"
    wal.write_text('import sys\nprint("own wal", *sys.argv[1:])\n')
    own = tmp_path / "environment"
    own.mkdir()
    clone_environment.lend(SHARED, clone, own)
    (clone / ".venv").symlink_to(own)
    return clone


def said(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working folder where another `pipeline` lies about."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "pipeline.py").write_text("raise SystemExit('not this one')\n")
    return folder


def test_by_its_full_path(clone: Path, elsewhere: Path) -> None:
    programs = clone / ".venv" / "bin"
    assert said(programs / "pipeline", "list", "a b", cwd=elsewhere) == "own list a b"
    assert said(programs / "pipeline-wal", "push", "%p", cwd=elsewhere) == "own wal push %p"


def test_after_activate(clone: Path, elsewhere: Path) -> None:
    script = '. "$0/.venv/bin/activate" && pipeline list && command -v pytest'
    own, pytest_program = said("/bin/sh", "-c", script, str(clone), cwd=elsewhere).splitlines()
    assert own == "own list"
    assert Path(pytest_program).resolve() == SHARED / "bin" / "pytest"


def test_its_python_has_the_shared_packages(clone: Path, elsewhere: Path) -> None:
    python = clone / ".venv" / "bin" / "python"
    told = said(python, "-P", "-c", "import sys, psycopg; print(sys.prefix)", cwd=elsewhere)
    assert Path(told) == clone / ".venv"


def test_one_environment_that_was_begun_is_finished(clone: Path) -> None:
    own = (clone / ".venv").resolve()
    (own / "bin" / "pipeline").unlink()
    clone_environment.lend(SHARED, clone, own)
    assert said(own / "bin" / "pipeline", cwd=clone) == "own"


def test_a_servers_owner_that_may_not_run_this_python_takes_the_systems(
    clone: Path, tmp_path: Path
) -> None:
    """Exit code 200 where there is none: of 125 and less PostgreSQL makes the archive's end."""
    script = (clone / ".venv" / "bin" / "pipeline-wal").read_text()
    lost = script.replace(str(SHARED / "bin" / "python"), "/nowhere/python")
    assert said("/bin/sh", "-c", lost, "sh", "get", cwd=tmp_path) == "own wal get"
    none = lost.replace("/usr/bin/python3", "/nowhere/python3")
    done = subprocess.run(["/bin/sh", "-c", none], capture_output=True, text=True, check=False)
    assert done.returncode == 200
    assert done.stderr.startswith("pipeline-wal: no Python that ")
