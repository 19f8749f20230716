"""What every stack must do; written against the protocol, run on each implementation."""

import socket
from urllib.parse import urlsplit

import pytest

from fixtures.stacks import nonce, reset
from fixtures.stacks.protocol import Component, Stack
from pipeline.errors import ServerError

pytestmark = pytest.mark.stack
every = pytest.mark.parametrize("component", list(Component), ids=str)
KEPT_IN_KAFKA = (Component.REGISTRY, Component.CONNECT)


def reacts(stack: Stack, component: Component) -> bool:
    """Whether a server does anything about nonsense: an answer or a hang-up, but not silence."""
    with socket.create_connection(_address(stack, component), timeout=1) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            client.recv(1)
        except TimeoutError:
            return False
        except ConnectionResetError:
            pass
        return True


@every
def test_a_started_server_tells_the_nonce(stack: Stack, component: Component) -> None:
    assert stack.running(component)
    nonce.confirm(stack, component)


@every
def test_everything_lies_in_the_folder(stack: Stack, component: Component) -> None:
    assert stack.log(component).stat().st_size > 0
    assert stack.log(component).is_relative_to(stack.folder)
    assert stack.config.repository.path.is_relative_to(stack.folder)


@every
def test_a_frozen_server_is_silent_until_thawed(stack: Stack, component: Component) -> None:
    stack.freeze(component)
    assert stack.running(component)
    assert not reacts(stack, component)
    stack.thaw(component)
    nonce.confirm(stack, component)
    assert reacts(stack, component)


@every
def test_starting_what_runs_is_an_error(stack: Stack, component: Component) -> None:
    with pytest.raises(ServerError, match="already runs"):
        stack.start(component)


@every
def test_wiping_what_runs_is_an_error(stack: Stack, component: Component) -> None:
    with pytest.raises(ServerError, match="stop it before the wipe"):
        stack.wipe(component)
    nonce.confirm(stack, component)


@every
def test_a_killed_server_refuses_clients_and_starts_again(
    stack: Stack, component: Component
) -> None:
    stack.kill(component)
    assert not stack.running(component)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(_address(stack, component), timeout=1)
    stack.start(component)
    nonce.confirm(stack, component)


@every
def test_a_wiped_server_begins_empty(stack: Stack, component: Component) -> None:
    dependent = KEPT_IN_KAFKA if component is Component.KAFKA else ()
    for stopped in (*dependent, component):
        stack.stop(stopped)
        stack.stop(stopped)  # stopping what is down does nothing
        assert not stack.running(stopped)
    stack.wipe(component)
    for started in (component, *dependent):
        stack.start(started)
        assert list(reset.inhabitants(stack.config, started)) == []
        nonce.confirm(stack, started)


def _address(stack: Stack, component: Component) -> tuple[str, int]:
    config = stack.config
    at = {
        Component.POSTGRES: f"//{config.postgres.host}:{config.postgres.port}",
        Component.KAFKA: f"//{config.kafka.bootstrap_servers}",
        Component.CONNECT: config.connect.url,
        Component.REGISTRY: config.registry.url,
    }
    found = urlsplit(at[component])
    assert found.hostname is not None
    assert found.port is not None
    return found.hostname, found.port
