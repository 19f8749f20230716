"""Whatever shape CDC has, a recovery ends with topics that tell exactly what the tables hold.

A new shape is one entry of SHAPES.
"""

from functools import partial
from pathlib import Path

import pytest

from fixtures.faults.topics import delete_topics
from fixtures.stacks.native import NativeStack
from pipeline.cdc import point as consistency
from pipeline.config import CdcConfig
from pipeline.kafka.archive import archive
from pipeline.kafka.groups import groups
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.replication.publications import find_publication
from pipeline.postgres.replication.slots import find_slot
from pipeline.postgres.server.session import connect
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import reconnect
from pipeline.runbooks.point_in_time import PointInTimeRecovery
from pipeline.runbooks.point_in_time import new_recovery as new_point_in_time
from pipeline.runbooks.topic_asked import Asked
from pipeline.runbooks.topic_loss import TopicRecovery, new_recovery
from tests.recovery.history import Source
from tests.shapes.cdc import OTHER, Shape, Shaped, shaped
from tests.shapes.green import not_green

pytestmark = pytest.mark.stack
JSON = "org.apache.kafka.connect.json.JsonConverter"
_OURS = CdcConfig(slot="ours_slot", publication="ours", topic_prefix="our-db_1.x")


def _json(part: str, *, schemas: bool) -> dict[str, str]:
    return {f"{part}.converter": JSON, f"{part}.converter.schemas.enable": str(schemas).lower()}


SHAPES = {
    "defaults": Shape(registry=False),
    "json-with-schemas": Shape(_json("key", schemas=True) | _json("value", schemas=True)),
    "keys-with-schemas-values-without": Shape(
        _json("key", schemas=True) | _json("value", schemas=False)
    ),
    "json-keys-avro-values": Shape(_json("key", schemas=False), avro=["value"]),
    "avro-keys-json-values": Shape(_json("value", schemas=True), avro=["key"]),
    "a-failover-slot-and-a-neighbour": Shape(
        publishes=True, failover=True, neighbour=True, cdc=_OURS
    ),
    "beside-a-failover-slot": Shape(publishes=True, neighbour=True, cdc=_OURS),
}
REMOVED = "DELETE FROM {} WHERE g <= 5"
CHANGED = "UPDATE {} SET note = g || '/2' WHERE g BETWEEN 4 AND 12"
ADDED = "INSERT INTO {} SELECT g, g || '/2', {key} FROM generate_series(31, 36) g"
UNWANTED = (
    "DELETE FROM {} WHERE g BETWEEN 10 AND 15",
    "UPDATE {} SET note = g || '/3' WHERE g BETWEEN 16 AND 20",
    "INSERT INTO {} SELECT g, g || '/3', {key} FROM generate_series(41, 47) g",
)


@pytest.fixture
def clean(stack: NativeStack) -> NativeStack:
    stack.make_clean()
    return stack


def test_cdc_comes_back_when_rows_changed_without_an_event(stack: NativeStack) -> None:
    """What a restore does to CDC, without one: no slot, no publication, other rows."""
    shape = SHAPES["a-failover-slot-and-a-neighbour"]
    with shaped(stack, shape) as made, connect(made.config.postgres, autocommit=True) as connection:
        publication = find_publication(connection, made.config.cdc.publication)
        slot = find_slot(connection, made.config.cdc.slot)
        assert publication is not None
        assert slot is not None
        theirs = made.connect.offsets("theirs")
        made.write(*UNWANTED)
        made.wait_told()
        reconnect.stopped(made.config)
        made.run(
            f"SELECT pg_drop_replication_slot('{slot.name}')",
            f"DROP PUBLICATION {publication.name}",
        )
        made.write("DELETE FROM {} WHERE g > 40", CHANGED)
        facts = {"publication": publication.facts(), "slots": [slot.facts()]}
        reconnect.after_restore(made.config, connection, facts, "recovery-1", lambda _: None)
        made.wait_told()
        again = find_slot(connection, made.config.cdc.slot)
        assert again is not None
        assert again.failover is True
        assert made.connect.offsets("theirs") == theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_a_database_and_topics_are_recovered(clean: NativeStack, tmp_path: Path, name: str) -> None:
    with shaped(clean, SHAPES[name]) as made:
        made.write(REMOVED, CHANGED)
        source = Source(clean)
        base = source.back_up("one")
        made.write(ADDED)
        wanted = made.wait_told()
        unwanted = made.write(*UNWANTED)
        made.wait_told()
        source.expect(source.flushed())
        journal = new_point_in_time(made.config)
        identity = base.manifest.facts["system_identifier"]
        before = Target.parse(f"before:xid:{unwanted}")
        others = [OTHER.slot] if made.shape.neighbour else []
        PointInTimeRecovery(made.config, before, journal, identity, without_slots=others).run()
        assert made.wait_told() == wanted
        source.back_up("two")
        _topics_are_lost(clean, made)
        assert not_green(made.config, tmp_path, {"cdc", "kafka"}) == []


def _topics_are_lost(stack: NativeStack, made: Shaped) -> None:
    repository = Repository(FolderStore(made.config.repository.path))
    groups.take(made.config, repository)
    archive.take(made.config, repository, reach=partial(consistency.reach, made.config))
    made.write(*UNWANTED)
    made.wait_told()
    lost = made.topics[::2]
    delete_topics(*lost)(stack)
    TopicRecovery(made.config, Asked(lost), new_recovery(made.config), stack.nonce).run()
    made.wait_told()
    made.write("UPDATE {} SET note = g || '/4' WHERE g < 10")
    made.wait_told()
    groups.take(made.config, repository)
    archive.take(made.config, repository, reach=partial(consistency.reach, made.config))
