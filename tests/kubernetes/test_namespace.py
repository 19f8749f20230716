"""The manifests on a real API server: accepted, as closed as they say, and sound by the checks."""

import json

import pytest
import yaml

from checks import rules
from checks.check import Outcome
from checks.kubernetes_objects import Namespace
from fixtures.kubernetes_material import NAMESPACE
from fixtures.manifests import DEPLOY, rendered
from fixtures.stacks.kubernetes.lab import Lab
from pipeline.errors import ServerError
from tests.kubernetes.conftest import Applied

pytestmark = pytest.mark.kubernetes
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
LOOK = """
import json, os
from pathlib import Path
def writes(folder):
    try:
        Path(folder, "probe").write_text("x")
        os.unlink(Path(folder, "probe"))
    except OSError:
        return False
    return True
folders = [str(path) for path in Path("/").iterdir() if path.is_dir()]
folders += ["/etc/pipeline", "/opt/pipeline", "/run/secrets/postgres", "/usr/local/bin", "/var/tmp"]
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
told = {name: status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
told["writes"] = sorted(folder for folder in folders if writes(folder))
told["ids"] = [os.getuid(), os.getgid()]
told["token"] = os.path.exists("/var/run/secrets/kubernetes.io")
told["secret"] = oct(os.stat("/run/secrets/postgres/password").st_mode & 0o777)
print(json.dumps(told))
"""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_accepts_every_overlay(applied: Applied, overlay: str) -> None:
    """Admission and Pod Security look at it as well; nothing is changed."""
    lab = applied.lab
    dry = ("apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors")
    lab.kubectl(*dry, "-k", str(DEPLOY / "overlays" / overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_are_read_here_as_kustomize_reads_them(lab: Lab, overlay: str) -> None:
    def by_name(objects: list[dict[str, dict[str, str]]]) -> dict[tuple[str, str], object]:
        return {(str(one["kind"]), one["metadata"]["name"]): one for one in objects}

    folder = DEPLOY / "overlays" / overlay
    printed = list(yaml.safe_load_all(lab.kubectl("kustomize", str(folder))))
    assert by_name(rendered(folder)) == by_name(printed)


@pytest.mark.parametrize("rule", [check.id for check in rules.CATALOGUE.on(Namespace)])
def test_every_check_holds_with_the_rights_of_the_inspector(applied: Applied, rule: str) -> None:
    seen = applied.examine(rule)
    assert (seen.outcome, seen.problems) == (Outcome.PASS, ()), seen


@pytest.mark.parametrize(
    ("account", "words", "allowed"),
    [
        ("backup", "get pods", "no"),
        ("backup", "get secrets", "no"),
        ("backup", "create jobs.batch", "no"),
        ("inspector", "list cronjobs.batch", "yes"),
        ("inspector", "get secrets/pipeline-postgres", "yes"),
        ("inspector", "get secrets/another", "no"),
        ("inspector", "list secrets", "no"),
        ("inspector", "create pods/exec", "no"),
        ("inspector", "delete jobs.batch", "no"),
        ("inspector", "list persistentvolumes", "yes"),
        ("inspector", "list pods --namespace kube-system", "no"),
    ],
)
def test_rights_both_ways(lab: Lab, account: str, words: str, allowed: str) -> None:
    asked = ("auth", "can-i", f"--as=system:serviceaccount:{NAMESPACE}:{account}")
    place = () if "--namespace" in words else ("-n", NAMESPACE)
    try:
        answer = lab.kubectl(*asked, *place, *words.split())
    except ServerError:  # `no` is exit code 1
        answer = "no"
    assert answer.strip() == allowed


def test_a_container_writes_nowhere_but_to_its_volumes(applied: Applied) -> None:
    def look(spec: dict[str, dict[str, dict[str, list[dict[str, object]]]]]) -> None:
        one = spec["template"]["spec"]["containers"][0]
        one["command"], one["args"] = ["/usr/bin/python3", "-I", "-c", LOOK], []

    applied.trigger("verify", "look", look)
    ended = applied.ended("look")
    told = applied.told("look")
    applied.remove("look")
    assert ended["type"] == "Complete", told
    assert json.loads(told) == {
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "writes": ["/backup", "/tmp"],  # noqa: S108 - in the pod
        "ids": [10001, 10001],
        "token": False,
        "secret": "0o440",
    }
