"""Backups of Kafka over all runs: how old the newest are, and whether the sets agree."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from checks.check import Observation, check
from checks.kafka_subjects import KafkaBackups
from checks.recency import recent
from fixtures.faults import files
from fixtures.faults.kafka_archive import Forgery, again, newest, reseal
from fixtures.kafka_story import PLAIN
from fixtures.scratch import Damage, Scratch
from pipeline.errors import PipelineError
from pipeline.kafka.archive import archive
from pipeline.kafka.groups import groups
from pipeline.repository.sets import MANIFEST

PLANNED = {archive.KIND: timedelta(days=7, hours=2), groups.KIND: timedelta(hours=26)}
"""Kinds of the backup plan and how old the newest may be: its interval and two hours to run."""


@check(
    "kafka.backups-recent",
    on=KafkaBackups,
    severity="blocker",
    advice="Look at the log of the last job, then run `pipeline backup topics` and `pipeline "
    "backup offsets`: what retention deletes until then is in no archive.",
)
def backups_recent(backups: KafkaBackups) -> Iterator[Observation]:
    """The newest archive of all topics and the newest backup of groups are as recent as planned."""
    for kind, allowed in PLANNED.items():
        yield from recent(backups.sets, kind, allowed)


def _age(scratch: Scratch[KafkaBackups], kind: str, by: timedelta) -> Damage:
    for label in scratch.copy.sets.labels(kind):
        backup = scratch.copy.sets.get(label)
        manifest = backup.manifest
        times = {"started": manifest.started - by, "finished": manifest.finished - by}
        reseal(scratch, backup, **times)
    return Damage(kind, f"its sets became {by} older")


@backups_recent.detects
def week_was_skipped(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """The weekly job did not run."""
    return _age(scratch, archive.KIND, timedelta(days=7, hours=2 + rng.randrange(1, 99))).told_as(
        " old, planned are at most"
    )


@backups_recent.detects
def night_was_skipped(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """The daily job of the groups did not run."""
    return _age(scratch, groups.KIND, timedelta(hours=26 + rng.randrange(1, 99))).told_as(
        " old, planned are at most"
    )


@backups_recent.detects
def clock_was_wrong(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """An archive from the future stays the newest for ever."""
    return _age(scratch, archive.KIND, -timedelta(minutes=rng.randrange(10, 600))).told_as(
        "a clock is wrong"
    )


@backups_recent.detects
def only_some_topics_since(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """Somebody archives one topic each day, and nobody all of them."""
    damage = _age(scratch, archive.KIND, timedelta(days=7, hours=2 + rng.randrange(1, 99)))
    part = newest(scratch)
    topics = dict([rng.choice([*part.manifest.facts["topics"].items()])])
    facts = part.manifest.facts | {"scope": next(iter(topics)), "topics": topics}
    again(scratch, part, datetime.now(UTC), facts=facts)
    return damage.told_as(" old, planned are at most")


@backups_recent.detects
def no_backup_of_groups(scratch: Scratch[KafkaBackups], _rng: Random) -> Damage:
    """Retention removed the last one, or it was never taken."""
    backup = newest(scratch, groups.KIND)
    files.drop(scratch, backup.prefix + MANIFEST)
    return Damage(groups.KIND, "the only set lost its manifest", says="there is none")


@check(
    "kafka.sets-agree",
    on=KafkaBackups,
    severity="blocker",
    advice="Digests are not signed: whoever rewrites an object and every list of it is seen by "
    "none of these checks, but who forgets one set is. Compare with a copy of the repository "
    "that this machine cannot write to, and keep such a copy.",
)
def sets_agree(backups: KafkaBackups) -> Iterator[Observation]:
    """An object that several topic archives share is the same in the lists of all."""
    first: dict[str, tuple[str, int, str]] = {}
    differing: dict[str, str] = {}
    for label in backups.sets.labels(archive.KIND):
        try:
            backup = backups.sets.get(label)
        except PipelineError as error:
            yield Observation(label, str(error))
            continue
        for entry in backup.manifest.objects:
            old = first.setdefault(entry.key, (label, entry.size, entry.sha256))
            if old[1:] != (entry.size, entry.sha256):
                differing[entry.key] = (
                    f"{old[0]} lists {old[1]} bytes, sha256 {old[2]}; {label} lists {entry.size} "
                    f"bytes, sha256 {entry.sha256}"
                )
    for key in first:
        yield Observation(key, differing.get(key))


@sets_agree.detects
def record_forged_with_its_lists(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """A record was changed, and batch, inventory, index and manifest made to agree with it."""
    forgery, number = Forgery.of(scratch, PLAIN, rng.randrange(2)), rng.randrange(3)
    records = forgery.records(number)
    records[0] = records[0]._replace(timestamp=records[0].timestamp + 1)
    forged = forgery.rewrite(number, records)
    forged.seal()
    return Damage(
        forged.index.segments[number].key, "one record has another time", says=" bytes, sha256 "
    )


@sets_agree.detects
def older_manifest_replaced(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """A manifest of an earlier run under the name of a later one."""
    label = rng.choice(scratch.copy.sets.labels(archive.KIND)[:-1])
    key = f"sets/{archive.KIND}/{label}/{MANIFEST}"
    newer = newest(scratch)
    return Damage(
        label,
        files.swap(scratch, key, newer.prefix + MANIFEST).what,
        says="the manifest is that of",
    )
