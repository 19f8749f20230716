"""The logs of replays in the repository: opened, opened again, looked through."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.kafka.replay.offset_map import OBJECT
from pipeline.repository.journal import FILE, FOLDER, Journal

KIND = "topic"


def new_journal(config: PipelineConfig, topic: str) -> Journal:
    """Open the log of a new replay."""
    # a folder's name has at most 255 bytes, a topic's nearly as many letters
    return journal_of(config, f"{KIND}-{topic[:100]}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")


def journal_of(config: PipelineConfig, name: str) -> Journal:
    """The log of the replay of this name."""
    return Journal(config.repository.path / FOLDER / name)


def reopened(config: PipelineConfig, name: str) -> tuple[Journal, dict[str, Any]]:
    """The log of an interrupted replay, and what it says that was wished."""
    journal = Journal.named(config.repository.path, KIND, name)
    told = journal.done().get("plan")
    if told is None:
        raise ConfigError(f"{name} was refused before it began: start a new replay")
    return journal, told


def unfinished(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    """Replays that began and did not end, each with its topic: whoever reads that is misled."""
    for journal in Journal.every(config.repository.path, KIND):
        done = journal.done()
        if "target" in done and "replay" not in done:
            yield journal.recovery, done["target"]["topic"]


def made(repository: Path) -> set[str]:
    """Ids of the topics that replays brought back and proved, and that recoveries made anew."""
    each = [Journal(path.parent).done() for path in (repository / FOLDER).glob(f"*/{FILE}")]
    proven = {done["target"]["topic_id"] for done in each if "target" in done and "replay" in done}
    targets = (told["targets"] for told in _steps(repository) if "targets" in told)
    return proven | {topic_id for ids in targets for topic_id in ids.values()}


def made_empty(repository: Path) -> set[str]:
    """Ids of the topics that recoveries made without records: others filled them since."""
    return {
        told["targets"][name]
        for told in _steps(repository)
        for name in told.get("made_empty", ())
        if "targets" in told
    }


def _steps(repository: Path) -> Iterator[dict[str, Any]]:
    """What the finished steps of all recoveries answered."""
    for path in (repository / FOLDER).glob(f"*/{FILE}"):
        yield from Journal(path.parent).done().values()


def map_key(name: str) -> str:
    """Key of the offset map that a replay wrote."""
    return f"{FOLDER}/{name}/{OBJECT}"
