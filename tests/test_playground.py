"""The playground starts, says where things are, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from fixtures.playground import ENDS
from fixtures.stacks import training
from fixtures.stacks.reaper import processes_inside
from pipeline import config

pytestmark = pytest.mark.stack


@pytest.fixture
def playground() -> Iterator[subprocess.Popen[str]]:
    training.prepared()  # installed before the clock runs
    with subprocess.Popen(
        [sys.executable, "-m", "fixtures.playground"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def test_it_tells_where_things_are_and_leaves_nothing(
    playground: subprocess.Popen[str],
) -> None:
    told = until(lambda line: ENDS in line, playground)
    written = re.search(r"\S+/pipeline\.toml", told)
    assert written is not None
    loaded = config.load(Path(written[0]))
    assert f"{loaded.postgres.host}:{loaded.postgres.port}" in told
    for endpoint in (loaded.kafka.bootstrap_servers, loaded.connect.url, loaded.registry.url):
        assert endpoint in told
    with psycopg.connect(**loaded.postgres.conninfo()) as connection:
        connection.execute("SELECT FROM orders")
    run = Path(written[0]).parent
    assert len(processes_inside(run)) > 4

    os.killpg(playground.pid, signal.SIGINT)  # as a terminal does
    assert playground.wait(60) == 0
    assert processes_inside(run) == []
    assert not run.exists()


def until(last: Callable[[str], bool], process: subprocess.Popen[str]) -> str:
    """Read what it prints, up to that line."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if last(line):
            return "".join(lines)
    pytest.fail(f"it ended early: {''.join(lines)}")
