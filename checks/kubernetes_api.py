"""The API of a cluster, asked with GET alone."""

import json
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import urllib3
from kubernetes import client
from kubernetes import config as kubeconfig

from checks.check import CouldNotLook
from pipeline.config import KubernetesConfig

PATHS = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ConfigMap": "/api/v1/configmaps",
    "CronJob": "/apis/batch/v1/cronjobs",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "Event": "/api/v1/events",
    "Job": "/apis/batch/v1/jobs",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
    "Pod": "/api/v1/pods",
    "Role": "/apis/rbac.authorization.k8s.io/v1/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "Secret": "/api/v1/secrets",
    "Service": "/api/v1/services",
    "ServiceAccount": "/api/v1/serviceaccounts",
    "StatefulSet": "/apis/apps/v1/statefulsets",
}
OPERATORS = {
    "Cluster": ("postgresql.cnpg.io", "v1", "clusters"),
    "Kafka": ("kafka.strimzi.io", "v1", "kafkas"),
    "KafkaConnect": ("kafka.strimzi.io", "v1", "kafkaconnects"),
    "KafkaConnector": ("kafka.strimzi.io", "v1", "kafkaconnectors"),
    "KafkaTopic": ("kafka.strimzi.io", "v1", "kafkatopics"),
}
SECONDS = 20


class Api:
    """A cluster by its kubeconfig, or by the account of the pod that we are in."""

    def __init__(self, told: KubernetesConfig) -> None:
        self._told = told

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def objects(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        """Give all of a kind; of an operator that is not installed, none."""
        if kind in OPERATORS:
            return self._of_operator(kind, namespace)
        items: list[dict[str, Any]] = json.loads(self._get(_path(kind, namespace)))["items"]
        return [{**one, "kind": kind} for one in items]  # lists leave the kind of their items out

    def one(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Give one of them, or None where there is none of that name."""
        answer = self._ask(f"{_path(kind, namespace)}/{name}", missing=True)
        found: dict[str, Any] | None = json.loads(answer) if answer else None
        return found

    def _of_operator(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        group, version, plural = OPERATORS[kind]
        groups = json.loads(self._get("/apis"))["groups"]
        served = {each["name"]: each["versions"] for each in groups}
        if group not in served:
            return []
        versions = [one["version"] for one in served[group]]
        chosen = version if version in versions else versions[0]
        items = json.loads(self._get(f"/apis/{group}/{chosen}/{plural}"))["items"]
        own = (one for one in items if one["metadata"]["namespace"] == namespace)
        return [{**one, "kind": kind} for one in own]

    def _get(self, path: str) -> bytes:
        return self._ask(path) or b""

    def _ask(self, path: str, *, missing: bool = False) -> bytes | None:
        try:
            asked = self._client.param_serialize(
                "GET",
                path,
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*asked, _request_timeout=SECONDS)
            data: bytes = answer.read()  # type: ignore[no-untyped-call] # the client's own
        except urllib3.exceptions.HTTPError as error:
            raise CouldNotLook(f"the cluster does not answer: {error}", "Is it up?") from error
        if answer.status == 404 and missing:
            return None
        if answer.status != 200:
            raise CouldNotLook(
                f"GET {path}: {answer.status} {json.loads(data).get('message', '')}",
                "deploy/base/accounts.yaml has the rights that an inspector needs",
            )
        return data

    @cached_property
    def _client(self) -> client.ApiClient:
        told, file = self._told, self._told.kubeconfig
        try:
            made: client.ApiClient = kubeconfig.new_client_from_config(  # type: ignore[no-untyped-call] # the client's own
                config_file=str(file) if file else None, context=told.context
            )
        except kubeconfig.ConfigException as error:
            raise CouldNotLook(
                f"no cluster in the kubeconfig: {error}", "say context and kubeconfig"
            ) from error
        return made


def _path(kind: str, namespace: str | None) -> str:
    above, _, plural = PATHS[kind].rpartition("/")
    return f"{above}/namespaces/{namespace}/{plural}" if namespace else PATHS[kind]
