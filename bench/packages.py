"""The contestants: Debian's pgBackRest and rsync, PyPI's Barman, PostgreSQL 15 for all of them.

Nothing is installed into the system: packages are unpacked into the cache.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fixtures import cache
from fixtures.pinned_uv import pinned_uv
from fixtures.stacks.versions import DEBIAN_15

BARMAN = "3.19.1"
DEBIAN = ("pgbackrest", "rsync", "libpopt0", "libxxhash0", "libpq5")
SERVER = ("postgresql-15", "postgresql-client-15", "libpq5")
INSTALLED = DEBIAN_15  # pgBackRest 2.45 knows no server after 15


@dataclass(frozen=True)
class Programs:
    """Where they are; `environment` lets them find each other and their libraries."""

    postgres: Path
    tree: Path
    barman: Path

    @property
    def pgbackrest(self) -> str:
        return str(self.tree / "usr/bin/pgbackrest")

    @property
    def environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        path = [self.postgres, self.barman, self.tree / "usr/bin", "/usr/bin", "/bin"]
        libraries = self.tree / "usr/lib/x86_64-linux-gnu"
        return kept | {
            "PATH": ":".join(map(str, path)),
            "LD_LIBRARY_PATH": str(libraries),
            "LC_ALL": "C",
            "TZ": "UTC",
        }

    def versions(self) -> dict[str, str]:
        """What each says of itself."""
        words = {
            "PostgreSQL": [str(self.postgres / "postgres"), "--version"],
            "pgBackRest": [self.pgbackrest, "version"],
            "Barman": [str(self.barman / "barman"), "--version"],
        }
        told = {name: self._first_line(command) for name, command in words.items()}
        number, _, _ = told["Barman"].partition(" ")  # "3.19.1 Barman by …"
        return told | {"Barman": f"Barman {number}"}

    def _first_line(self, command: list[str]) -> str:
        told = subprocess.run(
            command, env=dict(self.environment), capture_output=True, text=True, check=True
        )
        return told.stdout.splitlines()[0]


def fetched() -> Programs:
    """Bring them into the cache once."""
    folder = cache.folder() / "bench"
    names = DEBIAN if INSTALLED.is_dir() else (*DEBIAN, *SERVER)
    tree = cache.ensure(
        folder / "-".join(["debian", str(len(names))]), lambda at: _unpack(at, names)
    )
    venv = cache.ensure(folder / f"barman-{BARMAN}", _install_barman)
    own = tree / "usr/lib/postgresql/15/bin"
    return Programs(INSTALLED if INSTALLED.is_dir() else own, tree, venv / "bin")


def _unpack(tree: Path, names: tuple[str, ...]) -> None:
    words = [_found("apt-get"), "download", *names]
    subprocess.run(words, cwd=tree, check=True, capture_output=True)
    for package in sorted(tree.glob("*.deb")):
        subprocess.run([_found("dpkg"), "-x", package, tree], check=True)
        package.unlink()
    tree.chmod(0o755)


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise cache.SetupError(f"{program} is not here: the contestants are Debian's packages")
    return path


def _install_barman(venv: Path) -> None:
    uv = pinned_uv()
    environment = os.environ | {"UV_CACHE_DIR": str(cache.folder() / "uv")}
    for words in (
        ("venv", "--allow-existing", "--python", "/usr/bin/python3", venv),
        ("pip", "install", "--python", venv / "bin/python", f"barman=={BARMAN}", "psycopg2-binary"),
    ):
        subprocess.run([uv, *words], env=environment, check=True, capture_output=True)
