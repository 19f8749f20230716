"""Topics that CDC does not feed, lost on a broker alone, and judged against the ledger."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from typer.testing import CliRunner, Result

from fixtures.faults.outages import Outage
from fixtures.faults.topics import (
    damage_log_segment,
    damage_topic_archive,
    delete_records,
    delete_topics,
    recreate_topic,
)
from fixtures.kafka_story import commit
from fixtures.stacks.protocol import Stack
from fixtures.workload.topics import OWN_TOPICS
from pipeline.cli import app
from pipeline.errors import LossNotAccepted, RecoveryRefused, RestoreError
from pipeline.kafka.archive import archive
from pipeline.kafka.groups import groups
from pipeline.kafka.replay.target_topic import existing
from pipeline.runbooks.topic_evidence import Facts
from pipeline.runbooks.topic_loss import TopicRecovery
from pipeline.wait import wait_until
from tests.kafka import topics
from tests.kafka.readers import forget_if_there
from tests.kafka.shop import Shop

pytestmark = pytest.mark.stack


@pytest.fixture
def shop(broker: Stack, tmp_path: Path, seed: int) -> Iterator[Shop]:
    made = Shop(broker, tmp_path, seed)
    with made.clients as running:
        running.pause()
        running.write(300)
        yield made
    admin = topics.admin(broker.config.kafka)
    there = set(admin.list_topics(timeout=10).topics) & set(OWN_TOPICS)
    if there:
        delete_topics(*there)(broker)
    forget_if_there(broker.config.kafka, "reader")


NOT_EXPLAINED = "retention does not explain"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (delete_topics("clicks"), "clicks: it is gone"),
        (delete_records("clicks"), NOT_EXPLAINED),
        (damage_log_segment("clicks", Random(1)), "CRC-32C"),
        (recreate_topic("clicks", 1), "1 partitions, archived 3"),
    ],
    ids=["deleted", "records-deleted", "segment-damaged", "made-anew"],
)
def test_the_extent_is_found_and_the_archive_comes_back(
    shop: Shop, fault: Outage, found: str
) -> None:
    backup = shop.back_up()
    assert shop.findings(backup) == ""
    fault(shop.broker)
    told = shop.findings(backup)
    assert found in told
    assert "profiles" not in told
    shop.recovery("clicks", lose=("clicks",)).run()
    assert shop.damage() == {}
    shop.clients.write(60)
    assert shop.damage() == {}


def test_a_topic_that_cannot_be_kept_is_not_removed_unless_told(shop: Shop) -> None:
    shop.back_up()
    damage_log_segment("clicks", Random(1))(shop.broker)
    before = existing(shop.config.kafka, "clicks")
    with pytest.raises(LossNotAccepted, match=r"clicks: a batch cannot be read.*--lose clicks"):
        shop.recovery("clicks").run()
    assert existing(shop.config.kafka, "clicks") == before


def test_what_came_after_the_archive_is_lost_and_no_more(shop: Shop) -> None:
    shop.back_up()
    shop.clients.write(150)
    delete_topics("clicks", "profiles")(shop.broker)
    shop.recovery("clicks", "profiles").run()
    found = shop.damage()
    assert found.pop("lost") > 0
    assert set(found) <= {"stale", "resurrected"}  # of the compacted topic


@pytest.mark.slow
def test_what_is_still_there_goes_behind_the_archive(shop: Shop) -> None:
    """Records are deleted, and others written since: these keep their offsets, none is lost."""
    shop.back_up()
    ends = delete_records("clicks", "transfers")(shop.broker)
    shop.clients.write(150)
    shop.recovery("clicks", "transfers").run()
    assert shop.damage() == {}, ends


@pytest.mark.slow
def test_groups_read_on_from_where_they_were(shop: Shop) -> None:
    """A topic's deletion takes its groups' offsets with it; newer ones are kept before it."""
    kafka = shop.config.kafka
    commit(kafka, "reader", TopicPartition("clicks", 0, 5, "old"))
    shop.back_up()
    commit(kafka, "reader", TopicPartition("clicks", 0, 9, "new"))
    delete_records("clicks")(shop.broker)
    shop.recovery("clicks").run()
    (position,) = next(iter(groups.committed(kafka, ("reader",)))).positions
    assert (position.offset, position.metadata) == (9, "new")
    delete_topics("clicks")(shop.broker)
    shop.recovery("clicks").run()
    (position,) = next(iter(groups.committed(kafka, ("reader",)))).positions
    assert position.metadata in {"old", "new"}


@pytest.mark.slow
def test_killed_anywhere_it_goes_on(shop: Shop) -> None:
    """After every step the recovery dies once, and another one takes its journal."""
    shop.back_up()
    delete_records("clicks")(shop.broker)
    shop.clients.write(60)
    steps: list[str] = []
    recovery = shop.recovery("clicks")

    def die(step: str, _facts: Facts) -> None:
        steps.append(step)
        raise KeyboardInterrupt

    for _ in range(20):
        again = shop.recovery("clicks", journal=recovery.journal)
        again.observe = die
        try:
            again.run()
        except KeyboardInterrupt:
            continue
        break
    assert steps[0] == "find_extent"
    assert steps[-1] == "verify"
    assert shop.damage() == {}


@pytest.mark.slow
@pytest.mark.parametrize("at", ["offsets 0 to", "clicks[2] proven"])
def test_killed_inside_a_replay_it_goes_on(shop: Shop, at: str) -> None:
    shop.back_up()
    delete_records("clicks")(shop.broker)
    shop.clients.write(60)
    recovery = shop.recovery("clicks")

    def die(line: str) -> None:
        if at in line:
            raise KeyboardInterrupt

    recovery.progress = die
    with pytest.raises(KeyboardInterrupt):
        recovery.run()
    shop.recovery(journal=recovery.journal).run()
    assert shop.damage() == {}


def test_the_command_goes_on_as_it_says(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints last needs no topic and no way again, only the cluster's id."""
    shop.back_up()
    delete_records("clicks")(shop.broker)
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{shop.config.kafka.bootstrap_servers}"\n'
        f'[repository]\npath = "{shop.config.repository.path}"\n'
    )

    def ask(*words: str, identity: str = shop.broker.nonce) -> Result:
        asked = ["recover", "topics", *words, "--identity", identity, "--config", str(file)]
        return CliRunner().invoke(app, asked)

    with monkeypatch.context() as dying:
        dying.setattr(TopicRecovery, "remove", _die)
        died = ask("--topic", "clicks")
    *_, again = died.output.partition("to go on: pipeline recover topics ")
    words = again.split()
    assert words[0] == "--resume", died.output
    assert "leave --topic out" in str(ask(*words, "--topic", "profiles").exception)
    assert "typed 'another'" in str(ask(*words, identity="another").exception)
    done = ask(*words)
    assert done.exit_code == 0, done.output
    assert shop.damage() == {}


def _die(_: TopicRecovery) -> Facts:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_topic_that_cannot_be_read_does_not_keep_another_from_it(shop: Shop) -> None:
    """Only what can be read is kept, and goes behind the archive."""
    shop.back_up()
    damage_log_segment("clicks", Random(1))(shop.broker)
    delete_records("transfers")(shop.broker)
    shop.clients.write(60)
    shop.recovery("clicks", "transfers", lose=("clicks",)).run()
    found = shop.damage()
    found.pop("lost", None)  # of clicks, behind the archive's end
    assert found == {}


@pytest.mark.slow
def test_partitions_added_since_the_archive_are_named(shop: Shop) -> None:
    """The topic comes back as it was archived; what has no place there is kept, and said."""
    backup = shop.back_up()
    admin = topics.admin(shop.config.kafka)
    admin.create_partitions([NewPartitions("clicks", 4)])["clicks"].result()
    wait_until(
        "the partition is known",
        lambda: None if "4 partitions, archived 3" in shop.findings(backup) else "not yet",
        within=topics.WITHIN,
    )
    said: list[str] = []
    recovery = shop.recovery("clicks")
    recovery.progress = said.append
    recovery.run()
    assert any("NOT brought back: partitions 3, added since" in line for line in said)
    assert list(recovery.done["replay"]["not_brought_back"]) == ["clicks"]
    assert shop.damage() == {}


def test_nothing_is_touched_from_a_damaged_archive(shop: Shop, seed: int) -> None:
    shop.back_up()
    delete_records("clicks")(shop.broker)
    damage_topic_archive(shop.broker, Random(seed))
    with pytest.raises(RestoreError, match=r"the archive .* is damaged"):
        shop.recovery("clicks").run()
    assert set(OWN_TOPICS) <= set(topics.admin(shop.config.kafka).list_topics(timeout=10).topics)


def test_a_topic_made_while_the_point_is_waited_for_is_archived(shop: Shop) -> None:
    """As a connector does with a table's first event; without its topic the point is a lie."""
    kafka, made = shop.config.kafka, []

    def reach(*_: object, **__: object) -> dict[str, object]:
        made.append(topics.create(kafka, "late"))
        return {"point": None}

    backup = archive.take(shop.config, shop.repository, reach=reach)
    assert made[0] in backup.manifest.facts["topics"]


def test_what_is_sound_or_another_cluster_is_not_replaced(shop: Shop) -> None:
    shop.back_up()
    with pytest.raises(RecoveryRefused, match="nothing is wrong with clicks"):
        shop.recovery("clicks").run()
    stranger = shop.recovery("clicks")
    stranger.identity = "another"
    with pytest.raises(RecoveryRefused, match="typed 'another'"):
        stranger.run()
