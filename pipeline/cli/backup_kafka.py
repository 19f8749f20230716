"""`pipeline backup topics|offsets`: what the brokers hold, and how far its groups have read."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from pipeline import config as configuration
from pipeline.cdc import point as consistency
from pipeline.cli.along import take_along
from pipeline.cli.backup_schemas import schemas_too
from pipeline.cli.shared import DEFAULT, Config, in_turn, say, to_write
from pipeline.config import PipelineConfig
from pipeline.kafka.archive import archive, losses
from pipeline.kafka.groups import groups
from pipeline.kafka.replay import replay_journal
from pipeline.kafka.replay.claims import HELD, claims, noted
from pipeline.repository.kinds import ACCEPTED, INCOMPLETE, is_whole
from pipeline.repository.sets import BackupSet, Manifest, Note, Repository

Gone = Annotated[
    list[str] | None,
    typer.Option(help="removed on purpose: older sets need not be kept for it; again for each"),
]


@in_turn
def backup_topics(
    *,
    config: Config = DEFAULT,
    topic: Annotated[list[str] | None, typer.Option(help="again for each; all without it")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="read everything again, not only what is new")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="about that many records of each topic, from its log start"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="leave out this topic, or all of a pattern as tmp-*; again for each"),
    ] = None,
    gone: Gone = None,
) -> None:
    """Archive topics as the brokers hold them, up to one common end.

    What an older archive or an interrupted run has stored is used again; the new set is complete by
    itself. A topic that cannot be archived whole stops no other. Ends with exit code 1 when there
    is one, when offsets are LOST, when the set holds less than the one before it, or a topic that a
    replay or recovery has not let go of: the set is committed, and names it.

    The schema registry is backed up beside it, where one is configured.
    """
    loaded = configuration.load(config)
    kept = to_write(loaded)
    taken, wrong = taken_topics(
        loaded,
        kept,
        topic or (),
        full=full,
        limit=limit,
        exclude=exclude or (),
        gone=gone or (),
    )
    schemas_too(loaded, kept, taken if is_whole(taken.manifest) else None)
    take_along(loaded, kept)
    _end(taken, wrong)


def taken_topics(
    loaded: PipelineConfig,
    kept: Repository,
    topics: Sequence[str] = (),
    *,
    full: bool = False,
    limit: int | None = None,
    exclude: Sequence[str] = (),
    gone: Sequence[str] = (),
) -> tuple[BackupSet, list[str]]:
    """Archive topics, and say what the set must not pass for."""
    began, judged = claims(loaded), _judged(loaded, kept, gone)

    def note(manifest: Manifest) -> dict[str, Any]:
        facts = noted(manifest, began, claims(loaded))
        changed = manifest.model_copy(update={"facts": manifest.facts | facts})
        return facts | judged(changed)

    taken = archive.take(
        loaded,
        kept,
        topics,
        say,
        full=full,
        limit=limit,
        exclude=exclude,
        partly=True,
        reach=partial(consistency.reach, loaded),
        note=note,
    )
    return taken, [*archive.lost(taken), *_told(taken)]


@in_turn
def backup_offsets(config: Config = DEFAULT, gone: Gone = None) -> None:
    """Committed offsets of every consumer group, and which record each would read next.

    Ends with exit code 1 when a group cannot be read, or what stands at its offsets, and when
    groups lack offsets that the set before has: this set is committed, and names them.
    """
    loaded = configuration.load(config)
    kept = to_write(loaded)
    taken, wrong = taken_offsets(loaded, kept, gone=gone or ())
    take_along(loaded, kept)
    schemas_too(loaded, kept)
    _end(taken, wrong)


def taken_offsets(
    loaded: PipelineConfig, kept: Repository, *, gone: Sequence[str] = ()
) -> tuple[BackupSet, list[str]]:
    """Back up the offsets of groups, and say what the set must not pass for."""
    note = _judged(loaded, kept, gone)
    taken = groups.take(loaded, kept, say, partly=True, note=note)
    return taken, list(_told(taken))


def _judged(config: PipelineConfig, kept: Repository, gone: Sequence[str]) -> Note:
    """Hold a set against those before it; what these lost is said again, and what is new noted."""

    def note(manifest: Manifest) -> dict[str, Any]:
        accepted = {ACCEPTED: list(gone)} if gone else {}
        like = manifest.model_copy(update={"facts": manifest.facts | accepted})
        found = losses.of_repository(
            kept, like, replay_journal.made(config.repository.path), say
        ).values()
        for loss in found:
            if loss.missed_by != manifest.label:
                say(f"{manifest.label}: still {loss}: {_advice(loss.name)}")
        new = {
            loss.name: {"set": loss.held_by, "why": loss.why}
            for loss in found
            if loss.missed_by == manifest.label
        }
        return accepted | ({losses.FACT: new} if new else {})

    return note


def _told(taken: BackupSet) -> Iterator[str]:
    """Say what this set must not pass for."""
    facts = taken.manifest.facts
    for name, why in facts.get(INCOMPLETE, {}).items():
        yield f"{name} is not whole: {why}"
    for name, replay in facts.get(HELD, {}).items():
        yield f"{name}: {replay} still holds its retention; its own configuration was archived"
    for name, told in facts.get(losses.FACT, {}).items():
        yield f"{name} {told['why']}, {told['set']} holds it: {_advice(name)}"


def _advice(name: str) -> str:
    return f"restore it from there, or say --gone {name.rpartition(' in ')[0] or name!r}"


def _end(taken: BackupSet, wrong: list[str]) -> None:
    for line in wrong:
        say(f"{taken.label}: {line}; the set is committed, and names it")
    say(taken.label)
    if wrong:
        raise typer.Exit(1)
