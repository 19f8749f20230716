"""Whether the pipeline's servers can be found, and who else acts on them."""

from collections.abc import Iterator
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kubernetes_config import addresses
from checks.kubernetes_objects import Namespace, moment, name_of
from fixtures.faults.manifests import edited
from fixtures.kubernetes_material import DATA
from fixtures.scratch import Damage, Scratch

SERVICE_OF = "kubernetes.io/service-name"
LONGEST_PAUSE = 24 * 3600
OPERATED = ("Kafka", "KafkaConnect", "KafkaConnector", "KafkaTopic", "Cluster")
PAUSED = {
    "strimzi.io/pause-reconciliation": "true",
    "cnpg.io/reconciliationLoop": "disabled",
    "strimzi.io/managed": "false",
}
"""Annotations that have an operator leave an object alone."""


@check(
    "kubernetes.services-answer",
    on=Namespace,
    severity="blocker",
    advice="`kubectl get endpointslices -l kubernetes.io/service-name=NAME` lists who serves it: "
    "compare the Service's selector with the pods' labels, and its targetPort with theirs.",
)
def services_answer(namespace: Namespace) -> Iterator[Observation]:
    """Each server that pipeline.toml names by a Service has a ready endpoint at its port."""
    for host, port in addresses(namespace):
        name, where, *more = [*host.split("."), "", ""]
        if not where or more[0] != "svc":
            yield Observation(f"{host}:{port}", None)  # no Service: nothing of it is in here
            continue
        yield Observation(f"{host}:{port}", _unserved(namespace, name, where, port))


def _unserved(namespace: Namespace, name: str, where: str, port: int) -> str | None:
    services = {name_of(one): one for one in namespace.all("Service", where)}
    if (service := services.get(name)) is None:
        return f"there is no Service {name} in {where}"
    ports = {each["port"]: each for each in service["spec"].get("ports", [])}
    if port not in ports:
        return f"Service {name} has the ports {', '.join(map(str, sorted(ports)))}"
    slices = [
        one
        for one in namespace.all("EndpointSlice", where)
        if one["metadata"].get("labels", {}).get(SERVICE_OF) == name
    ]
    ready = [(one, each) for one in slices for each in one.get("endpoints") or () if _ready(each)]
    if not ready:
        return f"Service {name} has no ready endpoint, by {service['spec'].get('selector')}"
    target = ports[port].get("targetPort", port)
    served = {each.get("port") for one, _ in ready for each in one.get("ports") or ()}
    if isinstance(target, int) and target not in served:
        return f"Service {name} leads to port {target}, its endpoints serve {sorted(served)}"
    return None


def _ready(endpoint: dict[str, Any]) -> bool:
    return endpoint.get("conditions", {}).get("ready") is not False


@check(
    "kubernetes.operators-not-fighting",
    on=Namespace,
    severity="normal",
    advice="What was paused for a recovery is let go when it is done: remove the annotation, or "
    "set the state to running. Until then changes of its manifest do nothing.",
)
def operators_not_fighting(namespace: Namespace) -> Iterator[Observation]:
    """No object of Strimzi or CloudNativePG has been kept from its operator for over a day."""
    hosts = [host for host, _ in addresses(namespace) if ".svc" in host]
    places = sorted({host.split(".")[1] for host in hosts})
    for kind in OPERATED:
        found = [one for where in places for one in namespace.all(kind, where)]
        yield Observation(kind, None)  # none is fine: nobody reconciles then
        for one in found:
            yield Observation(f"{kind} {name_of(one)}", _held(namespace, one))


def _held(namespace: Namespace, one: dict[str, Any]) -> str | None:
    annotations, since = one["metadata"].get("annotations", {}), _changed(one)
    held = [f"{name}: {value}" for name, value in PAUSED.items() if annotations.get(name) == value]
    if (state := one.get("spec", {}).get("state")) in {"paused", "stopped"}:
        held.append(f"state: {state}")
    age = namespace.age(since)
    return f"{', '.join(held)} since {since}" if held and age > LONGEST_PAUSE else None


def _changed(one: dict[str, Any]) -> str:
    """Give the moment of the last change of what was asked for, not of what was reported."""
    fields = one["metadata"].get("managedFields", [])
    stamps = [each["time"] for each in fields if each.get("subresource") != "status"]
    return str(max(stamps, key=moment) if stamps else one["metadata"]["creationTimestamp"])


Cluster = Scratch[Namespace]
POSTGRES = "postgres.data.svc:5432"


@services_answer.detects
def selector_misspelt(scratch: Cluster, _rng: Random) -> Damage:
    """A label of the pods was renamed."""
    with edited(scratch) as objects:
        objects.one("EndpointSlice", "postgres")["endpoints"] = []
        objects.one("Service", "postgres")["spec"]["selector"] = {"app": "postgresql"}
    return Damage(POSTGRES, "its selector finds no pod", says="no ready endpoint")


@services_answer.detects
def ports_exchanged(scratch: Cluster, _rng: Random) -> Damage:
    """The port of the metrics exporter."""
    with edited(scratch) as objects:
        objects.one("Service", "kafka")["spec"]["ports"] = [{"port": 9092, "targetPort": 9404}]
    return Damage("kafka.data.svc:9092", "it leads to another port", says="leads to port 9404")


@services_answer.detects
def service_renamed(scratch: Cluster, _rng: Random) -> Damage:
    """An operator names its Services by its own rule."""
    with edited(scratch) as objects:
        objects.one("Service", "connect")["metadata"]["name"] = "shop-connect-api"
    return Damage("connect.data.svc:8083", "it has another name", says="there is no Service")


@services_answer.detects
def endpoint_not_ready(scratch: Cluster, _rng: Random) -> Damage:
    """A server that has not come up after an upgrade."""
    with edited(scratch) as objects:
        for each in objects.one("EndpointSlice", "postgres")["endpoints"]:
            each["conditions"] = {"ready": False}
    return Damage(POSTGRES, "its pod is not ready", says="no ready endpoint")


@services_answer.detects
def port_not_offered(scratch: Cluster, _rng: Random) -> Damage:
    """The Service of the pooler, which offers another port."""
    with edited(scratch) as objects:
        objects.one("Service", "postgres")["spec"]["ports"] = [{"port": 6432}]
    return Damage(POSTGRES, "it has another port", says="has the ports 6432")


def _operated(
    scratch: Cluster, kind: str, *, state: str = "running", told: dict[str, str] | None = None
) -> Damage:
    """Add an object of an operator, as it has been for years."""
    metadata = {"name": "shop", "namespace": DATA, "creationTimestamp": "2024-01-01T00:00:00Z"}
    one = {"kind": kind, "metadata": metadata | {"annotations": told or {}}}
    with edited(scratch) as objects:
        objects.items.append(one | {"spec": {"state": state}})
    return Damage(f"{kind} shop", "its operator leaves it alone")


@operators_not_fighting.detects
def pause_forgotten(scratch: Cluster, _rng: Random) -> Damage:
    """Paused for a recovery: from then on nobody renews its certificates."""
    told = {"strimzi.io/pause-reconciliation": "true"}
    return _operated(scratch, "Kafka", told=told).told_as("pause-reconciliation")


@operators_not_fighting.detects
def connector_left_stopped(scratch: Cluster, _rng: Random) -> Damage:
    """Stopped in its manifest, so that the operator would not start it."""
    return _operated(scratch, "KafkaConnector", state="stopped").told_as("state: stopped")


@operators_not_fighting.detects
def topic_left_unmanaged(scratch: Cluster, _rng: Random) -> Damage:
    """Taken from its operator while it was replayed."""
    told = {"strimzi.io/managed": "false"}
    return _operated(scratch, "KafkaTopic", told=told).told_as("managed: false")


@operators_not_fighting.detects
def loop_left_disabled(scratch: Cluster, _rng: Random) -> Damage:
    """CloudNativePG does not fail over in this state."""
    told = {"cnpg.io/reconciliationLoop": "disabled"}
    return _operated(scratch, "Cluster", told=told).told_as("reconciliationLoop")
