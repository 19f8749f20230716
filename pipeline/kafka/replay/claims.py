"""Topics that a replay or a recovery has in its hands: what they hold now is not what they are.

The journals tell. A topic that is half written is no backup of it, and the settings under which a
replay holds it are not its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.kafka.replay.target_topic import RETENTION
from pipeline.repository.journal import FILE, FOLDER, Journal
from pipeline.repository.kinds import INCOMPLETE
from pipeline.repository.sets import Manifest

HELD = "retention_held"
"""The fact that names topics whose retention a replay still holds, each with that replay."""
Facts = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """What a journal says of a topic. `topic_id` is None for whatever life it has."""

    by: str
    topic_id: str | None
    overrides: Mapping[str, str] | None
    """The topic's own, which are due when the replay lets go of it; None where unknown."""
    held: bool = False
    """It was proven, and only its retention is still held."""

    def touches(self, told: Facts) -> bool:
        """Whether the topic as it was archived is the one that the journal means."""
        if self.topic_id not in {None, told["topic_id"]}:
            return False
        return not self.held or RETENTION.items() <= told["overrides"].items()


def claims(config: PipelineConfig) -> dict[str, Claim]:
    """Read every journal; the last one that had a topic decides."""
    found: dict[str, Claim] = {}
    own: dict[str, list[str]] = {}
    folder = config.repository.path / FOLDER
    journals = [Journal(path.parent) for path in folder.glob(f"*/{FILE}")]
    for journal in sorted(journals, key=_begun):
        done = journal.done()
        for topic, claim in _of_recovery(journal, done):
            found.pop(topic, None)
            if claim is not None:
                found[topic] = claim
                own[claim.by] = [line["name"] for line in journal.lines() if "wish" in line]
        if "target" not in done:
            continue
        topic = done["target"]["topic"]
        if journal.recovery in own.get(found[topic].by if topic in found else "", ()):
            continue  # a part of what is not finished
        found.pop(topic, None)
        if (claim := _of_replay(journal, done)) is not None:
            found[topic] = claim
    return found


def noted(manifest: Manifest, before: Mapping[str, Claim], now: Mapping[str, Claim]) -> Facts:
    """Say what an archive must not pass for, by the claims when it began and when it ends."""
    unfinished = {topic: claim for topic, claim in before.items() if not claim.held}
    topics: dict[str, Facts] = dict(manifest.facts["topics"])
    incomplete, held = dict(manifest.facts.get(INCOMPLETE, {})), dict[str, str]()
    for name, claim in {**now, **unfinished}.items():
        if name not in topics or not claim.touches(topics[name]):
            continue
        if claim.overrides is not None:
            topics[name] = topics[name] | {"overrides": dict(claim.overrides)}
        if claim.held:
            held[name] = claim.by
        else:
            incomplete.setdefault(name, f"{claim.by} is not finished")
    facts: Facts = {INCOMPLETE: incomplete} if incomplete else {}
    return {"topics": topics, **facts, **({HELD: held} if held else {})}


def _begun(journal: Journal) -> str:
    return str(next((line["utc"] for line in journal.lines()), ""))


def _of_recovery(journal: Journal, done: Mapping[str, Facts]) -> Iterator[tuple[str, Claim | None]]:
    """Topics that a recovery takes away until it has brought them back."""
    if "topics" not in done.get("find_extent", ()):
        return
    topics = done["find_extent"]["topics"]
    if "verify" not in done:
        if not any(line["step"] == "remove" for line in journal.lines()):
            return
        if "replay" in done:  # what is read again is filled behind that
            topics = done["replay"].get("made_empty", ())
    for topic in topics:
        unfinished = Claim(journal.recovery, None, None)
        yield topic, None if "verify" in done else unfinished


def _of_replay(journal: Journal, done: Mapping[str, Facts]) -> Claim | None:
    target, name = done["target"], journal.recovery
    if "replay" not in done:
        return Claim(name, target["topic_id"], target["overrides"])
    if done.get("give_back", {}).get("held"):
        return Claim(name, target["topic_id"], target["overrides"], held=True)
    return None
