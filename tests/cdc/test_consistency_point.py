"""The consistency point of a topic archive, with a connector that really reads the slot."""

from functools import partial

import pytest

from fixtures.stacks.protocol import Stack
from pipeline.kafka import archive, consistency
from pipeline.postgres.lsn import Lsn
from pipeline.repository import Repository
from pipeline.store import FolderStore
from tests.cdc.source import captured

pytestmark = pytest.mark.stack


def test_an_archive_ends_behind_what_the_connector_has_delivered(stack: Stack) -> None:
    """Also when the source has been idle since, and other tables have been written."""
    with captured(stack, "point", "id int PRIMARY KEY", "SELECT generate_series(1, 100)") as source:
        source.run("INSERT INTO {} SELECT generate_series(101, 200)")
        repository = Repository(FolderStore(source.config.repository.path))
        reach = partial(consistency.reach, source.config)
        backup = archive.take(source.config, repository, [source.topic], reach=reach)
        told = backup.manifest.facts["consistency_point"]
        assert told["caught_up"] is True, told
        assert Lsn.parse(told["confirmed_flush_lsn"]) >= Lsn.parse(told["point"]["lsn"])
        facts = backup.manifest.facts["topics"][source.topic]["partitions"]["0"]
        assert facts["records"] >= 100  # what was there before the slot may come as well
        source.connection.execute("CREATE TABLE aside AS SELECT generate_series(1, 100)")
        idle = consistency.reach(source.config, lambda _: None)
        source.connection.execute("DROP TABLE aside")
        assert idle["caught_up"] is True, idle
        source.connect.stop(source.name)
        source.connect.wait_stopped(source.name)
        source.run("INSERT INTO {} SELECT generate_series(201, 300)")
        stopped = consistency.reach(source.config, lambda _: None, within=consistency.WITHIN / 20)
        assert stopped["caught_up"] == consistency.UNKNOWN
        source.connect.resume(source.name)
        source.connect.wait_running(source.name)
        assert consistency.reach(source.config, lambda _: None)["caught_up"] is True
