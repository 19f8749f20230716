"""An archive asks the journals: what is half written, or held, does not pass for the topic."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.kafka.replay.claims import HELD, claims, noted
from pipeline.kafka.replay.target_topic import HELD as SETTINGS
from pipeline.repository.journal import FOLDER, Journal
from pipeline.repository.kinds import INCOMPLETE
from tests.sets import committed, topics

OWN = {"retention.ms": "86400000"}
TARGET = {"topic": "orders", "topic_id": "1", "overrides": OWN}
HOLDING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("target", TARGET),
    ("give_back", {"held": True}),
    ("replay", {}),
)


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return PipelineConfig(repository=RepositoryConfig(path=tmp_path))


def told(config: PipelineConfig, name: str, *steps: tuple[str, dict[str, Any]]) -> None:
    journal = Journal(config.repository.path / FOLDER / name)
    for step, facts in steps:
        journal.write(step, "done", **facts)


def archived(config: PipelineConfig, life: str = "1", **overrides: str) -> dict[str, Any]:
    """What is noted of an archive that holds `orders` as a replay holds it."""
    facts = topics(orders=life, sales="2")
    facts["topics"]["orders"]["overrides"] = overrides or dict(SETTINGS)
    backup = committed(config.repository.path, "topics", facts=facts)
    return noted(backup.manifest, {}, claims(config))


def test_a_topic_that_a_replay_writes_is_not_whole_and_has_its_own_configuration(
    config: PipelineConfig,
) -> None:
    told(config, "topic-orders-1", ("plan", {}), ("target", TARGET))
    found = archived(config)
    assert found[INCOMPLETE] == {"orders": "topic-orders-1 is not finished"}
    assert found["topics"]["orders"]["overrides"] == OWN
    assert found["topics"]["sales"]["overrides"] == {}


def test_a_topic_whose_retention_is_held_is_whole_and_has_its_own_configuration(
    config: PipelineConfig,
) -> None:
    told(config, "topic-orders-1", *HOLDING)
    found = archived(config, **OWN | {"retention.ms": "-1", "retention.bytes": "-1"})
    assert INCOMPLETE not in found
    assert found[HELD] == {"orders": "topic-orders-1"}
    assert found["topics"]["orders"]["overrides"] == OWN


@pytest.mark.parametrize(
    ("life", "overrides"),
    [("3", {}), ("1", {"retention.ms": "1000"})],
    ids=["made anew since", "given another retention since"],
)
def test_what_the_journal_does_not_mean_is_archived_as_it_is(
    config: PipelineConfig, life: str, overrides: dict[str, str]
) -> None:
    told(config, "topic-orders-1", *HOLDING)
    found = archived(config, life, **overrides)
    assert {INCOMPLETE, HELD}.isdisjoint(found)
    assert found["topics"]["orders"]["overrides"] == (overrides or SETTINGS)


def test_the_last_replay_of_a_topic_decides(config: PipelineConfig) -> None:
    told(config, "topic-orders-1", ("target", TARGET))
    again = TARGET | {"topic_id": "3"}
    told(config, "topic-orders-2", ("target", again), ("give_back", {}), ("replay", {}))
    assert claims(config) == {}


@pytest.mark.parametrize(
    ("steps", "half"),
    [
        ((), set()),
        (("remove",), {"orders", "sales"}),
        (("remove", "replay"), {"sales"}),
        (("remove", "replay", "verify"), set()),
    ],
)
def test_a_recovery_has_its_topics_from_their_removal_on(
    config: PipelineConfig, steps: tuple[str, ...], half: set[str]
) -> None:
    facts = {"replay": {"made_empty": ["sales"]}}
    told(config, "topics-1", ("find_extent", {"topics": ["orders", "sales"]}))
    told(config, "topics-1", *((step, facts.get(step, {})) for step in steps))
    assert set(archived(config).get(INCOMPLETE, ())) == half


def test_a_first_replay_of_a_recovery_does_not_finish_it(config: PipelineConfig) -> None:
    """What was kept behind the archive's end is a second replay, which has not begun."""
    told(config, "topics-1", ("find_extent", {"topics": ["orders"]}), ("remove", {}))
    journal = Journal(config.repository.path / FOLDER / "topics-1")
    journal.write("replay", "began", wish="Wish(…)", name="topic-orders-1")
    told(config, "topic-orders-1", ("target", TARGET), ("replay", {}))
    assert archived(config)[INCOMPLETE] == {"orders": "topics-1 is not finished"}
    told(config, "topic-orders-2", ("target", TARGET), ("replay", {}))  # begun by itself
    assert claims(config) == {}


def test_what_ended_while_it_was_archived_was_half_written(config: PipelineConfig) -> None:
    told(config, "topic-orders-1", ("target", TARGET))
    before = claims(config)
    told(config, "topic-orders-1", ("give_back", {}), ("replay", {}))
    backup = committed(config.repository.path, "topics", facts=topics(orders="1"))
    assert noted(backup.manifest, before, claims(config))[INCOMPLETE].keys() == {"orders"}
