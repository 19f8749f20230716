"""What an older PostgreSQL has not, said where a test needs it."""

import functools
import re
import subprocess

import pytest

from fixtures.stacks.artifacts import installed


def since(major: int, what: str) -> None:
    """Skip, with the reason in the report, what came with a newer server than the one at hand."""
    if _installed() < major:
        pytest.skip(f"{what} came with PostgreSQL {major}")


@functools.cache
def _installed() -> int:
    command = [str(installed().postgres / "bin" / "postgres"), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+", told)
    assert found is not None
    return int(found[0])
