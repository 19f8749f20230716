"""Backups and recoveries of servers of many shapes, by the commands that an operator types."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shapes.shaped import Shaped, launched
from tests.shapes.shapes import SHAPES


@pytest.fixture(params=SHAPES, ids=str)
def shaped(request: pytest.FixtureRequest) -> Iterator[Shaped]:
    with launched(request.param) as server:
        server.pipeline("init")
        yield server


def lost(shaped: Shaped, statement: str) -> str:
    """Lose rows in one transaction, and find the target right before it."""
    shaped.run(statement)
    shaped.archive()
    found = shaped.pipeline("find", f"--table={shaped.shape.found}", "--at-least=1")
    (line,) = (line for line in found.splitlines() if " --to " in line)
    return line.rpartition(" ")[2]


def test_it_comes_back_to_the_moment_before(shaped: Shaped) -> None:
    shaped.pipeline("backup", "base", "--digests")
    before = shaped.everything()
    target = lost(shaped, f"delete from {shaped.shape.table}")
    shaped.pipeline(
        *("recover", "postgres", "--without-cdc", "--to", target),
        *("--identity", shaped.identity()),
    )
    assert shaped.everything() == before


@pytest.mark.slow
def test_a_table_and_a_database_come_back(shaped: Shaped) -> None:
    shaped.pipeline("backup", "base")
    shaped.pipeline("backup", "logical")
    before = shaped.dump()
    target = lost(shaped, f"delete from {shaped.shape.table}")
    shaped.pipeline(
        *("restore", "table", "--no-topics", f"--table={shaped.shape.table}", "--to", target),
    )
    assert sorted(shaped.dump().splitlines()) == sorted(before.splitlines())
    shaped.pipeline("restore", "database", "--create", "--into=Back Again")
    assert shaped.dump("Back Again") == before


@pytest.mark.slow
def test_every_check_is_content(shaped: Shaped, tmp_path: Path) -> None:
    with shaped.receiver():
        shaped.pipeline("backup", "base", "--digests")
        shaped.pipeline("backup", "base", "--digests")
        shaped.pipeline("backup", "logical")
        shaped.archive()
        found = shaped.alarms(tmp_path)
    assert set(found) == set(shaped.shape.alarms), found
