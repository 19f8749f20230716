"""Increments: what an incremental backup holds instead of whole files, and what they change."""

from collections.abc import Iterator
from random import Random

from checks.check import Observation, check
from checks.increments import refuse_unread
from checks.links import named
from checks.pages import changed_file
from checks.subjects import BaseBackup
from fixtures.faults import backups, files, increments
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError
from pipeline.postgres.base import chain
from pipeline.postgres.base.server_manifest import NAME

_MAGIC = 4  # bytes


@check(
    "base.increments-combine",
    on=BaseBackup,
    severity="blocker",
    advice="pg_combinebackup would refuse this chain, or make a file of zeros and old blocks: "
    "restore from the full set below, with the archived WAL, and take a new full backup now.",
)
def increments_combine(base: BaseBackup) -> Iterator[Observation]:
    """Every increment is laid out as PostgreSQL writes it, and the file it changes lies below."""
    links = list(base.links())
    for place, link in enumerate(links):
        label, held = link.manifest.label, link.contents.increments
        full = link.facts.get(chain.PARENT) is None
        stub = "it holds increments, and its manifest names no set on which it builds"
        yield Observation(label, stub if full and held else None)
        for name, problem in held.items():
            told = problem or _without_file(name, links[place + 1 :])
            yield Observation(name if link is base else named(label, name), told)
        _refuse_half(link)


def _refuse_half(link: BaseBackup) -> None:
    """Raise BackupError where a set was not read to its end: what lies there was not examined."""
    contents = link.contents
    for key, problem in contents.trouble.items():
        raise BackupError(f"{key}: {problem}")
    if link.facts.get(chain.PARENT) is not None:
        listed = contents.kept.get(NAME, b"")
        refuse_unread(link.backup, listed, set(contents.increments))


def _without_file(name: str, below: list[BaseBackup]) -> str | None:
    """Look for the file as pg_combinebackup does: set by set, until one holds all of it."""
    whole = changed_file(name)
    for link in below:
        if whole in link.contents.files:
            return None
        if name not in link.contents.files:
            return f"{link.manifest.label} holds neither {whole} nor an increment of it"
    return f"no set below holds {whole}"


@increments_combine.detects_in_a_chain
def file_below_left_out(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """An exclude rule on the day of the full backup: every list of it agrees."""
    full, *_ = backups.links(scratch)
    name = some_increment(scratch, rng)
    left_out = changed_file(name)
    backups.repack(
        scratch,
        lambda found, content: None if found == left_out else content,
        forged=True,
        backup=full,
    )
    return Damage(
        name,
        f"{left_out} was left out of {full.label}, all lists agree",
        says="nor an increment of it",
    )


@increments_combine.detects_in_a_chain
def increment_cut(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A file that was cut while it was sent, before it was listed."""
    name = some_increment(scratch, rng)
    increments.change_increment(
        scratch, name, lambda content: content[: -rng.randrange(1, len(content) // 2)]
    )
    return Damage(
        name, "its end was cut off, all lists agree", says="that its header names are missing"
    )


@increments_combine.detects_in_a_chain
def increment_of_nothing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A bit of its first number: nothing reads it before the restore."""
    name = some_increment(scratch, rng)
    increments.change_increment(
        scratch, name, lambda content: files.flipped(content, rng, stop=_MAGIC)
    )
    return Damage(
        name, "a bit of its magic number was flipped, all lists agree", says="it begins with"
    )


def some_increment(scratch: Scratch[BaseBackup], rng: Random) -> str:
    """One of the newest backup with several blocks, all of them older than it."""
    copy = scratch.copy
    held = copy.contents.increments
    pages = ((name, copy.contents.pages[name]) for name in held)
    return rng.choice(
        sorted(name for name, seen in pages if seen.pages > 3 and seen.newest < copy.start)
    )
