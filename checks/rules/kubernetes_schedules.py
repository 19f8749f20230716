"""Whether everything of the plan is scheduled, and how its jobs may run."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from checks import cron, program
from checks.check import Observation, check
from checks.kubernetes_objects import Namespace, commands, name_of
from fixtures.faults.manifests import edited
from fixtures.scratch import Damage, Scratch
from pipeline.config import DAY
from pipeline.repository.kinds import ALL, KINDS

WRITES = {"cdc": "slots"}
"""Commands of `pipeline backup` that write sets of a kind with another name."""
PLANNED = {name: kind for name, kind in KINDS.items() if kind is not ALL}
"""What the plan has taken by itself; all of it as one set is taken by who wants that."""
BESIDE = {("verify",): DAY, ("retain", "--yes"): DAY}
"""What is to run beside the backups, and how often."""
SOON = 10  # seconds: below it the controller starts nothing (its own loop takes that long)


def kind_of(command: tuple[str, ...]) -> str | None:
    """Tell which kind of backup a command takes whole."""
    if command[:1] != ("backup",) or len(command) != 2:
        return None
    return WRITES.get(command[1], command[1])


@check(
    "kubernetes.cronjobs-as-planned",
    on=Namespace,
    advice="Apply deploy/overlays/ again. What was suspended for maintenance is resumed with "
    '`kubectl patch cronjob NAME -p \'{"spec":{"suspend":false}}\'`.',
)
def cronjobs_as_planned(namespace: Namespace) -> Iterator[Observation]:
    """Each kind of backup has a CronJob in a named zone, as often as planned, that can end."""
    for name in sorted({kind_of(each) or "" for each in program.commands()}):
        if name in PLANNED:
            yield Observation(name, _missing(namespace, name, PLANNED[name].every))
    for command, every in BESIDE.items():
        found = [one for one in namespace.cronjobs if command in _asked(one)]
        lacking = None if found else f"no CronJob runs `pipeline {' '.join(command)}`"
        yield Observation(command[0], lacking or _too_rare(found, every))
    for one in namespace.cronjobs:
        told = [*_timing(one["spec"]), *_ending(one["spec"])]
        yield Observation(f"CronJob {name_of(one)}", "; ".join(told) or None)
    yield Observation("order", _topics_before_offsets(namespace))


def _asked(cronjob: dict[str, Any]) -> list[tuple[str, ...]]:
    return commands(cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"])


def _missing(namespace: Namespace, kind: str, every: timedelta) -> str | None:
    found = [
        one for one in namespace.cronjobs if any(kind_of(each) == kind for each in _asked(one))
    ]
    return _too_rare(found, every) if found else "no CronJob takes it"


def _too_rare(found: list[dict[str, Any]], every: timedelta) -> str | None:
    """Hold the longest gap of any against the plan; what cannot be read is told of itself."""
    longest = []
    for one in found:
        try:
            longest.append(cron.gaps(one["spec"]["schedule"])[1])
        except ValueError:
            continue
    if longest and min(longest) > every:
        return f"{found[0]['spec']['schedule']!r} leaves {min(longest)} between two, not {every}"
    return None


def _timing(spec: dict[str, Any]) -> Iterator[str]:
    zone = spec.get("timeZone")
    if spec.get("suspend"):
        yield "it is suspended"
    if not zone:
        yield "no timeZone: its hours are those of wherever the controller runs"
    elif _unknown(zone):
        yield f"timeZone {zone!r} is none"
    elif zone not in {"Etc/UTC", "UTC"}:
        yield f"timeZone {zone}: twice a year an hour is skipped or comes twice; use Etc/UTC"
    if "TZ=" in spec["schedule"]:
        yield "its schedule names a zone, which Kubernetes refuses"
        return
    try:
        shortest, _ = cron.gaps(spec["schedule"])
    except ValueError as error:
        yield f"its schedule is none: {error}"
        return
    active = spec["jobTemplate"]["spec"].get("activeDeadlineSeconds")
    if active is None:
        yield "no activeDeadlineSeconds: one job that hangs keeps off all later ones, in silence"
    elif timedelta(seconds=active) >= shortest:
        yield f"a job may run for {active} s, and the next one is due after {shortest}"


def _unknown(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return True
    return False


def _ending(spec: dict[str, Any]) -> Iterator[str]:
    job = spec["jobTemplate"]["spec"]
    if spec.get("concurrencyPolicy") != "Forbid":
        yield f"concurrencyPolicy {spec.get('concurrencyPolicy', 'Allow')}, expected Forbid"
    if (start := spec.get("startingDeadlineSeconds")) is None:
        yield "no startingDeadlineSeconds: a missed run is made up for at whatever hour"
    elif start < SOON:
        yield f"startingDeadlineSeconds {start}: below {SOON} nothing is ever started"
    if (tries := job.get("backoffLimit", 6)) > 1:
        yield f"backoffLimit {tries}: {tries + 1} backups where one fails"
    if (again := job["template"]["spec"].get("restartPolicy")) != "Never":
        yield f"restartPolicy {again}: the log of what failed goes with the restart"


def _topics_before_offsets(namespace: Namespace) -> str | None:
    """Offsets that are read after the topics may lie beyond the archive."""
    offsets, topics = ("backup", "offsets"), ("backup", "topics")
    for asked in map(_asked, namespace.cronjobs):
        if topics in asked and offsets in asked:
            early = asked.index(offsets) < asked.index(topics)
            return None if early else "offsets are read after topics: they may lie beyond"
    return "no job takes offsets and then topics"


Cluster = Scratch[Namespace]


@cronjobs_as_planned.detects
def left_suspended(scratch: Cluster, _rng: Random) -> Damage:
    """Suspended for an upgrade, and forgotten: no job fails, since none is made."""
    with edited(scratch) as objects:
        objects.cronjob("backup-base")["suspend"] = True
    return Damage("CronJob backup-base", "it was suspended", says="suspended")


@cronjobs_as_planned.detects
def zone_dropped(scratch: Cluster, _rng: Random) -> Damage:
    """A copy of the manifest for an older cluster."""
    with edited(scratch) as objects:
        del objects.cronjob("backup-logical")["timeZone"]
    return Damage("CronJob backup-logical", "it lost its zone", says="no timeZone")


@cronjobs_as_planned.detects
def local_time(scratch: Cluster, _rng: Random) -> Damage:
    """02:00 where the office is: once a year that hour does not exist."""
    with edited(scratch) as objects:
        objects.cronjob("backup-base")["timeZone"] = "Europe/Berlin"
    return Damage("CronJob backup-base", "it runs in local time", says="Etc/UTC")


@cronjobs_as_planned.detects
def no_deadline(scratch: Cluster, _rng: Random) -> Damage:
    """With Forbid, one pod that hangs on its image ends all backups."""
    with edited(scratch) as objects:
        del objects.job("backup-base")["activeDeadlineSeconds"]
    return Damage("CronJob backup-base", "no deadline", says="no activeDeadlineSeconds")


@cronjobs_as_planned.detects
def kind_forgotten(scratch: Cluster, _rng: Random) -> Damage:
    """An overlay that lists its CronJobs, and left one out."""
    with edited(scratch) as objects:
        objects.remove("CronJob", "backup-logical")
    return Damage("logical", "its CronJob is gone", says="no CronJob takes it")


@cronjobs_as_planned.detects
def once_a_month(scratch: Cluster, _rng: Random) -> Damage:
    """Day of the month and day of the week exchanged."""
    with edited(scratch) as objects:
        objects.cronjob("backup-topics")["schedule"] = "0 5 1 * *"
    return Damage("topics", "it runs on the first", says="between two")


@cronjobs_as_planned.detects
def impossible_hour(scratch: Cluster, rng: Random) -> Damage:
    """A schedule that the parser of YAML is content with."""
    with edited(scratch) as objects:
        objects.cronjob("verify")["schedule"] = f"{rng.randrange(60, 99)} 3 * * *"
    return Damage("CronJob verify", "its minute is none", says="its schedule is none")


@cronjobs_as_planned.detects
def seven_tries(scratch: Cluster, _rng: Random) -> Damage:
    """The default of a Job, where somebody removed what says otherwise."""
    with edited(scratch) as objects:
        del objects.job("backup-base")["backoffLimit"]
    return Damage("CronJob backup-base", "its limit is the default", says="7 backups")


@cronjobs_as_planned.detects
def two_at_a_time(scratch: Cluster, _rng: Random) -> Damage:
    """The default of a CronJob, beside a backup that runs for longer than a day."""
    with edited(scratch) as objects:
        del objects.cronjob("backup-topics")["concurrencyPolicy"]
    return Damage("CronJob backup-topics", "two may run at a time", says="expected Forbid")


@cronjobs_as_planned.detects
def topics_first(scratch: Cluster, _rng: Random) -> Damage:
    """Offsets after the topics: a group may have read on, beyond what the archive holds."""
    with edited(scratch) as objects:
        (first,) = objects.pod("backup-topics")["initContainers"]
        second = objects.container("backup-topics")
        first["args"], second["args"] = second["args"], first["args"]
    return Damage("order", "topics are read before offsets", says="may lie beyond")
