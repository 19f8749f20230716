"""`pipeline recover cdc` on one table: each state that the embedded servers can be brought into."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from psycopg import sql

from fixtures.stacks.connect import OFFSETS
from fixtures.stacks.native import NativeStack
from pipeline.errors import LossNotAccepted, RecoveryRefused
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.replay.target_topic import configure
from pipeline.postgres.replication.advance import flushed
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.postgres.wal.lsn import Lsn
from pipeline.runbooks.cdc import Asked, Way
from pipeline.wait import wait_until
from tests.cdc.recovering import Broken, broken

pytestmark = pytest.mark.stack

SOON = timedelta(seconds=60)


@pytest.fixture
def cdc(stack: NativeStack, tmp_path: Path) -> Iterator[Broken]:
    with broken(stack, tmp_path / "repository") as made:
        yield made


def slot_dropped(cdc: Broken) -> None:
    cdc.stop()
    drop_slot(cdc.source.connection, cdc.source.name)
    cdc.change()


def slot_made_again(cdc: Broken) -> None:
    slot_dropped(cdc)
    create_slot(cdc.source.connection, cdc.source.name)


def slot_advanced(cdc: Broken) -> None:
    cdc.stop()
    cdc.change()
    connection = cdc.source.connection
    to = [cdc.source.name, str(flushed(connection))]
    connection.execute("SELECT pg_replication_slot_advance(%s, %s)", to)


def offsets_deleted(cdc: Broken) -> None:
    cdc.stop()
    cdc.change()
    cdc.source.connect.delete_offsets(cdc.source.name)


def offset_beyond_the_wal(cdc: Broken) -> None:
    cdc.stop()
    cdc.change()
    cdc.patch(Lsn(1 << 40))


def offset_patched_ahead(cdc: Broken) -> None:
    """To where everything would be delivered: by its position it looks sound."""
    cdc.stop()
    cdc.change()
    cdc.patch(flushed(cdc.source.connection))


def offset_patched_behind(cdc: Broken) -> None:
    cdc.stop()
    [last] = cdc.source.connect.offsets(cdc.source.name)
    cdc.change()
    cdc.patch(Lsn(last.offset["lsn"] - 4096))


def publication_dropped(cdc: Broken) -> None:
    cdc.stop()
    name = sql.Identifier(cdc.source.name)
    cdc.source.connection.execute(sql.SQL("DROP PUBLICATION {}").format(name))
    cdc.change()


def publication_without_deletes(cdc: Broken) -> None:
    name = sql.Identifier(cdc.source.name)
    narrow = sql.SQL("ALTER PUBLICATION {} SET (publish = 'insert')").format(name)
    cdc.source.connection.execute(narrow)
    cdc.change()


def connector_deleted(cdc: Broken) -> None:
    cdc.source.connect.delete(cdc.source.name)
    cdc.change()


@pytest.mark.parametrize(
    ("fault", "told", "reread"),
    [
        pytest.param(slot_dropped, "is not there", True, id="slot-dropped"),
        *(
            pytest.param(*one, marks=pytest.mark.slow, id=one[0].__name__.replace("_", "-"))
            for one in (
                (slot_made_again, "its slot is ahead of its offset", True),
                (slot_advanced, "its slot is ahead of its offset", True),
                (offsets_deleted, "no offset is stored", True),
                (offset_patched_ahead, "is not in broken_", True),
                (offset_patched_behind, "its slot is ahead of its offset", True),
                (offset_beyond_the_wal, "ahead of the server's WAL", True),
                (publication_dropped, "is not there: no slot of before", True),
                (publication_without_deletes, "publish: expected", True),
                (connector_deleted, "is made again, STOPPED", False),
            )
        ),
    ],
)
def test_it_is_named_mended_and_every_row_is_told(
    cdc: Broken, fault: Callable[[Broken], None], told: str, *, reread: bool
) -> None:
    fault(cdc)
    rows = cdc.rows
    asked = Asked(secrets=cdc.secrets if fault is connector_deleted else None)
    planned = list(cdc.recovery(asked).plan())
    recovery = cdc.recovery(asked)
    recovery.run()
    assert told in "\n".join(cdc.said), cdc.said
    if fault is not offset_patched_ahead:  # only who stopped the consumer can tell
        assert told in "\n".join(planned), planned
    assert recovery.done["reconnect"]["reread"] is reread
    assert cdc.rows == rows
    cdc.recovered()


@pytest.mark.slow
def test_what_is_sound_goes_on_and_may_be_read_again_on_demand(cdc: Broken) -> None:
    cdc.change()
    recovery = cdc.recovery()
    recovery.run()
    assert (recovery.done["judge"]["needs"], recovery.done["reconnect"]["reread"]) == ([], False)
    cdc.recovered()
    again = cdc.recovery(Asked(way=Way.REREAD))
    again.run()
    assert again.done["reconnect"]["reread"] is True
    cdc.recovered()


@pytest.mark.slow
def test_a_secret_that_the_set_masked_is_asked_for_before_anything_is_touched(cdc: Broken) -> None:
    connector_deleted(cdc)
    with pytest.raises(RecoveryRefused, match=r"the set has database\.password masked"):
        cdc.recovery().run()
    assert cdc.source.connect.names() == []
    cdc.recovery(Asked(secrets=cdc.secrets)).run()
    cdc.recovered()


@pytest.mark.slow
def test_who_holds_the_slot_is_named_and_ended_only_by_its_number(cdc: Broken) -> None:
    """A hung process took the slot while the connector was stopped; its task cannot have it."""
    cdc.stop()
    cdc.change()
    with cdc.held() as pid:
        with pytest.raises(RecoveryRefused, match=f"is read by process {pid}, hung"):
            cdc.recovery().run()
        cdc.source.connect.resume(cdc.source.name)
        wait_until("a task that wants the slot", cdc.no_task_runs, within=SOON)
        recovery = cdc.recovery()
        with pytest.raises(LossNotAccepted, match=f"--terminate-pid {pid}"):
            recovery.run()
        wrong = cdc.recovery(Asked(terminate=pid + 1), recovery.journal)
        with pytest.raises(LossNotAccepted, match=f"--terminate-pid {pid}"):
            wrong.run()
        cdc.recovery(Asked(terminate=pid), recovery.journal).run()
    assert recovery.done["reconnect"]["reread"] is False
    cdc.recovered()


@pytest.mark.slow
def test_connectors_and_slots_of_others_are_left_as_they_are(
    cdc: Broken, stack: NativeStack
) -> None:
    with broken(stack, cdc.source.config.repository.path.parent / "other") as other:
        before = other.source.connect.status(other.source.name)
        slot_dropped(cdc)
        cdc.recovery().run()
        assert f"{other.source.name} is left alone: it reads slot" in "\n".join(cdc.said)
        assert other.source.connect.status(other.source.name) == before
        slot = find_slot(cdc.source.connection, other.source.name)
        assert slot is not None
        assert slot.active
        other.recovered()
    cdc.recovered()


@pytest.mark.slow
def test_topics_of_connect_that_are_deleted_by_age_are_compacted(cdc: Broken) -> None:
    kafka = cdc.source.config.kafka
    (before,) = describe(kafka, [OFFSETS])
    configure(kafka, OFFSETS, before.overrides | {"cleanup.policy": "delete"})
    told = list(cdc.recovery().plan())
    recovery = cdc.recovery()
    recovery.run()
    (after,) = describe(kafka, [OFFSETS])
    assert f"{OFFSETS}: cleanup.policy is 'delete': it is compacted from now on" in told
    assert recovery.done["topics"]["mended"] == [OFFSETS]
    assert after.overrides == before.overrides
    cdc.recovered()
