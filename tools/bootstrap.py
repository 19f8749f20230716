"""`python3 -m tools.bootstrap`: bring the project's Python packages into the cache, once.

Needs Python 3.11 and its standard library: not pip, not ensurepip, not venv. The clone gets a link
`.venv`, so that `. .venv/bin/activate` works as everywhere, with the commands `pipeline` and
`pipeline-wal` of this clone.
`python3 -m tools.bootstrap uv …` runs the pinned uv, for example `uv lock --check`.
"""

import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - the one module that an older Python may meet
    sys.exit(
        f"setup: Python 3.11 or newer is needed, {sys.executable} is {platform.python_version()}. "
        "Name another one: make PYTHON=/path/to/python3.11"
    )

from fixtures import cache
from fixtures.cache import Progress, SetupError
from fixtures.pinned_uv import CLONE, pinned_uv, run
from tools import clone_environment

PYTHON = Path(sys.executable).resolve()  # also when we run inside an environment
INSTALL = ("--require-hashes", "--compile-bytecode")  # else every command may compile it all anew


def main() -> None:
    """Make `.venv` lead to the packages that uv.lock names, or run uv."""
    try:
        if sys.argv[1:2] == ["uv"]:
            sys.exit(_uv_on_the_lock(sys.argv[2:]))
        own = CLONE / ".venv"
        if own.is_dir() and not own.is_symlink():
            _say(f"{own} is your own: left as it is (remove it to get the locked packages)")
            return
        with cache.audible(_say) as say:
            shared = cache.ensure(cache.folder() / "venvs" / _key(), partial(_fill, say), say)
            mine = cache.folder() / "clones" / _clone_key(shared)
            cache.ensure(mine, partial(clone_environment.lend, shared, CLONE), say)
        if not own.is_symlink() or own.readlink() != mine:
            fresh = CLONE / f".venv.{os.getpid()}"
            fresh.symlink_to(mine)
            fresh.replace(own)  # at once: another run may be using the old one
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; the next run goes on from here")


def _uv_on_the_lock(arguments: list[str]) -> int:
    """Run uv for a person; uv.lock must name the public index, whichever one they use."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}
    }
    command = [str(pinned_uv(_say)), *arguments, "--python", str(PYTHON)]
    return subprocess.run(command, cwd=CLONE, env=environment, check=False).returncode


def _key() -> str:
    """The packages, the Python that they are for, and how they are installed."""
    digest = hashlib.sha256((CLONE / "uv.lock").read_bytes())
    digest.update(f"{PYTHON} {sys.version} {sysconfig.get_platform()} {INSTALL}".encode())
    return digest.hexdigest()[:16]


def _clone_key(shared: Path) -> str:
    """The clone by its path: moved elsewhere it gets programs that name the new one."""
    made_of = f"{shared}\n{CLONE}\n{clone_environment.FORM}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _fill(say: Progress, venv: Path) -> None:
    """Create the environment, and put the locked packages into it."""
    uv = pinned_uv(say)
    wanted = venv / "requirements.txt"
    say(f"installing the locked packages into {venv}")
    run(uv, "venv", "--allow-existing", "--python", PYTHON, venv)
    # not `uv sync`: it would take the addresses from the lock, and pass by a chosen index
    run(uv, "export", "--quiet", "--frozen", "--no-emit-project", "--output-file", wanted)
    run(uv, "pip", "sync", *INSTALL, "--python", venv / "bin" / "python", wanted)


def _say(line: str) -> None:
    sys.stderr.write(f"setup: {line}\n")


if __name__ == "__main__":
    main()
