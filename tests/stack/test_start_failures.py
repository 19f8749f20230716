"""A server that dies while starting is told at once, with the last lines of its log."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.stacks.artifacts import Artifacts
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.errors import ServerError

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def pair(artifacts: Artifacts) -> Iterator[NativeStack]:
    """Two servers are enough: one started by pg_ctl, one in a JVM."""
    components = (Component.POSTGRES, Component.KAFKA)
    with NativeStack.launch(artifacts=artifacts, components=components) as started:
        yield started


@pytest.mark.parametrize("component", [Component.POSTGRES, Component.KAFKA], ids=str)
def test_port_in_use(pair: NativeStack, component: Component) -> None:
    pair.stop(component)
    servers = pair.config.kafka.bootstrap_servers
    port = pair.config.postgres.port if component == "postgres" else int(servers.split(":")[1])
    with socket.create_server(("127.0.0.1", port)):  # sets SO_REUSEADDR, as a server would
        began = time.monotonic()
        with pytest.raises(ServerError, match=r"(?s)died while starting.*Address already in use"):
            pair.start(component)
    assert time.monotonic() - began < 15  # far from any time limit, on a loaded machine too
    pair.start(component)


def test_damaged_data_folder(pair: NativeStack) -> None:
    data = pair.config.postgres.data
    assert data is not None
    pair.stop(Component.POSTGRES)
    (data / "global" / "pg_control").unlink()
    with pytest.raises(ServerError, match=r"(?s)died while starting.*global/pg_control"):
        pair.start(Component.POSTGRES)
    pair.wipe(Component.POSTGRES)
    pair.start(Component.POSTGRES)


def test_a_failed_launch_leaves_nothing(artifacts: Artifacts) -> None:
    with pytest.raises(ServerError, match='unrecognized configuration parameter "no_such"') as told:
        NativeStack.launch(
            artifacts=artifacts,
            settings=lambda _config: {"no_such": "setting"},
            components=[Component.POSTGRES],
        )
    folder = re.search(r"end of (.*)/logs/", str(told.value))
    assert folder is not None
    assert not Path(folder[1]).exists()
