"""Which version of this package runs, and of which commit where it runs from a clone."""

import subprocess
import tomllib
from importlib.metadata import version as installed
from pathlib import Path

CLONE = Path(__file__).parents[2]


def version() -> str:
    """The number that pyproject.toml gives, which an installation keeps in its metadata."""
    project = CLONE / "pyproject.toml"
    if not project.exists():
        return installed("recovery-drills")
    number = str(tomllib.loads(project.read_text())["project"]["version"])
    return f"{number} ({commit})" if (commit := _commit()) else number


def _commit() -> str | None:
    """The commit, marked where files differ from it; None without git, or without its folder."""
    if not (CLONE / ".git").exists():
        return None
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 - the user's own
            cwd=CLONE,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return told.stdout.strip() or None
