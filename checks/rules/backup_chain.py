"""Chains of base backups: an incremental one is worth as much as every set below it."""

from collections.abc import Iterator
from random import Random

from checks.check import Observation, check
from checks.links import named
from checks.rules.backup import FACTS, facts_complete, objects_match_manifest
from checks.subjects import BackupRepository, BaseBackup
from fixtures.faults import backups, files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError, RestoreError
from pipeline.postgres.base import base_backup, chain
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import BackupSet


@check(
    "backup.chains-unbroken",
    on=BackupRepository,
    severity="blocker",
    advice="What builds on this set is lost with it, and no older moment can be reached from "
    "there: take a full backup now, and find out what removes or replaces sets besides "
    "`pipeline retain`.",
)
def chains_unbroken(repository: BackupRepository) -> Iterator[Observation]:
    """Every set on which a base backup builds is here, is that one, and is of its server."""
    for label in repository.sets.labels(base_backup.KIND):
        try:
            backup = repository.sets.get(label)
        except BackupError as error:
            yield Observation(label, str(error))
            continue
        yield Observation(chain.parent_label(backup) or label, _broken(backup))


def _broken(backup: BackupSet) -> str | None:
    """Tell why the set right below is not the one that this one was taken on."""
    try:
        chain.parent(backup)
    except RestoreError as error:
        return str(error)
    return None


@chains_unbroken.detects_in_a_chain
def parent_removed(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A lifecycle rule that expires what is old, and not what is in use."""
    lost = rng.choice(backups.links(scratch)[:-1])
    backups.remove_set(scratch, lost)
    return Damage(lost.label, "the whole set is gone", says="which is gone")


@chains_unbroken.detects_in_a_chain
def parent_exchanged(scratch: Scratch[BackupRepository], _rng: Random) -> Damage:
    """Another backup of the same server under the parent's label, with a good seal of its own."""
    full, middle, newest = backups.links(scratch)
    body = newest.manifest.model_dump() | {"label": middle.label}
    body["facts"] = {**body["facts"], chain.PARENT: chain.as_fact(full)}
    backups.write_manifest(scratch, body)
    return Damage(
        middle.label, f"it is a copy of {newest.label} now", says="but its manifest has sha256"
    )


@chains_unbroken.detects_in_a_chain
def parent_edited(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Somebody corrected a manifest by hand, and made its seal anew."""
    edited = rng.choice(backups.links(scratch)[:-1])
    return Damage(
        edited.label,
        backups.change_fact(scratch, "database", "other", edited).what,
        says="but its manifest has sha256",
    )


@chains_unbroken.detects_in_a_chain
def links_in_the_wrong_order(scratch: Scratch[BackupRepository], _rng: Random) -> Damage:
    """Two links that changed places, each noting the other's digest as it is now."""
    full, middle, newest = backups.links(scratch)
    backups.change_fact(scratch, chain.PARENT, chain.as_fact(full), newest)
    moved = backups.found(scratch, newest)
    backups.change_fact(scratch, chain.PARENT, chain.as_fact(moved), middle)
    return Damage(newest.label, f"{middle.label} builds on it, and is older", says="but it ends at")


@chains_unbroken.detects_in_a_chain
def parent_of_another_system(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A repository that two servers share: the parent is the other one's."""
    full, *_ = backups.links(scratch)
    backups.change_fact(scratch, "system_identifier", str(rng.randrange(1 << 62)), full)
    backups.built_on_what_is_there(scratch)
    return Damage(
        full.label,
        "it is of another server, and every digest is right",
        says="but its system_identifier is",
    )


@chains_unbroken.detects_in_a_chain
def parent_of_another_branch(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The backup of a timeline that a recovery left: its blocks are of another history."""
    full, *_ = backups.links(scratch)
    backups.change_fact(scratch, "timeline", rng.randrange(2, 9), full)
    backups.built_on_what_is_there(scratch)
    return Damage(
        full.label,
        "it is of another timeline, and every digest is right",
        says="but its timeline is",
    )


@chains_unbroken.detects_in_a_chain
def parent_that_does_not_tell(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A full backup of another tool, whose manifest has no word for what proves the chain."""
    full, middle, _ = backups.links(scratch)
    name = rng.choice(chain.COMPARED)
    backups.drop_fact(scratch, name, full)
    stated = middle.manifest.facts[chain.PARENT]
    digest = chain.digest(backups.found(scratch, full))
    backups.change_fact(scratch, chain.PARENT, {**stated, "manifest": digest}, middle)
    as_it_is_now = chain.as_fact(backups.found(scratch, middle))
    backups.change_fact(scratch, chain.PARENT, as_it_is_now)
    return Damage(
        full.label,
        f"its manifest does not tell {name}, and every digest is right",
        says="does not tell",
    )


@chains_unbroken.detects_in_a_chain
def parent_that_ends_too_late(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Two backups at the same time: what changed while the parent ran is in neither."""
    *_, middle, newest = backups.links(scratch)
    end = Lsn(Lsn.parse(newest.manifest.facts["start_lsn"]) + rng.randrange(1, 1 << 20))
    backups.change_fact(scratch, "end_lsn", str(end), middle)
    backups.built_on_what_is_there(scratch)
    return Damage(
        middle.label,
        f"it ends at {end}, after the start of what builds on it",
        says="but it ends at",
    )


@objects_match_manifest.detects_in_a_chain
def object_of_a_parent_damaged(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Bit rot in the full backup, below increments that are whole."""
    below = rng.choice(backups.links(scratch)[:-1])
    return files.flip_bit(scratch, rng.choice(below.manifest.objects).key, rng).told_as(
        "expected sha256"
    )


@objects_match_manifest.detects_in_a_chain
def parent_of_an_incremental_missing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A retention that counts sets, and not what they build on."""
    newest, lost = scratch.copy.manifest.label, rng.choice(backups.links(scratch)[:-1])
    backups.remove_set(scratch, lost)
    return Damage(newest, f"{lost.label}, on which it builds, was removed", says="which is gone")


@facts_complete.detects_in_a_chain
def fact_of_a_parent_missing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A full backup by an older version, below increments by this one.

    Without a fact that proves the chain nobody goes down to it: that is a broken chain.
    """
    full, *_ = backups.links(scratch)
    name = rng.choice(sorted(FACTS.keys() - set(chain.COMPARED)))
    backups.drop_fact(scratch, name, full)
    backups.built_on_what_is_there(scratch)
    return Damage(named(full.label, name), "the manifest does not tell it", says="found None")
