"""The consistency point of a topic archive, with a connector that really reads the slot."""

from datetime import timedelta
from functools import partial

import pytest
from psycopg import sql

from fixtures.stacks.protocol import Stack
from pipeline.cdc import point as consistency
from pipeline.cdc.delivered import delivery
from pipeline.kafka.archive import archive
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.cdc.source import captured

pytestmark = pytest.mark.stack
SOON = timedelta(seconds=1)


def test_an_archive_ends_behind_what_the_connector_has_delivered(stack: Stack) -> None:
    """Also when the source has been idle since, and other tables have been written."""
    with captured(stack, "point", "id int PRIMARY KEY", "SELECT generate_series(1, 100)") as source:
        source.run("INSERT INTO {} SELECT generate_series(101, 200)")
        repository = Repository(FolderStore(source.config.repository.path))
        reach = partial(consistency.reach, source.config)
        backup = archive.take(source.config, repository, [source.topic], reach=reach)
        told = backup.manifest.facts["consistency_point"]
        assert told["caught_up"] is True, told
        known = told.get("stored_until") or told["confirmed_flush_lsn"]
        assert Lsn.parse(known) >= Lsn.parse(told["point"]["lsn"])
        facts = backup.manifest.facts["topics"][source.topic]["partitions"]["0"]
        assert facts["records"] >= 100  # what was there before the slot may come as well
        source.connection.execute("CREATE TABLE aside AS SELECT generate_series(1, 100)")
        idle = consistency.reach(source.config, lambda _: None)
        source.connection.execute("DROP TABLE aside")
        assert idle["caught_up"] is True, idle
        source.connect.stop(source.name)
        source.connect.wait_stopped(source.name)
        source.run("INSERT INTO {} SELECT generate_series(201, 300)")
        stopped = consistency.reach(source.config, lambda _: None, within=SOON)
        assert stopped["caught_up"] == consistency.UNKNOWN
        source.connect.resume(source.name)
        source.connect.wait_running(source.name)
        assert consistency.reach(source.config, lambda _: None)["caught_up"] is True


def test_the_last_transaction_of_an_idle_source_is_delivered_though_never_confirmed(
    stack: Stack,
) -> None:
    """Without heartbeats, which is Debezium's default, the next event would confirm it."""
    silent = {"heartbeat.interval.ms": "0"}
    rows = "SELECT generate_series(1, 10)"
    with captured(stack, "silent", "id int PRIMARY KEY", rows, settings=silent) as source:
        source.run("INSERT INTO {} SELECT generate_series(11, 20)")
        into = sql.SQL("COPY {} FROM STDIN").format(source.identifier)
        with source.connection.cursor() as cursor, cursor.copy(into) as copy:
            for number in range(21, 31):  # all of one position
                copy.write_row([number])
        told = consistency.reach(source.config, lambda _: None)
        assert told["caught_up"] is True, told
        assert told["stored_until"] == told["point"]["lsn"]
        assert Lsn.parse(told["confirmed_flush_lsn"]) < Lsn.parse(told["point"]["lsn"])
        assert delivery(source.config, source.connection, Lsn.parse(told["point"]["lsn"]))() is None
        source.run("UPDATE {} SET id = 31 WHERE id = 30")  # two events, of one offset
        moved = consistency.reach(source.config, lambda _: None, within=SOON)
        assert moved["caught_up"] == consistency.UNKNOWN
        source.connect.stop(source.name)
        source.connect.wait_stopped(source.name)
        source.run("INSERT INTO {} VALUES (41)")
        stopped = consistency.reach(source.config, lambda _: None, within=SOON)
        assert stopped["caught_up"] == consistency.UNKNOWN
        end = Lsn.parse(stopped["point"]["lsn"])
        assert "behind" in str(delivery(source.config, source.connection, end)())
