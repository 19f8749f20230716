"""What checks examine of Kubernetes: the objects of one namespace, read and never written."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeAlias

from checks.check import CouldNotLook, NotRun
from checks.kubernetes_api import Api
from pipeline.config import KubernetesConfig, PipelineConfig

Object: TypeAlias = dict[str, Any]
TAKEN = "recovery-drills/taken"
"""The annotation of a List in a file that says when it was printed."""
ELSEWHERE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "EndpointSlice",
    "PersistentVolume",
    "Service",
}
"""Kinds outside of the namespace: where a file has none, they were not asked for."""
HOW = (
    "name one in [kubernetes] of pipeline.toml (context, namespace), or a file of its objects; "
    "`make lab` starts a cluster of one node on this machine"
)


class Source(Protocol):
    """Where objects are read from."""

    def objects(self, kind: str, namespace: str | None) -> list[Object]:
        """Give all of a kind in a namespace; of what has none, None."""

    def one(self, kind: str, namespace: str, name: str) -> Object | None:
        """Give one of them by its name: who may not list Secrets may read those that are named."""

    @property
    def now(self) -> datetime:
        """The moment that the objects are of."""


class Printed:
    """Objects as `kubectl get … -o json` printed them: one List."""

    def __init__(self, file: Path) -> None:
        told = json.loads(file.read_text())
        self._items: list[Object] = told["items"]
        taken = told.get("metadata", {}).get("annotations", {}).get(TAKEN)
        self.now = moment(taken) if taken else datetime.fromtimestamp(file.stat().st_mtime, UTC)

    def objects(self, kind: str, namespace: str | None) -> list[Object]:
        of_kind = [one for one in self._items if one["kind"] == kind]
        if not of_kind and kind in ELSEWHERE:
            raise CouldNotLook(f"the file holds no {kind}", "docs/kubernetes.md has the command")
        return [one for one in of_kind if one["metadata"].get("namespace") == namespace]

    def one(self, kind: str, namespace: str, name: str) -> Object | None:
        found = self.objects(kind, namespace)
        return next((one for one in found if name_of(one) == name), None)


@dataclass(frozen=True)
class Namespace:
    """The objects of a namespace in which backups are scheduled, from its cluster or a file."""

    live: ClassVar[bool] = False
    of_kubernetes: ClassVar[bool] = True
    config: PipelineConfig
    name: str
    source: Source

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        if (told := config.kubernetes) is None:
            raise NotRun(f"no cluster is configured: {HOW}")
        return cls(config, told.namespace, _source(told))

    def all(self, kind: str, namespace: str | None = "") -> list[Object]:
        """Give all objects of a kind; of this namespace, unless another is said, or None."""
        return self.source.objects(kind, self.name if namespace == "" else namespace)

    def find(self, kind: str, name: str) -> Object | None:
        return self.source.one(kind, self.name, name)

    @cached_property
    def cronjobs(self) -> list[Object]:
        return self.all("CronJob")

    def templates(self) -> Iterator[tuple[str, Object]]:
        """Give the pod of each workload as written: its name, and the pod's spec."""
        for one in self.cronjobs:
            template = one["spec"]["jobTemplate"]["spec"]["template"]
            yield f"CronJob {name_of(one)}", template["spec"]
        for one in self.all("StatefulSet"):
            yield f"StatefulSet {name_of(one)}", one["spec"]["template"]["spec"]

    def ran_by(self, job: Object) -> list[Object]:
        """Give the pods of a job."""
        return [pod for pod in self.all("Pod") if owned_by(pod, job)]

    def told_of(self, kind: str, name: str) -> str | None:
        """Give the newest warning of an object: its reason, and what was said."""
        about = [
            event
            for event in self.all("Event")
            if event["involvedObject"].get("name") == name
            and event["involvedObject"].get("kind") == kind
            and event.get("type") == "Warning"
        ]
        if not about:
            return None
        last = max(about, key=lambda event: event.get("lastTimestamp") or "")
        return f"{last['reason']}: {last['message']}"

    def age(self, stamp: str) -> float:
        """Seconds since a moment that an object tells."""
        return (self.source.now - moment(stamp)).total_seconds()


def _source(told: KubernetesConfig) -> Source:
    if told.objects is None:
        return Api(told)
    try:
        return Printed(told.objects)
    except (OSError, ValueError, KeyError) as error:
        advice = "print them anew: kubectl get … -o json; docs/kubernetes.md has the whole line"
        raise CouldNotLook(f"no list of objects in {told.objects}: {error}", advice) from error


def name_of(one: Mapping[str, Any]) -> str:
    return str(one["metadata"]["name"])


def moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def owned_by(one: Object, owner: Object) -> bool:
    """Tell whether a controller made it."""
    owners = one["metadata"].get("ownerReferences", [])
    return any(each["uid"] == owner["metadata"].get("uid") for each in owners)


def containers(pod: Object) -> list[Object]:
    """Give the containers of a pod's spec, those that run first included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def commands(pod: Object) -> list[tuple[str, ...]]:
    """Give what each container of a pod's spec asks of `pipeline`."""
    return [tuple(one.get("args", ())) for one in containers(pod)]
