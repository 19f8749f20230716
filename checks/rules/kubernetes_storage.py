"""Whether the claim holds what the plan keeps, and outlives what it is a backup of."""

import re
from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kubernetes_objects import Namespace, name_of
from fixtures.faults.manifests import edited
from fixtures.scratch import Damage, Scratch
from pipeline.config import DAY, PlanConfig
from pipeline.repository.kinds import KINDS

SIZES = "recovery-drills/sizes"
"""The annotation of a claim that says how large one backup of each kind is."""
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
ONE_NODE = {"ReadWriteOnce", "ReadWriteOncePod"}


@check(
    "kubernetes.storage-fits",
    on=Namespace,
    advice="Ask for what the plan needs (`kubectl patch pvc`, where the class can expand), or keep "
    "less ([plan] in pipeline.toml). A volume that is deleted with its claim is kept by "
    "`persistentVolumeReclaimPolicy: Retain`.",
)
def storage_fits(namespace: Namespace) -> Iterator[Observation]:
    """The claim is bound, holds all that the plan keeps, and its volume outlives it."""
    for name in sorted(_claims(namespace)):
        subject = f"PersistentVolumeClaim {name}"
        claim = namespace.find("PersistentVolumeClaim", name)
        if claim is None:
            yield Observation(subject, "it is not there")
        else:
            yield Observation(subject, "; ".join(_of(namespace, claim)) or None)
    for where, pod in namespace.templates():
        yield Observation(where, _elsewhere(namespace, where, pod))


def _claims(namespace: Namespace) -> set[str]:
    return {
        each["persistentVolumeClaim"]["claimName"]
        for _, pod in namespace.templates()
        for each in pod.get("volumes", [])
        if "persistentVolumeClaim" in each
    }


def _of(namespace: Namespace, claim: dict[str, Any]) -> Iterator[str]:
    status, annotations = claim.get("status", {}), claim["metadata"].get("annotations", {})
    if status.get("phase") != "Bound":
        told = namespace.told_of("PersistentVolumeClaim", name_of(claim)) or "no event says why"
        yield f"it is {status.get('phase', 'not there yet')}, and not bound: {told}"
        return
    if SIZES not in annotations:
        yield f"no annotation {SIZES} says how large one backup of each kind is"
    else:
        sizes = dict(each.split("=") for each in annotations[SIZES].split())
        needed = planned(namespace.config.plan, {kind: quantity(n) for kind, n in sizes.items()})
        if (has := quantity(status["capacity"]["storage"])) < needed:
            yield f"it holds {has / 1e9:.1f} GB, the plan keeps {needed / 1e9:.1f} GB"
    for volume in namespace.all("PersistentVolume", None):
        if name_of(volume) == claim["spec"].get("volumeName"):
            policy = volume["spec"].get("persistentVolumeReclaimPolicy")
            if policy != "Retain":
                yield f"its volume is of policy {policy}: it goes with the claim, or the namespace"
    if owners := claim["metadata"].get("ownerReferences"):
        yield f"it goes with {owners[0]['kind']} {owners[0]['name']}, which owns it"


def planned(plan: PlanConfig, sizes: dict[str, int]) -> int:
    """Give the bytes that lie there at one time: of each kind all that is kept, and one more."""
    needed = sizes.get("wal", 0)
    for kind, size in sizes.items():
        if kind in KINDS:
            needed += size * (_kept(plan, kind) // KINDS[kind].every + 1)
    return needed


def _kept(plan: PlanConfig, kind: str) -> timedelta:
    return max(KINDS[kind].kept(plan), DAY)


def quantity(text: str) -> int:
    """Read 110Gi. Raises ValueError for what is no quantity."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(\w{0,2})", text)
    if found is None or found[2] not in UNITS:
        raise ValueError(f"{text!r} is no quantity of storage")
    return int(float(found[1]) * UNITS[found[2]])


def _elsewhere(namespace: Namespace, where: str, pod: dict[str, Any]) -> str | None:
    """Why a pod would wait for ever for a volume that another node has."""
    names = [
        each["persistentVolumeClaim"]["claimName"]
        for each in pod.get("volumes", [])
        if "persistentVolumeClaim" in each
    ]
    if not names:
        return "it has no claim: what it writes goes with its pod"
    modes = {
        mode
        for name in names
        if (claim := namespace.find("PersistentVolumeClaim", name))
        for mode in claim["spec"]["accessModes"]
    }
    beside = pod.get("affinity", {}).get("podAffinity", {})
    required = beside.get("requiredDuringSchedulingIgnoredDuringExecution")
    if modes and modes <= ONE_NODE and where.startswith("CronJob") and not required:
        return f"{', '.join(modes)}, and no podAffinity brings it to the node of the receiver"
    return None


Cluster = Scratch[Namespace]
CLAIM = "PersistentVolumeClaim repository"


@storage_fits.detects
def as_small_as_written(scratch: Cluster, _rng: Random) -> Damage:
    """50 Gi, as the written procedures have it, for a plan of more than 100 GB."""
    with edited(scratch) as objects:
        claim = objects.one("PersistentVolumeClaim", "repository")
        claim["status"]["capacity"]["storage"] = "50Gi"
    return Damage(CLAIM, "it is too small", says="the plan keeps")


@storage_fits.detects
def volume_goes_with_its_claim(scratch: Cluster, _rng: Random) -> Damage:
    """The default of most storage classes: `kubectl delete -k` takes the backups along."""
    with edited(scratch) as objects:
        objects.one("PersistentVolume", "pv-1")["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    return Damage(CLAIM, "its volume is deleted with it", says="policy Delete")


@storage_fits.detects
def job_on_another_node(scratch: Cluster, _rng: Random) -> Damage:
    """ReadWriteOnce on a cluster of several nodes: Multi-Attach, for ever."""
    with edited(scratch) as objects:
        del objects.pod("backup-base")["affinity"]
    return Damage("CronJob backup-base", "it may run on any node", says="no podAffinity")


@storage_fits.detects
def no_volume_for_the_claim(scratch: Cluster, _rng: Random) -> Damage:
    """A storage class that nobody provisions."""
    with edited(scratch) as objects:
        objects.one("PersistentVolumeClaim", "repository")["status"] = {"phase": "Pending"}
        objects.warn("PersistentVolumeClaim", "repository", "ProvisioningFailed", "no such class")
    return Damage(CLAIM, "no volume was found for it", says="ProvisioningFailed")


@storage_fits.detects
def emptydir_in_place_of_the_claim(scratch: Cluster, _rng: Random) -> Damage:
    """An overlay for trying it out: every set is gone with its pod."""
    with edited(scratch) as objects:
        for volume in objects.pod("backup-base")["volumes"]:
            if volume.pop("persistentVolumeClaim", None):
                volume["emptyDir"] = {}
    return Damage("CronJob backup-base", "it has no claim", says="goes with its pod")
