"""The manifests of deploy/, without a cluster: every overlay is what the checks ask for."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from checks.check import Check, Outcome
from checks.kubernetes_objects import Namespace
from checks.rules import (
    kubernetes_configuration,
    kubernetes_pods,
    kubernetes_rights,
    kubernetes_schedules,
    kubernetes_services,
)
from fixtures.manifests import DEPLOY, NotUnderstood, rendered
from pipeline.config import KubernetesConfig, PipelineConfig, load

OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
AS_WRITTEN = [
    kubernetes_configuration.config_agrees,
    kubernetes_pods.scripts_are_there,
    kubernetes_pods.security_context,
    kubernetes_rights.network_closed,
    kubernetes_rights.rights_are_least,
    kubernetes_schedules.cronjobs_as_planned,
]


def written(overlay: str) -> Namespace:
    """The objects of an overlay, as if they had just been applied."""
    objects = rendered(DEPLOY / "overlays" / overlay)
    (text,) = (one["data"]["pipeline.toml"] for one in objects if one["kind"] == "ConfigMap")
    folder = DEPLOY / "overlays" / overlay
    file = folder / "pipeline.toml"
    told = load(file if file.exists() else DEPLOY / "base" / "pipeline.toml")
    assert text == (file if file.exists() else DEPLOY / "base" / "pipeline.toml").read_text()
    config = PipelineConfig.model_construct(
        **{name: getattr(told, name) for name in PipelineConfig.model_fields}
    )
    return Namespace(config, "pipeline-backup", Written(objects))


class Written:
    """Manifests in place of a cluster."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self._objects = objects

    def objects(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        return [
            one
            for one in self._objects
            if (one["kind"], one["metadata"].get("namespace")) == (kind, namespace)
        ]

    def one(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        found = self.objects(kind, namespace)
        return next((one for one in found if one["metadata"]["name"] == name), None)

    @property
    def now(self) -> datetime:
        raise AssertionError("what is written is of no moment")


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("check", AS_WRITTEN, ids=lambda check: check.id)
def test_every_overlay_is_what_the_checks_ask_for(check: Check[Namespace], overlay: str) -> None:
    seen = check.run(lambda: written(overlay))
    assert (seen.outcome, seen.problems, seen.trouble) == (Outcome.PASS, (), None)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_of_a_pod_is_a_file(overlay: str) -> None:
    for where, pod in written(overlay).templates():
        assert not list(kubernetes_configuration._in_the_open(pod)), where
        for volume in pod["volumes"]:
            assert volume.get("secret", {}).get("defaultMode", 0o440) == 0o440


def test_the_schedule_is_that_of_the_written_plan() -> None:
    told = {one["metadata"]["name"]: one["spec"]["schedule"] for one in written("plain").cronjobs}
    assert told["backup-base"] == "0 2 * * *"
    assert told["backup-logical"] == "0 3 * * *"
    assert told["backup-cdc"] == "0 4 * * *"


def test_the_base_asks_for_50_gi_as_written_and_every_overlay_for_what_the_plan_keeps() -> None:
    (claim,) = (one for one in rendered(DEPLOY / "base") if one["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    for overlay in OVERLAYS:
        (claim,) = written(overlay).all("PersistentVolumeClaim")
        assert claim["spec"]["resources"]["requests"]["storage"] == "110Gi"


def test_what_is_not_read_of_kustomize_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\nnamePrefix: x-\n")
    with pytest.raises(NotUnderstood, match="namePrefix"):
        rendered(tmp_path)


def test_without_a_cluster_the_checks_are_not_run_and_say_how_to_get_one() -> None:
    seen = kubernetes_pods.security_context.run(
        lambda: Namespace.of(load(DEPLOY / "base" / "pipeline.toml"))
    )
    assert seen.outcome is Outcome.NOT_RUN
    assert "`make lab`" in (seen.trouble or "")


def test_what_a_file_was_not_printed_with_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text(json.dumps({"items": rendered(DEPLOY / "base")}))
    told = load(DEPLOY / "base" / "pipeline.toml")
    file = KubernetesConfig(objects=tmp_path / "objects.json")
    config = told.model_copy(update={"kubernetes": file})
    seen = kubernetes_services.services_answer.run(lambda: Namespace.of(config))
    assert (seen.outcome, seen.trouble) == (Outcome.UNKNOWN, "the file holds no Service")


def test_a_cluster_that_is_away_is_unknown(tmp_path: Path) -> None:
    told = load(DEPLOY / "base" / "pipeline.toml")
    file = KubernetesConfig(objects=tmp_path / "none.json")
    config = told.model_copy(update={"kubernetes": file})
    seen = kubernetes_pods.security_context.run(lambda: Namespace.of(config))
    assert seen.outcome is Outcome.UNKNOWN
    assert "none.json" in (seen.trouble or "")
