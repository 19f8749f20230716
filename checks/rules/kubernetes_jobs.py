"""Whether jobs and pods did, and do, what they are there for."""

from collections.abc import Iterator
from random import Random
from typing import Any

from checks import cron
from checks.check import Observation, check
from checks.kubernetes_objects import Namespace, moment, name_of, owned_by
from fixtures.faults.manifests import Objects, edited
from fixtures.scratch import Damage, Scratch

STUCK = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
}
"""Why a container waits for what will not come by itself."""
PATIENCE, RESTARTS = 300, 3
SLOWER, SHORT = 3, 600
"""A job is late at so many times what earlier ones took, and never before so many seconds."""


@check(
    "kubernetes.jobs-succeed",
    on=Namespace,
    severity="blocker",
    advice="`kubectl logs job/NAME` says why, exit code 11 that something could not be verified. "
    "When it is mended: `kubectl create job NAME-again --from=cronjob/NAME`.",
)
def jobs_succeed(namespace: Namespace) -> Iterator[Observation]:
    """The newest job of each CronJob is complete, or runs no longer than those before it."""
    for one in namespace.cronjobs:
        jobs = [job for job in namespace.all("Job") if owned_by(job, one)]
        jobs.sort(key=lambda job: moment(job["metadata"]["creationTimestamp"]))
        subject = f"CronJob {name_of(one)}"
        yield Observation(subject, _of(namespace, jobs) if jobs else _never(namespace, one))


def _never(namespace: Namespace, one: dict[str, Any]) -> str | None:
    """Why a CronJob without jobs is wrong: its first moment is past, or its last one is."""
    since = one.get("status", {}).get("lastScheduleTime") or one["metadata"]["creationTimestamp"]
    try:
        longest = cron.gaps(one["spec"]["schedule"])[1].total_seconds()
    except ValueError as error:
        return f"it cannot fall due: {error}"
    if namespace.age(since) <= longest + one["spec"].get("startingDeadlineSeconds", 0):
        return None
    told = namespace.told_of("CronJob", name_of(one)) or "no event says why"
    return f"no job of it since {since}: {told}"


def _of(namespace: Namespace, jobs: list[dict[str, Any]]) -> str | None:
    newest = jobs[-1]
    ended = {each["type"]: each for each in _conditions(newest) if each["status"] == "True"}
    if "Complete" in ended:
        return None
    pods = namespace.ran_by(newest)
    if failed := ended.get("Failed"):
        codes = ", ".join(sorted(set(_ends(pods)))) or "no pod of it is left"
        return f"{name_of(newest)} failed: {failed['reason']}: {failed['message']} ({codes})"
    if stuck := next((each for pod in pods if (each := waits(pod))), None):
        return f"{name_of(newest)} waits: {stuck}"
    age = namespace.age(newest["metadata"]["creationTimestamp"])
    told = namespace.told_of("Job", name_of(newest))
    if not pods and (told or age > PATIENCE):
        return f"{name_of(newest)} has no pod after {age:.0f} s: {told or 'no event says why'}"
    late = max([SHORT, *(SLOWER * each for each in _durations(jobs))])
    return f"{name_of(newest)} runs for {age:.0f} s, expected {late:.0f}" if age > late else None


def _conditions(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job.get("status", {}).get("conditions", [])
    return found


def _durations(jobs: list[dict[str, Any]]) -> Iterator[float]:
    for job in jobs:
        if ended := job.get("status", {}).get("completionTime"):
            yield (moment(ended) - moment(job["status"]["startTime"])).total_seconds()


def _statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _ends(pods: list[dict[str, Any]]) -> Iterator[str]:
    for pod in pods:
        for status in _statuses(pod):
            if ended := status["state"].get("terminated"):
                yield f"{status['name']}: {ended.get('reason')}, exit code {ended['exitCode']}"


def waits(pod: dict[str, Any]) -> str | None:
    """Why a pod waits for something that does not come by itself."""
    for status in _statuses(pod):
        waiting = status["state"].get("waiting", {})
        if waiting.get("reason") in STUCK:
            return f"{waiting['reason']}: {waiting.get('message', '')}"
    return None


@check(
    "kubernetes.pods-healthy",
    on=Namespace,
    severity="blocker",
    advice="`kubectl describe pod NAME` has its events, `kubectl logs NAME --previous` what it "
    "said before it ended.",
)
def pods_healthy(namespace: Namespace) -> Iterator[Observation]:
    """Every pod is ready or done, is not restarted again and again, and had memory enough."""
    for one in namespace.all("StatefulSet"):
        wanted, ready = (
            one["spec"].get("replicas", 1),
            one.get("status", {}).get("readyReplicas", 0),
        )
        told = namespace.told_of("StatefulSet", name_of(one)) or "its pods say why"
        less = f"{ready} of {wanted} pods are ready; {told}"
        yield Observation(f"StatefulSet {name_of(one)}", less if ready < wanted else None)
    for pod in namespace.all("Pod"):
        yield Observation(f"Pod {name_of(pod)}", _trouble(namespace, pod))


def _trouble(namespace: Namespace, pod: dict[str, Any]) -> str | None:
    for status in _statuses(pod):
        for state in (status["state"], status.get("lastState", {})):
            if state.get("terminated", {}).get("reason") == "OOMKilled":
                return f"{status['name']} was killed for want of memory (OOMKilled)"
        if (restarts := status.get("restartCount", 0)) >= RESTARTS:
            return f"{status['name']} was restarted {restarts} times"
    if stuck := waits(pod):
        return stuck
    told = namespace.told_of("Pod", name_of(pod)) or "no event says why"
    age, phase = namespace.age(pod["metadata"]["creationTimestamp"]), pod["status"]["phase"]
    if phase == "Pending" and age > PATIENCE:
        return f"pending for {age:.0f} s: {told}"
    ready = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    if phase == "Running" and ready.get("Ready") != "True" and age > PATIENCE:
        return f"not ready for {age:.0f} s: {told}"
    return None


Cluster = Scratch[Namespace]
JOB, POD = "backup-base-1", "backup-base-1-x"


def _unended(objects: Objects) -> dict[str, Any]:
    """Have the newest job be under way; gives its pod's status."""
    job, pod = objects.one("Job", JOB), objects.one("Pod", POD)
    job["status"] = {"startTime": job["status"]["startTime"], "active": 1}
    pod["status"] = {"phase": "Pending"}
    status: dict[str, Any] = pod["status"]
    return status


def _waiting(reason: str, message: str) -> list[dict[str, Any]]:
    waiting = {"waiting": {"reason": reason, "message": message}}
    return [{"name": "pipeline", "restartCount": 0, "ready": False, "state": waiting}]


def _failed(objects: Objects, reason: str, message: str, code: int) -> None:
    job = objects.one("Job", JOB)
    told = {"type": "Failed", "status": "True", "reason": reason, "message": message}
    job["status"] = {"startTime": job["status"]["startTime"], "failed": 1, "conditions": [told]}
    ended = {"terminated": {"reason": "Error", "exitCode": code}}
    objects.one("Pod", POD)["status"] = {
        "phase": "Failed",
        "containerStatuses": [{"name": "pipeline", "restartCount": 0, "state": ended}],
    }


@jobs_succeed.detects
def image_cannot_be_pulled(scratch: Cluster, _rng: Random) -> Damage:
    """A tag that the registry does not have: the job runs for ever, and no job fails."""
    with edited(scratch) as objects:
        status = _unended(objects)
        status["containerStatuses"] = _waiting("ImagePullBackOff", "not found")
    return Damage("CronJob backup-base", "its image is not there", says="ImagePullBackOff")


@jobs_succeed.detects
def ended_with_an_error(scratch: Cluster, rng: Random) -> Damage:
    """A backup that was refused, or could not be verified."""
    code = rng.choice((1, 10, 11))
    with edited(scratch) as objects:
        _failed(objects, "PodFailurePolicy", f"exit code {code}", code)
    return Damage("CronJob backup-base", "its job failed", says=f"exit code {code}")


@jobs_succeed.detects
def quota_of_nothing(scratch: Cluster, _rng: Random) -> Damage:
    """A quota that leaves no room: a job without pods, which counts as no failure."""
    with edited(scratch) as objects:
        _unended(objects)
        objects.remove("Pod", POD)
        objects.warn("Job", JOB, "FailedCreate", "exceeded quota: pods")
    return Damage("CronJob backup-base", "no pod may be made", says="exceeded quota")


@jobs_succeed.detects
def job_that_hangs(scratch: Cluster, _rng: Random) -> Damage:
    """A connection that neither answers nor ends."""
    with edited(scratch) as objects:
        _unended(objects)["phase"] = "Running"
    return Damage("CronJob backup-base", "its job does not end", says="runs for")


@jobs_succeed.detects
def killed_at_its_deadline(scratch: Cluster, _rng: Random) -> Damage:
    """A database that outgrew the time that its backup is given."""
    with edited(scratch) as objects:
        _failed(objects, "DeadlineExceeded", "Job was active longer than specified deadline", 143)
    return Damage("CronJob backup-base", "it took too long", says="DeadlineExceeded")


@jobs_succeed.detects
def schedule_missed(scratch: Cluster, _rng: Random) -> Damage:
    """A controller that was down for a week: jobs and their history are gone."""
    with edited(scratch) as objects:
        objects.remove("Job", JOB)
        one = objects.one("CronJob", "backup-base")
        one["status"] = {"lastScheduleTime": "2024-01-01T02:00:00Z"}
    return Damage("CronJob backup-base", "it fell due, and nothing ran", says="no job of it since")


def _receiver(objects: Objects) -> dict[str, Any]:
    status: dict[str, Any] = objects.one("Pod", "receiver-0")["status"]
    return status


@pods_healthy.detects
def crash_loop(scratch: Cluster, rng: Random) -> Damage:
    """A receiver that the server turns away at each start."""
    with edited(scratch) as objects:
        _receiver(objects)["containerStatuses"][0]["restartCount"] = rng.randrange(3, 50)
    return Damage("Pod receiver-0", "it is restarted all the time", says="restarted")


@pods_healthy.detects
def too_little_memory(scratch: Cluster, _rng: Random) -> Damage:
    """A limit of 16 Mi."""
    with edited(scratch) as objects:
        killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
        _receiver(objects)["containerStatuses"][0]["lastState"] = killed
    return Damage("Pod receiver-0", "it was killed", says="OOMKilled")


@pods_healthy.detects
def no_node_for_it(scratch: Cluster, _rng: Random) -> Damage:
    """A request that no node can serve."""
    with edited(scratch) as objects:
        objects.one("Pod", "receiver-0")["status"] = {"phase": "Pending"}
        objects.warn("Pod", "receiver-0", "FailedScheduling", "Insufficient cpu")
    return Damage("Pod receiver-0", "it finds no node", says="Insufficient cpu")


@pods_healthy.detects
def probe_fails(scratch: Cluster, _rng: Random) -> Damage:
    """A receiver that runs, and through which nothing flows."""
    with edited(scratch) as objects:
        _receiver(objects)["conditions"] = [{"type": "Ready", "status": "False"}]
        objects.warn("Pod", "receiver-0", "Unhealthy", "the receiver does not stream")
    return Damage("Pod receiver-0", "it is not ready", says="does not stream")


@pods_healthy.detects
def receiver_scaled_to_nothing(scratch: Cluster, _rng: Random) -> Damage:
    """Its only pod is refused by Pod Security."""
    with edited(scratch) as objects:
        objects.remove("Pod", "receiver-0")
        objects.one("StatefulSet", "receiver")["status"] = {"replicas": 0}
        objects.warn("StatefulSet", "receiver", "FailedCreate", "violates PodSecurity")
    return Damage("StatefulSet receiver", "it has no pod", says="violates PodSecurity")
