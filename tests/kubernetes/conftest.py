"""A real cluster of one node with the manifests applied, and a PostgreSQL on its machine."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from checks.bench import Bench
from checks.check import Examination
from checks.rules import CATALOGUE
from fixtures.cache import SetupError
from fixtures.kubernetes_material import DATA, NAMESPACE, SERVERS
from fixtures.manifests import DEPLOY, rendered
from fixtures.scratch import Material
from fixtures.stacks import training
from fixtures.stacks.kubernetes import settings
from fixtures.stacks.kubernetes.forward import Forward
from fixtures.stacks.kubernetes.lab import Lab
from fixtures.stacks.native import NativeStack
from fixtures.verdict import NotVerified
from fixtures.workload.schema import SHOP
from pipeline.config import KafkaConfig, KubernetesConfig, PipelineConfig
from pipeline.errors import ServerError
from pipeline.wait import wait_until

SOON = timedelta(seconds=90)
ROLE, PASSWORD = "pipeline_backup", "of-the-lab"
Object = dict[str, Any]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A cluster; where there can be none, nothing here was verified."""
    try:
        started = Lab.launch()
    except SetupError as error:
        raise NotVerified(f"NOT RUN: {error}") from error
    with started:
        yield started


class Reachable(NativeStack):
    """Servers of this machine whose brokers tell an address that pods reach too."""

    def _make_servers(self) -> None:
        config = self._layout.config
        port = config.kafka.bootstrap_servers.rpartition(":")[2]
        kafka = KafkaConfig(bootstrap_servers=f"{settings.HOST}:{port}")
        self._layout.config = config.model_copy(update={"kafka": kafka})
        super()._make_servers()


@pytest.fixture(scope="session")
def source(lab: Lab) -> Iterator[NativeStack]:
    """The pipeline that is backed up; it starts once the node's link is there."""
    assert lab.folder.exists()  # with the address that brokers are to tell
    with Reachable.launch(artifacts=training.prepared()) as stack:
        told = stack.config.postgres
        with psycopg.connect(**told.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
            connection.execute(f"CREATE ROLE {ROLE} LOGIN REPLICATION PASSWORD '{PASSWORD}'")
            connection.execute(f"GRANT pg_read_all_data TO {ROLE}")
        with psycopg.connect(**told.conninfo(dbname="shop")) as connection:
            connection.execute(SHOP)
            connection.execute(
                "INSERT INTO customers (email, name, vip, credit, rev) "
                "SELECT n || '@x', 'n', false, n, 1 FROM generate_series(1, 500) n"
            )
        yield stack


@dataclass(frozen=True)
class Applied:
    """The manifests of deploy/ in a namespace that this run made."""

    lab: Lab
    config: PipelineConfig
    notes: Path

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.lab.kubectl("-n", NAMESPACE, *words, stdin=stdin)

    def get(self, *words: str) -> Any:  # noqa: ANN401 - an object of the API
        return self.lab.get("-n", NAMESPACE, *words)

    def apply(self, *objects: Object) -> None:
        told = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.lab.kubectl("apply", "-f", "-", stdin=json.dumps(told))

    def trigger(
        self, cronjob: str, name: str, change: Callable[[Object], object] = lambda _: None
    ) -> None:
        """Make a job as the CronJob would, changed; it counts as one of the CronJob's."""
        made = self.get(f"cronjob/{cronjob}")
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": cronjob, "controller": True}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "ownerReferences": [owner | {"uid": made["metadata"]["uid"]}],
            },
            "spec": made["spec"]["jobTemplate"]["spec"],
        }
        change(job["spec"])
        self.apply(job)

    def remove(self, job: str) -> None:
        self.kubectl("delete", "job", job, "--cascade=foreground", "--grace-period=1")

    def ended(self, job: str) -> Object:
        """Wait for a job, and give its last condition."""
        conditions: list[Object] = []

        def unended() -> str | None:
            status = self.get(f"job/{job}")["status"]
            conditions[:] = [
                each
                for each in status.get("conditions", [])
                if each["type"] in {"Complete", "Failed"} and each["status"] == "True"
            ]
            return None if conditions else f"{status}; {self.told()}"

        wait_until(f"job {job}", unended, within=SOON, every=timedelta(milliseconds=300))
        return conditions[0]

    def told(self, job: str = "") -> str:
        """Give the last lines of a job's log, or of the namespace's events."""
        if job:
            return self.kubectl("logs", f"job/{job}", "--all-containers", "--tail=20")
        events = self.get("events")["items"]
        return "; ".join(f"{each['reason']}: {each['message']}" for each in events[-3:])

    def examine(self, check: str) -> Examination:
        with Bench(_no_material, config=self.config, notes=self.notes, seed=0) as bench:
            return bench.examine(CATALOGUE[check])

    def red(self, check: str, subject: str, says: str) -> None:
        """Wait until a check names what was damaged, and why."""

        def not_yet() -> str | None:
            seen = self.examine(check)
            told = [one.problem for one in seen.problems if one.subject == subject]
            found = any(says in (problem or "") for problem in told)
            return None if found else f"{seen.outcome} {told} {seen.trouble}"

        wait_until(f"{check} says {says}", not_yet, within=SOON, every=timedelta(seconds=1))


@pytest.fixture(scope="session")
def applied(
    lab: Lab, source: NativeStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Applied]:
    """Everything of the plain overlay, its Secret, and Services that lead to this machine."""
    config, notes = source.config, tmp_path_factory.mktemp("notes")
    objects = rendered(DEPLOY / "overlays" / "plain")
    namespaces = [one for one in objects if one["kind"] == "Namespace"]
    data = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": DATA}}
    with ExitStack() as forwards:
        reached = _reached(config, forwards)
        served = [each for name, address in reached.items() for each in _led(name, *address)]
        first = [*namespaces, data, *served, _secret()]
        listed = {"apiVersion": "v1", "kind": "List", "items": [*first, *objects]}
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(listed))
        place = Applied(lab, config, notes)
        _wait_for_the_receiver(place)
        claim = place.get("pvc/repository")["spec"]["volumeName"].removeprefix("lab-")
        repository = lab.folder / "volumes" / claim / "repository"
        yield replace(place, config=_seen_from_here(lab, config, repository, notes))


def _reached(config: PipelineConfig, forwards: ExitStack) -> dict[str, tuple[str, int]]:
    """Give the address of each server as pods reach it; brokers have such a one themselves."""
    ports = {"postgres": config.postgres.port}
    for name, url in (("connect", config.connect.url), ("registry", config.registry.url)):
        ports[name] = urlsplit(url).port or 0
    found = {
        name: forwards.enter_context(Forward((settings.HOST, 0), ("127.0.0.1", port))).address
        for name, port in ports.items()
    }
    host, _, port = config.kafka.bootstrap_servers.rpartition(":")
    return found | {"kafka": (host, int(port))}


def _wait_for_the_receiver(place: Applied) -> None:
    def unready() -> str | None:
        status = place.get("statefulset/receiver")["status"]
        if status.get("readyReplicas") == 1:
            return None
        try:
            said = place.kubectl("logs", "receiver-0", "--all-containers", "--tail=5")
        except ServerError as error:  # before its container is there
            said = str(error)
        return f"{place.told()}; {said}"

    wait_until("the receiver is ready", unready, within=SOON, every=timedelta(seconds=1))


def _seen_from_here(
    lab: Lab, config: PipelineConfig, repository: Path, notes: Path
) -> PipelineConfig:
    """The same pipeline, with the rights of the inspector alone."""
    token = lab.kubectl("-n", NAMESPACE, "create", "token", "inspector", "--duration=2h").strip()
    kubeconfig = notes / "inspector.kubeconfig"
    kubeconfig.write_text(lab.kubeconfig_of(token))
    return config.model_copy(
        update={
            "postgres": config.postgres.model_copy(update={"dbname": "shop"}),
            "repository": config.repository.model_copy(update={"path": repository}),
            "kubernetes": KubernetesConfig(namespace=NAMESPACE, kubeconfig=kubeconfig),
        }
    )


def _led(name: str, address: str, port: int) -> Iterator[Object]:
    """A Service without pods, that leads to this machine."""
    placed = {"name": name, "namespace": DATA}
    ports = [{"name": "server", "port": SERVERS[name], "targetPort": port}]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": placed, "spec": {"ports": ports}}
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**placed, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "server", "port": port}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }


def _secret() -> Object:
    placed = {"name": "pipeline-postgres", "namespace": NAMESPACE}
    data = {"password": PASSWORD}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": placed, "stringData": data}


def _no_material() -> Material:
    raise AssertionError("a cluster is examined, and not copied")
