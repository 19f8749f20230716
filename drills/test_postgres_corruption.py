"""Drills: PostgreSQL is damaged, on its disk or in its archive (scenario 1 of the procedures).

Stop the connectors, restore a base backup, apply WAL to the recovery point, recreate the slots,
restart the connectors: with clients writing all the while.
"""

from datetime import UTC
from random import Random

import pytest

from fixtures.drill import Drill
from fixtures.faults.archived import archive_a_stray_branch, lose_segment_and_disk
from fixtures.faults.datafiles import (
    damage_heap_page,
    damage_index,
    damage_silently,
    damage_toast,
    lose_from_data_folder,
    lose_relation_file,
    lose_tablespace,
    move_to_tablespace,
    zero_page,
)
from fixtures.faults.killed import kill_recoveries
from fixtures.faults.outages import Outage, damage_newest_backup, lose_data_folder
from pipeline.errors import LossNotAccepted
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.lsn import Lsn
from pipeline.runbooks.plan import make

pytestmark = [pytest.mark.stack, pytest.mark.drill]
LATEST = Target.parse("latest")
nightly = pytest.mark.slow
BY_INDEX = "SELECT count(*) FROM (SELECT customer_id FROM orders ORDER BY customer_id) o"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(damage_heap_page("customers"), id="heap-page"),
        pytest.param(damage_index("orders_customer", BY_INDEX), id="index", marks=nightly),
        pytest.param(damage_toast("documents", "body"), id="toast", marks=nightly),
        pytest.param(lose_relation_file("payments"), id="relation-file", marks=nightly),
        pytest.param(
            lose_from_data_folder("pg_xact/*", cleanly=True), id="commit-log", marks=nightly
        ),
        pytest.param(lose_from_data_folder("global/pg_control"), id="pg-control", marks=nightly),
        pytest.param(lose_from_data_folder("pg_wal"), id="pg-wal", marks=nightly),
        pytest.param(archive_a_stray_branch, id="stray-timeline", marks=nightly),
    ],
)
def test_corruption_noticed(drill: Drill, fault: Outage) -> None:
    """After damage that the server itself reports, every acknowledged write comes back.

    What is damaged cannot be read, so it cannot get into the WAL: the base backup is older than
    the damage, and the WAL holds everything since.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(fault):
        drill.recover(LATEST)
        drill.verify()
    drill.finish()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(damage_silently("customers", "email"), id="page"),
        pytest.param(zero_page("order_lines"), id="zeroed"),
    ],
)
@nightly
def test_corruption_silent(drill: Drill, fault: Outage) -> None:
    """After damage that only a digest shows, the state before it comes back.

    The first write to a silently damaged page would put an image of it into the WAL, so that
    "latest" could bring the damage back: the target is the last moment at which digests agreed.
    On its way there the recovery itself holds every row against the digests of its backup.
    """
    drill.write(acknowledged=2_000)
    drill.back_up(digests=True)
    drill.write(acknowledged=1_000)
    sound = drill.quiet_moment()
    with drill.outage(fault):
        drill.recover(Target.parse(f"time:{sound.astimezone(UTC).isoformat()}"))
        assert drill.compared_rows(), "no row was held against the digests of the backup"
        drill.verify()
    drill.finish()


@nightly
def test_corruption_tablespace_lost(drill: Drill) -> None:
    """After a tablespace's disk is gone, what lay there comes back as well.

    The table documents lies in a tablespace of its own. The base backup holds it as an object of
    its own, and it is restored to the same place.
    """
    move_to_tablespace(drill.service.stack, "documents")
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(lose_tablespace("documents")):
        drill.recover(LATEST)
        drill.verify()
    drill.finish()


@nightly
def test_corruption_segment_missing(drill: Drill, seed: int) -> None:
    """Where a WAL segment is missing, the recovery refuses, and then counts what is lost.

    PostgreSQL itself would promote at the gap and say nothing. The refusal names the segment and
    where the WAL ends; ending there must be accepted by that name.
    """
    drill.write(acknowledged=1_000)
    drill.back_up()
    for _ in range(4):
        drill.write(acknowledged=500)
        drill.finish_segment()
    drill.write(acknowledged=500)
    with drill.outage(lose_segment_and_disk(Random(seed))):
        with pytest.raises(LossNotAccepted, match=drill.evidence.split()[0]) as refused:
            drill.recover(LATEST)
        end = Lsn.parse(str(refused.value).rpartition("--accept-end ")[2])
        drill.recover(LATEST, accept_end=end)
        drill.verify()
    assert drill.lost(), "a hole in the WAL cost nothing"
    drill.finish()


@nightly
def test_corruption_newest_backup_damaged(drill: Drill, seed: int) -> None:
    """When the newest backup turns out to be damaged, an older one and more WAL are used.

    One bit of the newest base backup is flipped before the disk is lost. The recovery notices it
    while it unpacks, says so, and goes on from the backup before it.
    """
    drill.write(acknowledged=1_000)
    older = drill.back_up()
    drill.write(acknowledged=500)
    newest = drill.back_up()
    drill.write(acknowledged=500)
    damage_newest_backup(drill.service.stack, Random(seed))
    with drill.outage(lose_data_folder):
        assert make(drill.service.config, LATEST).backup == newest.label
        drill.recover(LATEST)
        assert drill.restored_from() == older.label
        drill.verify()
    drill.finish()


@nightly
def test_corruption_recovery_killed(drill: Drill, seed: int) -> None:
    """A recovery that is killed, three times at random moments, is resumed and loses nothing.

    SIGKILL hits the recovery's process group in three of its steps; the server that it had
    started runs on. Each is resumed by name, from its journal.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(lose_data_folder):
        journal = kill_recoveries(drill, LATEST, Random(seed), times=3)
        drill.recover(LATEST, resume=journal)
        drill.verify()
    drill.finish()
