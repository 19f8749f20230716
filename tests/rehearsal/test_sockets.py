"""The watch sees what leads off this machine, and says so when it saw nothing at all."""

import os
import socket
from contextlib import closing
from datetime import timedelta

import pytest

from fixtures.rehearsal.sockets import Socket, SocketWatch, held
from pipeline.wait import wait_until

SOON = timedelta(seconds=10)


def outside(processes: list[int]) -> list[str]:
    return [str(each) for each in held(processes) if each.outside]


def test_who_listens_to_everybody_leads_outside() -> None:
    with closing(socket.create_server(("0.0.0.0", 0))) as server:  # noqa: S104 - what is looked for
        port = server.getsockname()[1]
        assert f"tcp 0.0.0.0:{port}" in outside([os.getpid()])
    assert f"tcp 0.0.0.0:{port}" not in outside([os.getpid()])


def test_a_pair_on_loopback_leads_nowhere() -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(socket.create_connection(server.getsockname())) as client,
    ):
        peer = f"tcp 127.0.0.1:{client.getsockname()[1]} to 127.0.0.1:{server.getsockname()[1]}"
        assert peer in [str(each) for each in held([os.getpid()])]
        assert peer not in outside([os.getpid()])


@pytest.mark.parametrize(
    ("local", "remote", "leads"),
    [
        (("10.0.0.2", 40000), ("10.0.0.3", 5432), True),
        (("::ffff:127.0.0.1", 40000), ("::ffff:127.0.0.1", 9092), False),
        (("::ffff:10.0.0.2", 40000), ("::ffff:10.0.0.3", 9092), True),
        (("::1", 8083), ("::", 0), False),
        (("::", 8083), ("::", 0), True),
        (("0.0.0.0", 0), ("0.0.0.0", 0), False),  # noqa: S104 - made, and not connected yet
    ],
)
def test_what_leads_outside(local: tuple[str, int], remote: tuple[str, int], leads: bool) -> None:  # noqa: FBT001 - a case
    assert Socket("tcp", local, remote).outside is leads


def test_a_watch_sees_what_is_held_while_it_looks() -> None:
    with SocketWatch(lambda: [os.getpid()]) as watch:
        with closing(socket.create_server(("0.0.0.0", 0))) as server:  # noqa: S104 - the finding
            told = f"tcp 0.0.0.0:{server.getsockname()[1]}"
            wait_until(
                "the next look", lambda: None if told in watch.seen else "not seen", within=SOON
            )
        assert watch.looks
        assert watch.sockets


def test_a_watch_of_nobody_is_blind() -> None:
    """Without even its own socket among what it sees, it proves nothing."""
    with SocketWatch(list) as watch:
        wait_until("a look", lambda: None if watch.looks else "none yet", within=SOON)
    assert watch.sockets == 0
