"""One pipeline brought from one state into another, each of which is named by its right name."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from psycopg import sql
from typer.testing import CliRunner

from fixtures.stacks.protocol import Stack
from pipeline.cdc.connectors import ConnectClient, ConnectorOffset
from pipeline.cdc.state import kept
from pipeline.cdc.state.classify import SOUND, classify
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Reading
from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.postgres.replication.publications import Publication, recreate
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot, unread
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import Repository, folder_of
from pipeline.repository.store import FolderStore
from pipeline.wait import wait_until
from tests.cdc.source import Source, captured
from tests.cdc.test_state_reading import config_file, with_repository

pytestmark = pytest.mark.stack

SOON = timedelta(seconds=30)


@dataclass
class Walk:
    """A captured table, and the set that was taken while all of it was sound."""

    source: Source
    config: PipelineConfig
    before: Reading

    def states(self, *, before: Reading | None = None) -> set[str]:
        """Every state that is named of the connector, its slot or its workers."""
        before = before or self.before
        now = kept.with_histories(read(self.config), before)
        names = {self.source.name, "Kafka Connect", "server"}
        found = classify(now, before)
        return {
            one.state.id
            for verdict in found.verdicts
            for one in verdict.findings
            if verdict.name in names
        }

    def run(self, statement: str) -> None:
        self.source.connection.execute(sql.SQL(statement))

    def move(self, lsn: Lsn) -> None:
        """Store another position for the stopped connector."""
        [last] = self.source.connect.offsets(self.source.name)
        moved = dict.fromkeys(("lsn", "lsn_commit", "lsn_proc"), int(lsn))
        offset = ConnectorOffset(last.partition, last.offset | moved)
        self.source.connect.patch_offsets(self.source.name, [offset])

    @property
    def end(self) -> Lsn:
        row = self.source.connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        return Lsn.parse(row[0])


@pytest.fixture
def walk(stack: Stack, tmp_path: Path) -> Iterator[Walk]:
    with captured(stack, "walked", "id int PRIMARY KEY", "VALUES (1)") as source:
        source.run("INSERT INTO {} VALUES (2)")
        source.wait_delivered()
        config = with_repository(source.config, tmp_path)
        taken = kept.take(config, Repository(FolderStore(tmp_path)))
        yield Walk(source, config, kept.read(taken))


def test_each_state_is_named_on_real_servers(walk: Walk, tmp_path: Path) -> None:
    """Sound, then one damage after the other; what the last one was is put right before."""
    name, client = walk.source.name, walk.source.connect
    settings, publication = client.config(name), walk.source.publication
    told = CliRunner().invoke(app, ["status", "cdc", "-c", str(config_file(walk.config, tmp_path))])
    assert f"connector {name}: {SOUND}" in told.output, told.output
    _of_the_publication(walk, publication)
    assert "S40" in _with_policy(walk, "connect-status")
    client.stop(name)
    client.wait_stopped(name)
    assert {"S39", "S25"} <= walk.states()
    walk.run(f"DROP PUBLICATION {name}")
    assert "S32" in walk.states()
    recreate(walk.source.connection, publication)
    _of_the_configuration(walk, settings)
    _of_the_offset(walk)
    _of_the_slot(walk)
    _of_deletions(walk)
    client.create(name, settings)
    client.wait_running(name)


def _of_the_publication(walk: Walk, publication: Publication) -> None:
    walk.run(f"ALTER PUBLICATION {walk.source.name} SET (publish = 'insert')")
    assert "S33" in walk.states()
    recreate(walk.source.connection, publication)
    walk.run(f"ALTER TABLE {walk.source.table} REPLICA IDENTITY NOTHING")
    assert "S34" in walk.states()
    walk.run(f"ALTER TABLE {walk.source.table} REPLICA IDENTITY DEFAULT")
    assert not {"S33", "S34"} & walk.states()


def _of_the_configuration(walk: Walk, settings: dict[str, str]) -> None:
    name, client = walk.source.name, walk.source.connect
    client.put_config(name, settings | {"signal.data.collection": "public.nowhere"})
    assert {"S36", "S38"} <= walk.states()
    client.put_config(name, settings | {"topic.prefix": "renamed"})
    assert "S09" in walk.states()
    client.put_config(name, settings)
    assert not {"S09", "S36", "S38"} & walk.states()


def _of_the_offset(walk: Walk) -> None:
    name, client = walk.source.name, walk.source.connect
    client.patch_offsets(name, [ConnectorOffset({"server": "stale"}, {"lsn": 1})])
    assert "S10" in walk.states()
    nothing: Any = None  # null forgets it
    client.patch_offsets(name, [ConnectorOffset({"server": "stale"}, nothing)])
    assert "S10" not in walk.states()
    walk.move(Lsn(walk.end + (1 << 30)))
    assert "S06" in walk.states()
    slot = find_slot(walk.source.connection, name)
    assert slot is not None
    assert slot.confirmed_flush_lsn is not None
    walk.move(Lsn(slot.confirmed_flush_lsn - 1))
    assert "S04" in walk.states()
    walk.move(slot.confirmed_flush_lsn)
    assert not {"S04", "S06"} & walk.states()


def _of_the_slot(walk: Walk) -> None:
    name, source = walk.source.name, walk.source
    stopped = kept.with_histories(read(walk.config), walk.before)
    source.run("INSERT INTO {} VALUES (3)")
    walk.run(f"SELECT pg_replication_slot_advance('{name}', pg_current_wal_flush_lsn())")
    assert "S24" in walk.states(before=stopped)
    drop_slot(source.connection, name)
    assert "S01" in walk.states()
    walk.run(f"SELECT pg_create_physical_replication_slot('{name}')")
    assert "S23" in walk.states()
    walk.run(f"SELECT pg_drop_replication_slot('{name}')")
    source.run("INSERT INTO {} VALUES (4)")
    create_slot(source.connection, name)
    assert "S03" in walk.states()


def _of_deletions(walk: Walk) -> None:
    name, client = walk.source.name, walk.source.connect
    client.delete_offsets(name)
    assert "S02" in walk.states()
    none = kept.with_histories(read(walk.config), walk.before)
    old = {"lsn": int(walk.end), "lsn_commit": int(walk.end), "ts_usec": 1}
    client.patch_offsets(name, [ConnectorOffset({"server": name}, old)])
    assert "S13" in walk.states(before=none)
    client.delete_offsets(name)
    client.delete(name)
    assert "S37" in walk.states()


def test_another_history_is_named_by_what_the_set_noted(walk: Walk) -> None:
    """No LSN tells it: only the set of before does."""
    assert walk.before.server is not None
    here = walk.before.server.history

    def noted(history: tuple[str, int]) -> Reading:
        then = [each.model_copy(update={"history": history}) for each in walk.before.connectors]
        return walk.before.model_copy(update={"connectors": tuple(then)})

    assert "S07" in walk.states(before=noted((here[0], here[1] + 1)))
    assert "S08" in walk.states(before=noted(("1", here[1])))
    taken = kept.take(
        walk.config, Repository(FolderStore(walk.config.repository.path)), reread=[walk.source.name]
    )
    assert not {"S07", "S08"} & walk.states(before=kept.read(taken))


def test_the_command_tells_programs_and_watchers(walk: Walk, tmp_path: Path) -> None:
    """Exit code 1 where changes are in danger, and 11 where no set tells the history."""
    file, name = str(config_file(walk.config, tmp_path)), walk.source.name
    walk.source.connect.stop(name)
    walk.source.connect.wait_stopped(name)
    ended = CliRunner().invoke(app, ["status", "cdc", "-c", file, "--json"])
    told = {one["name"]: one["state"] for one in json.loads(ended.output)["verdicts"]}
    assert (ended.exit_code, told[name]) == (1, "S39")
    walk.source.connect.resume(name)
    walk.source.connect.wait_running(name)
    wait_until("its reader", lambda: unread(walk.source.connection, name), within=SOON)
    for label in Repository(FolderStore(tmp_path)).labels():
        shutil.rmtree(tmp_path / folder_of(label))
    ended = CliRunner().invoke(app, ["status", "cdc", "-c", file])
    assert (ended.exit_code, "pipeline backup cdc" in ended.output) == (11, True), ended.output

    watched = ["status", "cdc", "-c", file, "--watch", "--looks", "2", "--every", "0.1"]
    ended = CliRunner().invoke(app, watched)
    assert ended.exit_code == 0
    assert ended.output.count("WAL ends at") == 2
    assert f"  {name}: read, " in ended.output


def test_a_subscription_and_a_failed_task_are_named(walk: Walk) -> None:
    source, client, name = walk.source, walk.source.connect, walk.source.name
    settings = client.config(name)
    walk.run(
        "CREATE SUBSCRIPTION elsewhere CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p"
        " WITH (connect = false)"
    )
    walk.run("ALTER SUBSCRIPTION elsewhere ENABLE")
    assert "S45" in walk.states()
    walk.run("ALTER SUBSCRIPTION elsewhere DISABLE")
    walk.run("ALTER SUBSCRIPTION elsewhere SET (slot_name = NONE)")
    walk.run("DROP SUBSCRIPTION elsewhere")
    broken = {
        "transforms": "short",
        "transforms.short.type": "org.apache.kafka.connect.transforms.ExtractField$Value",
        "transforms.short.field": "of_another_table",
    }
    client.put_config(name, settings | broken)
    source.run("INSERT INTO {} VALUES (9)")
    _wait_for(client, name, "FAILED")
    assert {"S39", "S38"} <= walk.states()
    client.put_config(name, settings)
    client.restart(name)
    client.wait_running(name)


def _with_policy(walk: Walk, topic: str) -> set[str]:
    """What is named while a topic of Connect is cleaned by age as well."""
    admin = AdminClient(walk.config.kafka.librdkafka())

    def change(value: str) -> None:
        entry = ConfigEntry("cleanup.policy", value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result()

    change("compact,delete")
    try:
        return walk.states()
    finally:
        change("compact")


def _wait_for(client: ConnectClient, name: str, state: str) -> None:
    def another() -> str | None:
        trouble = str(client.status(name).trouble)
        return None if f"is {state}" in trouble else trouble

    wait_until(f"{name} {state}", another, within=SOON)
