"""What policies close is closed: shown by a connection that is refused, or not shown at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from checks.check import Outcome
from fixtures.stacks.kubernetes import settings
from fixtures.stacks.kubernetes.forward import Forward
from fixtures.stacks.kubernetes.lab import Lab
from tests.kubernetes.conftest import Applied

pytestmark = pytest.mark.kubernetes
TRY = """
import json, socket, sys
told = {}
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        told[place] = "connected"
    except OSError as error:
        told[place] = str(error) or "timed out"
print(json.dumps(told))
"""
POSTGRES = "postgres.data.svc:5432"


def judged(told: Mapping[str, str], wanted: str, closed: str) -> tuple[Outcome, str]:
    """Whether the network enforces its policies; a network that lets nobody out shows nothing."""
    if told[wanted] != "connected":
        return Outcome.FAIL, f"{wanted}, which policies open, is not reached: {told[wanted]}"
    if told[closed] == "connected":
        return Outcome.UNKNOWN, f"{closed} is reached: policies are accepted and not enforced"
    return Outcome.PASS, f"{closed}: {told[closed]}"


@pytest.fixture
def elsewhere(applied: Applied) -> Iterator[str]:
    """A server beside the pipeline's, of the same machine, whose port no policy opens."""
    postgres = applied.config.postgres
    with Forward((settings.HOST, 0), (postgres.host, postgres.port)) as forward:
        yield f"{settings.HOST}:{forward.address[1]}"


def look(applied: Applied, name: str, *places: str) -> dict[str, str]:
    """Try connections from a pod as jobs are."""

    def change(spec: dict[str, Any]) -> None:
        one = spec["template"]["spec"]["containers"][0]
        one["command"], one["args"] = ["/usr/bin/python3", "-I", "-c", TRY], list(places)

    applied.trigger("verify", name, change)
    ended = applied.ended(name)
    told = applied.told(name)
    applied.remove(name)
    assert ended["type"] == "Complete", told
    found: dict[str, str] = json.loads(told)
    return found


def test_a_network_that_ignores_policies_is_unknown(applied: Applied, elsewhere: str) -> None:
    """That of this cluster: bridge, host-local and portmap know nothing of them."""
    outcome, said = judged(look(applied, "ignored", POSTGRES, elsewhere), POSTGRES, elsewhere)
    assert (outcome, elsewhere in said) == (Outcome.UNKNOWN, True), said


def test_a_refused_connection_proves_that_policies_hold(applied: Applied, elsewhere: str) -> None:
    """A rule of the node's firewall stands in for a network that enforces them."""
    with enforced(applied.lab, elsewhere):
        told = look(applied, "enforced", POSTGRES, elsewhere)
    assert judged(told, POSTGRES, elsewhere)[0] is Outcome.PASS, told


def test_a_network_that_lets_nobody_out_proves_nothing(applied: Applied, elsewhere: str) -> None:
    nobody = f"{settings.HOST}:1"
    told = look(applied, "nobody", nobody, elsewhere)
    assert judged(told, nobody, elsewhere)[0] is Outcome.FAIL, told


@contextmanager
def enforced(lab: Lab, place: str) -> Iterator[None]:
    host, _, port = place.rpartition(":")
    rule = ("-s", settings.PODS, "-d", host, "-p", "tcp", "--dport", port, "-j", "REJECT")
    lab.inside("iptables", "-I", "FORWARD", *rule)
    try:
        yield
    finally:
        lab.inside("iptables", "-D", "FORWARD", *rule)
