"""What reads the server besides ours is named before anything is stopped, and left by name only."""

import pytest

from fixtures.stacks.protocol import Component
from pipeline.errors import RecoveryRefused
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.runbooks import reconnect
from pipeline.runbooks.point_in_time import new_recovery
from tests.recovery.history import Source
from tests.recovery.without_connect import recovery


@pytest.mark.parametrize("alive", [True, False])
def test_other_readers_stop_a_recovery_until_each_is_named(source: Source, *, alive: bool) -> None:
    source.run(
        "select pg_create_logical_replication_slot('warehouse', 'pgoutput')",
        "select pg_create_physical_replication_slot('standby')",
        f"select pg_create_physical_replication_slot('{source.config.repository.receiver_slot}')",
    )
    source.back_up("one")
    source.expect(source.write("kept").after)
    if not alive:  # then the newest base backup tells
        source.stack.stop(Component.POSTGRES)
    journal = new_recovery(source.config)
    with pytest.raises(RecoveryRefused) as refused:
        recovery(source, journal, "latest").run()
    told = str(refused.value)
    assert "readers: 'standby', a physical slot" in told
    assert "readers: 'warehouse', a logical slot of database postgres, pgoutput" in told
    assert told.count("readers: ") == 2
    half = recovery(source, journal, "latest")
    half.without_slots = ["standby"]
    with pytest.raises(RecoveryRefused, match="'warehouse'"):
        half.run()
    named = recovery(source, journal, "latest")
    named.without_slots = ["warehouse"]  # the other one was named before
    named.run()
    left = journal.done()["check_identity"]["left_behind"]
    assert [one.partition(",")[0] for one in left] == ["'standby'", "'warehouse'"]
    assert source.run("select count(*) from pg_replication_slots") == 0


def test_our_slot_is_made_again_with_its_flags(source: Source) -> None:
    name = source.config.cdc.slot
    source.run(f"create publication {source.config.cdc.publication} for table notes")
    newer = source.run("select current_setting('server_version_num')::int") >= 170_000
    with source.connect() as connection:
        create_slot(connection, name, failover=newer, two_phase=True)
        facts = source.back_up("one").manifest.facts
        drop_slot(connection, name)  # as on a restored server
        reconnect.source_only(source.config, connection, facts)
        made = find_slot(connection, name)
        drop_slot(connection, name)
    assert made is not None
    assert (bool(made.failover), made.two_phase) == (newer, True)
