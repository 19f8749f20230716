"""CronJobs on a real cluster: what they leave is a backup, and what goes wrong says why."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from checks.check import Outcome
from fixtures.stacks.native import NativeStack
from pipeline.wait import wait_until
from tests.kubernetes.conftest import ROLE, Applied

pytestmark = pytest.mark.kubernetes
CRONJOB = "CronJob backup-base"
SECOND = timedelta(seconds=1)
OF_SETS = {
    "backup-base": (
        "backup.objects-match-manifest",
        "backup.facts-complete",
        "backup.newest-is-recent",
        "base.files-match-server-manifest",
        "base.own-wal-complete",
        "restore.base-backup-starts",
    ),
    "backup-logical": (
        "logical.objects-match-manifest",
        "logical.dump-reads-to-its-end",
        "logical.restores-every-row",
    ),
    "backup-cdc": ("backup.manifests-sealed", "backup.no-foreign-objects"),
    "backup-topics": (
        "kafka.archive-objects-match-manifest",
        "kafka.archive-complete",
        "kafka.batches-sound",
        "kafka.archived-as-in-topic",
    ),
    "backup-offsets": ("kafka.group-backup-whole", "kafka.group-backup-intact"),
    "backup-schemas": ("backup.manifests-sealed", "backup.no-foreign-objects"),
    "verify": ("repository.closed-to-others", "backup.manifests-sealed"),
    "retain": ("backup.chains-unbroken", "backup.no-foreign-objects"),
}


@pytest.mark.parametrize("cronjob", OF_SETS)
def test_a_job_leaves_what_the_checks_accept(applied: Applied, cronjob: str) -> None:
    applied.kubectl("create", "job", f"{cronjob}-now", f"--from=cronjob/{cronjob}")
    ended = applied.ended(f"{cronjob}-now")
    assert ended["type"] == "Complete", f"{ended}\n{applied.told(f'{cronjob}-now')}"
    for check in OF_SETS[cronjob]:
        seen = applied.examine(check)
        assert seen.outcome is Outcome.PASS, f"{check}: {seen}"
    assert applied.examine("kubernetes.jobs-succeed").outcome is Outcome.PASS


def test_one_fires_on_its_own_schedule(applied: Applied) -> None:
    applied.kubectl("patch", "cronjob", "retain", "-p", '{"spec":{"schedule":"* * * * *"}}')
    fired: list[str] = []

    def unfired() -> str | None:
        jobs = applied.get("jobs")["items"]
        fired[:] = [
            job["metadata"]["name"]
            for job in jobs
            if job["metadata"]["name"].startswith("retain-") and _of_schedule(job)
        ]
        return None if fired else applied.told()

    try:
        wait_until("a job by schedule", unfired, within=timedelta(seconds=90), every=SECOND)
    finally:
        applied.kubectl("patch", "cronjob", "retain", "-p", '{"spec":{"schedule":"0 7 * * *"}}')
    assert applied.ended(fired[0])["type"] == "Complete"


def _of_schedule(job: dict[str, Any]) -> bool:
    return "batch.kubernetes.io/cronjob-scheduled-timestamp" in job["metadata"]["annotations"]


@contextmanager
def job(applied: Applied, name: str, **changes: Any) -> Iterator[None]:  # noqa: ANN401 - of a spec
    """A job of backup-base with another container, or other settings; it is removed."""

    def change(spec: dict[str, Any]) -> None:
        pod = spec["template"]["spec"]
        for key, value in changes.items():
            place = pod["containers"][0] if key in {"args", "command", "image"} else spec
            (pod if key in {"securityContext", "volumes"} else place)[key] = value

    applied.trigger("backup-base", name, change)
    try:
        yield
    finally:
        applied.remove(name)


def test_killed_at_its_deadline(applied: Applied) -> None:
    with job(applied, "too-long", args=["wal", "receive"], activeDeadlineSeconds=3):
        assert applied.ended("too-long")["reason"] == "DeadlineExceeded"
        applied.red("kubernetes.jobs-succeed", CRONJOB, "DeadlineExceeded")
    assert applied.examine("kubernetes.jobs-succeed").outcome is Outcome.PASS


def test_a_failed_job_is_not_tried_again_and_is_seen(applied: Applied) -> None:
    with job(applied, "wrong", args=["backup", "base", "--config", "/etc/pipeline/none"]):
        assert applied.ended("wrong")["reason"] == "PodFailurePolicy"
        assert "cannot read /etc/pipeline/none" in applied.told("wrong")
        applied.red("kubernetes.jobs-succeed", CRONJOB, "exit code 1")


def test_a_missing_secret_is_named(applied: Applied) -> None:
    secret = {"name": "postgres", "secret": {"secretName": "of-another-name"}}
    with job(applied, "no-secret", volumes=[*_volumes_but(applied, "postgres"), secret]):
        _told_by_an_event(applied, 'secret "of-another-name" not found')


def test_a_full_volume_is_named(applied: Applied) -> None:
    """In place of the claim a volume of 1 MiB, which is less than any base backup."""
    small = {"name": "repository", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    both = "pipeline init && pipeline backup base"
    with job(
        applied,
        "no-space",
        volumes=[*_volumes_but(applied, "repository"), small],
        command=["/usr/bin/sh", "-c", both],
        args=[],
    ):
        assert applied.ended("no-space")["reason"] == "PodFailurePolicy"
        assert "No space left on device" in applied.told("no-space")
        applied.red("kubernetes.jobs-succeed", CRONJOB, "exit code 1")


def test_a_refused_right_is_named(applied: Applied, source: NativeStack) -> None:
    with psycopg.connect(**source.config.postgres.conninfo(), autocommit=True) as connection:
        connection.execute(f"REVOKE pg_read_all_data FROM {ROLE}")
        try:
            with job(applied, "no-right", args=["backup", "logical"]):
                assert applied.ended("no-right")["reason"] == "PodFailurePolicy"
                assert "permission denied for" in applied.told("no-right")
                applied.red("kubernetes.jobs-succeed", CRONJOB, "exit code 1")
        finally:
            connection.execute(f"GRANT pg_read_all_data TO {ROLE}")


def test_a_wrong_image_is_named(applied: Applied) -> None:
    with job(applied, "no-image", image="localhost/recovery-drills:9.9.9"):
        applied.red("kubernetes.jobs-succeed", CRONJOB, "Image")


def test_a_quota_is_named(applied: Applied) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "0"}}}
    metadata = {"name": "nothing", "namespace": "pipeline-backup"}
    applied.apply(quota | {"metadata": metadata})
    try:
        wait_until(
            "the quota counts",
            lambda: (
                None if applied.get("quota/nothing").get("status", {}).get("used") else "not yet"
            ),
            within=timedelta(seconds=30),
        )
        with job(applied, "no-room"):
            applied.red("kubernetes.jobs-succeed", CRONJOB, "exceeded quota")
    finally:
        applied.kubectl("delete", "quota", "nothing")


def test_pod_security_refuses_and_says_so(applied: Applied) -> None:
    with job(applied, "as-root", securityContext={"runAsUser": 0}):
        applied.red("kubernetes.jobs-succeed", CRONJOB, "violates PodSecurity")


def _volumes_but(applied: Applied, name: str) -> list[dict[str, Any]]:
    spec = applied.get("cronjob/backup-base")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return [each for each in spec["volumes"] if each["name"] != name]


def _told_by_an_event(applied: Applied, says: str) -> None:
    def untold() -> str | None:
        events = applied.get("events")["items"]
        return None if any(says in each["message"] for each in events) else applied.told()

    wait_until(f"an event says {says}", untold, within=timedelta(seconds=60), every=SECOND)
