"""The state of CDC read from real servers: all of it, in order, without a secret."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from fixtures.stacks.protocol import Stack
from fixtures.stacks.toml import write
from pipeline.cdc.state import brokers, kept
from pipeline.cdc.state import read as state
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Reading
from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.repository import marker
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.cdc.source import Source, captured

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def source(stack: Stack) -> Iterator[Source]:
    settings = {
        "heartbeat.action.query": "INSERT INTO public.beats VALUES (1) ON CONFLICT DO NOTHING",
        "signal.data.collection": "public.signals_not_there",
    }
    with captured(stack, "stated", "id int PRIMARY KEY", "VALUES (1)") as source:
        source.connection.execute("CREATE TABLE public.beats (id int PRIMARY KEY)")
        config = source.connect.config(source.name)
        source.connect.put_config(source.name, config | settings)
        source.connect.wait_running(source.name)
        source.run("INSERT INTO {} VALUES (2)")
        source.wait_delivered()
        yield source
        source.connection.execute("DROP TABLE public.beats")


def test_all_of_it_is_read_in_its_order(source: Source) -> None:
    """A slot is behind its offset, and that is in the server's WAL; nothing is left out."""
    reading = read(source.config)
    assert reading.unread == ()
    slot, connector = reading.slot(source.name), reading.connector(source.name)
    assert slot is not None
    assert connector is not None
    assert reading.server is not None
    assert connector.lsn is not None
    assert slot.confirmed_flush_lsn is not None
    assert slot.confirmed_flush_lsn <= connector.lsn <= reading.server.flush_lsn
    assert connector.own
    assert connector.running
    assert "Debezium" in str(slot.reader)
    assert source.topic in connector.topics
    topic = reading.topic(source.topic)
    assert topic is not None
    assert topic.records == 2
    assert [each.policy for each in reading.internal_topics] == ["compact"] * 3
    publication = reading.publication(source.config.postgres.dbname, source.name)
    assert publication is not None
    assert [(t.name, t.usable) for t in publication.tables] == [(source.table, True)]
    tables = {(t.use, t.table): (t.present, t.published) for t in reading.service_tables}
    assert tables["heartbeats", "public.beats"] == (True, False)
    assert tables["signals", "public.signals_not_there"] == (False, False)
    assert reading.worker is not None
    assert next(iter(reading.worker.plugins.values())).startswith("3.")


def test_it_survives_its_json_and_what_a_later_version_adds(source: Source) -> None:
    reading = read(source.config)
    told = json.loads(reading.model_dump_json())
    assert Reading.model_validate_json(json.dumps(told)) == reading
    told["server"]["of a later version"] = told["of a later version"] = {"a": 1}
    told["slots"][0]["of a later version"] = 1
    assert Reading.model_validate_json(json.dumps(told)) == reading


def test_a_secret_is_in_no_set_and_a_changed_one_is_seen(source: Source) -> None:
    """The password of a connector is masked; its digest tells that it is another one."""
    config = source.connect.config(source.name)

    def with_secret(password: str) -> Reading:
        changed = {"own.api.key": password, "other.api.key": "${not:a:secret}"}
        source.connect.put_config(source.name, config | changed)
        return read(source.config)

    first, again, other = map(with_secret, ("swordfish", "swordfish", "marlin"))
    source.connect.put_config(source.name, config)
    source.connect.wait_running(source.name)
    assert "swordfish" not in first.model_dump_json()
    digests = [r.connector(source.name).digests for r in (first, again, other)]  # type: ignore[union-attr]
    assert digests[0] == digests[1] != digests[2]
    assert "${not:a:secret}" in first.model_dump_json()


def test_a_missing_right_and_a_server_that_is_away_are_named(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read is told with its reason, and the rest is read all the same."""
    source.connection.execute("CREATE DATABASE closed")
    source.connection.execute("CREATE ROLE reader LOGIN PASSWORD 'r'")
    source.connection.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    with psycopg.connect(**source.config.postgres.conninfo(dbname="closed")) as there:
        there.execute("SELECT pg_create_logical_replication_slot('of_closed', 'pgoutput')")
    login = {"user": "reader", "password": SecretStr("r"), "password_file": None}
    postgres = source.config.postgres.model_copy(update=login)
    try:
        reading = read(source.config.model_copy(update={"postgres": postgres}))
    finally:
        source.connection.execute("SELECT pg_drop_replication_slot('of_closed')")
        source.connection.execute("DROP DATABASE closed")
        source.connection.execute("DROP ROLE reader")
    missing = {(one.part, one.name): one.grant for one in reading.unread}
    grant = 'GRANT CONNECT ON DATABASE "closed" TO "reader"'
    assert missing == {
        (Part.PUBLICATIONS, "closed"): grant,
        (Part.SERVICE_TABLES, "closed"): grant,
    }
    assert reading.slot("of_closed") is not None

    away = source.config.model_copy(
        update={
            "connect": source.config.connect.model_copy(update={"url": "http://127.0.0.1:1"}),
            "kafka": source.config.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"}),
        }
    )
    monkeypatch.setattr(brokers, "GLANCE", 1.0)
    monkeypatch.setattr(state, "GLANCE", timedelta(seconds=1))
    reading = read(away)
    parts = {one.part for one in reading.unread}
    assert parts == {
        *(Part.CONNECTORS, Part.OFFSETS, Part.PLUGINS, Part.TOPICS, Part.INTERNAL_TOPICS)
    }
    assert reading.slot(source.name) is not None


def test_a_set_is_sealed_and_carries_on_what_the_one_before_it_noted(
    source: Source, tmp_path: Path
) -> None:
    """Of which history an offset is, and a connector that is there no more."""
    config = with_repository(source.config, tmp_path)
    repository = Repository(FolderStore(tmp_path))
    first = kept.read(kept.take(config, repository))
    assert first.server is not None
    assert first.connector(source.name).history == first.server.history  # type: ignore[union-attr]
    settings = source.connect.config(source.name)
    source.connect.delete(source.name)
    ended = CliRunner().invoke(app, ["backup", "slots", "-c", str(config_file(config, tmp_path))])
    source.connect.create(source.name, settings)
    source.connect.wait_running(source.name)
    assert ended.exit_code == 0, ended.output
    second = kept.earlier(repository)
    assert second is not None
    assert source.name in [each.name for each in second.absent]
    along = CliRunner().invoke(app, ["backup", "offsets", "-c", str(tmp_path / "pipeline.toml")])
    assert "taken along: the state of CDC, slots-" in along.output
    third = kept.read(kept.take(config, repository, gone=("nobody",)))
    assert third.absent == ()
    assert third.connector(source.name).history == first.server.history  # type: ignore[union-attr]


def with_repository(config: PipelineConfig, folder: Path) -> PipelineConfig:
    marker.make(str(folder))
    repository = config.repository.model_copy(update={"path": folder})
    return config.model_copy(update={"repository": repository})


def config_file(config: PipelineConfig, folder: Path) -> Path:
    secret = folder / "password"
    secret.write_text(config.postgres.secret() or "")
    write(config, folder / "pipeline.toml", password_file=secret)
    return folder / "pipeline.toml"
