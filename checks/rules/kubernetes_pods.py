"""What pods are made of: their security context, and the program that they run."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from checks import program
from checks.check import Observation, check
from checks.kubernetes_objects import Namespace, containers
from fixtures.faults.manifests import edited
from fixtures.scratch import Damage, Scratch
from pipeline.cli.version import version

PROGRAM = "recovery-drills"


@check(
    "kubernetes.security-context",
    on=Namespace,
    advice="Apply deploy/overlays/ again; `pod-security.kubernetes.io/enforce: restricted` on the "
    "namespace has the API server refuse most of these.",
)
def security_context(namespace: Namespace) -> Iterator[Observation]:
    """Containers run as somebody, without rights of their own, and can write to volumes alone."""
    for where, pod in namespace.templates():
        told = [*_of_pod(pod)]
        for one in containers(pod):
            told += [f"{one['name']}: {each}" for each in _of_container(one)]
        yield Observation(where, "; ".join(told) or None)


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    own = pod.get("securityContext", {})
    if own.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not set"
    if own.get("runAsUser", 0) == 0:
        yield "runAsUser is 0, or that of the image"
    if own.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "no seccompProfile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "it carries a token of its account, and needs none"
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "it shares the node's network or processes"
    yield from (
        f"volume {each['name']} is a folder of the node, which ignores fsGroup"
        for each in pod.get("volumes", [])
        if "hostPath" in each
    )


def _of_container(one: dict[str, Any]) -> Iterator[str]:
    own = one.get("securityContext", {})
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written to"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield "it keeps capabilities"
    if own.get("capabilities", {}).get("add"):
        yield f"it gets capabilities {own['capabilities']['add']}"
    if own.get("runAsUser", 1) == 0 or own.get("runAsNonRoot") is False:
        yield "it runs as root"
    if not {"cpu", "memory"} <= set(one.get("resources", {}).get("limits", {})):
        yield "no limits of cpu and memory"


@check(
    "kubernetes.scripts-are-there",
    on=Namespace,
    advice="Set `images` in the overlay to the version that is meant, and apply it; what its image "
    "has is told by `pipeline --version` and `pipeline --help` in it.",
)
def scripts_are_there(namespace: Namespace) -> Iterator[Observation]:
    """Each container runs a command that `pipeline` has, in an image of this version."""
    number, commands = version().partition(" ")[0], set(program.commands())
    for where, pod in namespace.templates():
        told = [
            f"{one['name']}: {each}"
            for one in containers(pod)
            for each in _of_program(one, number, commands)
        ]
        yield Observation(where, "; ".join(told) or None)


def _of_program(one: dict[str, Any], number: str, known: set[tuple[str, ...]]) -> Iterator[str]:
    name, _, digest = one["image"].partition("@")
    name, _, tag = name.rpartition(":")
    if not name:
        name, tag = tag, ""
    if name.rpartition("/")[2] != PROGRAM:
        yield f"its image is {one['image']}, not {PROGRAM}"
    elif not digest and tag != number:
        yield f"its image is of version {tag or 'latest'}, expected {number}"
    if one.get("command"):
        yield f"it runs {one['command']} in place of the image's own program"
    words = tuple(each for each in one.get("args", ()) if not each.startswith("-"))
    if words not in known:
        yield f"there is no command `pipeline {' '.join(words)}`"


Cluster = Scratch[Namespace]


def _change(scratch: Cluster, change: Callable[[dict[str, Any]], object]) -> None:
    with edited(scratch) as objects:
        change(objects.pod("backup-base"))


def _own(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["containers"][0]["securityContext"]
    return found


WHERE = "CronJob backup-base"


@security_context.detects
def root_allowed(scratch: Cluster, _rng: Random) -> Damage:
    """An image without a user of its own would run as root."""
    _change(scratch, lambda pod: pod["securityContext"].pop("runAsNonRoot"))
    return Damage(WHERE, "it may run as root", says="runAsNonRoot")


@security_context.detects
def privileges_may_grow(scratch: Cluster, _rng: Random) -> Damage:
    """A program with the set-user-ID bit in the image would do."""
    _change(scratch, lambda pod: _own(pod).pop("allowPrivilegeEscalation"))
    return Damage(WHERE, "it may gain privileges", says="allowPrivilegeEscalation")


@security_context.detects
def root_file_system_open(scratch: Cluster, _rng: Random) -> Damage:
    """A program that could not write its cache, and was helped."""
    _change(scratch, lambda pod: _own(pod).update(readOnlyRootFilesystem=False))
    return Damage(WHERE, "its root can be written to", says="its root can be written to")


@security_context.detects
def capabilities_kept(scratch: Cluster, rng: Random) -> Damage:
    """All but one are dropped by name, and new ones come with new kernels."""
    kept = {"drop": [rng.choice(["KILL", "CHOWN"])]}
    _change(scratch, lambda pod: _own(pod).update(capabilities=kept))
    return Damage(WHERE, "it keeps capabilities", says="keeps capabilities")


@security_context.detects
def seccomp_dropped(scratch: Cluster, _rng: Random) -> Damage:
    """A pod's own context that replaced the whole one of the base."""
    _change(scratch, lambda pod: pod["securityContext"].pop("seccompProfile"))
    return Damage(WHERE, "every system call is allowed", says="no seccompProfile")


@security_context.detects
def token_mounted(scratch: Cluster, _rng: Random) -> Damage:
    """Whoever gets into a backup pod gets the account with it."""
    _change(scratch, lambda pod: pod.pop("automountServiceAccountToken"))
    return Damage(WHERE, "it carries a token", says="token")


@security_context.detects
def folder_of_the_node(scratch: Cluster, _rng: Random) -> Damage:
    """A hostPath in place of the claim, that a user other than root cannot write to."""

    def change(pod: dict[str, Any]) -> None:
        (volume,) = (each for each in pod["volumes"] if each["name"] == "repository")
        del volume["persistentVolumeClaim"]
        volume["hostPath"] = {"path": "/srv/backup"}

    _change(scratch, change)
    return Damage(WHERE, "its repository is a folder of the node", says="folder of the node")


@security_context.detects
def limits_dropped(scratch: Cluster, _rng: Random) -> Damage:
    """One backup may take the node down, and the database on it."""
    _change(scratch, lambda pod: pod["containers"][0]["resources"].pop("limits"))
    return Damage(WHERE, "it has no limits", says="no limits")


@scripts_are_there.detects
def older_image(scratch: Cluster, _rng: Random) -> Damage:
    """The manifests were upgraded, and the image was not."""
    with edited(scratch) as objects:
        objects.container("backup-base")["image"] = "localhost/recovery-drills:0.0.9"
    return Damage(WHERE, "its image is older", says="of version 0.0.9")


@scripts_are_there.detects
def latest_image(scratch: Cluster, _rng: Random) -> Damage:
    """Whatever was pushed last, at whatever hour."""
    with edited(scratch) as objects:
        objects.container("backup-base")["image"] = "localhost/recovery-drills"
    return Damage(WHERE, "its image is any", says="of version latest")


@scripts_are_there.detects
def entrypoint_overridden(scratch: Cluster, _rng: Random) -> Damage:
    """Left over from looking into a pod that failed."""
    with edited(scratch) as objects:
        objects.container("backup-base")["command"] = ["sleep", "infinity"]
    return Damage(WHERE, "it sleeps", says="in place of the image's own program")


@scripts_are_there.detects
def command_misspelt(scratch: Cluster, _rng: Random) -> Damage:
    """The name of the old script."""
    with edited(scratch) as objects:
        objects.container("backup-base")["args"] = ["backup", "postgresql-base"]
    return Damage(WHERE, "its command is none", says="there is no command")


@scripts_are_there.detects
def image_of_another_program(scratch: Cluster, _rng: Random) -> Damage:
    """A patch by number that met another container."""
    with edited(scratch) as objects:
        objects.container("backup-base")["image"] = "docker.io/library/postgres:18"
    return Damage(WHERE, "it is another image", says="not recovery-drills")
