"""Somebody between us and a server: he takes our connection, and makes one of his own."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def proxy(port: int) -> Iterator[int]:
    """Pass one connection on to a port of this machine; the block is given the port it comes by."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        passing = threading.Thread(target=_pass_on, args=(listening, port))
        passing.start()
        yield listening.getsockname()[1]
        passing.join()


def _pass_on(listening: socket.socket, port: int) -> None:
    """Until either end closes."""
    client, _ = listening.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        other = {client: server, server: client}
        while True:
            for end in select.select(list(other), [], [])[0]:
                if not (data := end.recv(65536)):
                    return
                other[end].sendall(data)
