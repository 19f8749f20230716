"""Drills: point-in-time recovery of the whole pipeline, with clients writing all the while."""

from random import Random

import pytest

from fixtures.drill import Drill
from fixtures.faults.outages import (
    Outage,
    damage_newest_backup,
    delete_range,
    drop_table,
    lose_data_folder,
    truncate_table,
    update_everything,
)
from fixtures.verdict import Verdict
from pipeline.errors import RestoreError
from pipeline.postgres.replay.targets import Target

pytestmark = [pytest.mark.stack, pytest.mark.drill]
LATEST = Target.parse("latest")
nightly = pytest.mark.slow


def test_pitr_table_dropped(drill: Drill) -> None:
    """After an operator dropped a table, nothing acknowledged before that is missing.

    The table orders is dropped while clients write. `pipeline find` names the transaction, and
    the database is recovered to the moment right before it, CDC and topics with it.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(drop_table("orders")):
        drill.recover(drill.find(table="orders"))
        drill.verify()
    drill.finish()


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        pytest.param("documents", truncate_table("documents"), id="truncate"),
        pytest.param("events", delete_range("events"), id="range-deleted"),
        pytest.param(
            "payments", update_everything("payments", "amount", "0"), id="update-without-where"
        ),
    ],
)
@nightly
def test_pitr_rows_gone(drill: Drill, table: str, fault: Outage) -> None:
    """After one bad statement, nothing acknowledged before it is missing or changed.

    The statement runs while clients write. `pipeline find` names its transaction, and the
    database is recovered to the moment right before it, CDC and topics with it.
    """
    drill.write(acknowledged=3_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(fault):
        drill.recover(drill.find(table=table))
        drill.verify()
    drill.finish()


@nightly
def test_pitr_data_folder_gone(drill: Drill) -> None:
    """After the database's disk is gone, every acknowledged write comes back.

    The server is killed and its data folder removed. What it had not archived was streamed, and
    the database is recovered to the latest position that the receiver knows of.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(lose_data_folder):
        drill.recover(LATEST)
        drill.verify()
    drill.finish()


@nightly
def test_pitr_damaged_backup_ends_red(drill: Drill, seed: int) -> None:
    """From a damaged backup nothing is opened: a drill that cannot fail measures nothing.

    One bit of the only base backup is flipped before the disk is lost. The recovery must refuse
    it by name and leave no server behind that could be mistaken for a recovered one.
    """
    drill.write(acknowledged=500)
    backup = drill.back_up()
    damage_newest_backup(drill.service.stack, Random(seed))
    with (
        drill.outage(lose_data_folder),
        pytest.raises(RestoreError, match=f"{backup.label}.*the backup is damaged"),
    ):
        drill.recover(LATEST)
    assert drill.nothing_is_open()
    drill.finish(expected=Verdict.NOT_VERIFIED)
