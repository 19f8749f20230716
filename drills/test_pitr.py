"""Drills: point-in-time recovery of the whole pipeline, with clients writing all the while."""

import pytest

from fixtures.drill import Drill
from fixtures.faults.outages import drop_table, lose_data_folder
from pipeline.postgres.targets import Target

pytestmark = pytest.mark.stack


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


def test_pitr_data_folder_gone(drill: Drill) -> None:
    """After the database's disk is gone, every acknowledged write comes back.

    The server is killed and its data folder removed. What it had not archived was streamed, and
    the database is recovered to the latest position that the receiver knows of.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(lose_data_folder):
        drill.recover(Target.parse("latest"))
        drill.verify()
    drill.finish()
