"""Connectors that are set up otherwise are read for what they are, and none for what it is not."""

from collections.abc import Mapping
from typing import Any

import pytest

from fixtures import cdc_states as made
from pipeline.cdc import needs
from pipeline.cdc.debezium import is_postgres, reads, resolved
from pipeline.cdc.state import told
from pipeline.cdc.state.classify import classify
from pipeline.cdc.state.connect import Connector, StoredOffset, Worker
from pipeline.cdc.state.reading import Reading
from pipeline.config import PipelineConfig
from pipeline.postgres.wal.lsn import Lsn

CONFIG = PipelineConfig.model_validate(
    {"repository": {"path": "/nowhere"}, "postgres": {"dbname": "shop"}}
)
REFERENCE = "${file:/secrets/cdc.properties:prefix}"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("io.debezium.connector.postgresql.PostgresConnector", True),
        ("PostgresConnector", True),
        ("Postgres", True),
        ("io.debezium.connector.mysql.MySqlConnector", False),
        ("com.example.NotAPostgresConnector", False),
        ("io.debezium.connector.jdbc.JdbcSinkConnector", False),
    ],
)
def test_a_class_is_known_by_each_name_that_connect_takes(name: str, *, ours: bool) -> None:
    """By its whole name, its simple one, and that without Connector at its end."""
    assert is_postgres(name) is ours
    told = made.CONNECTOR.config | {"connector.class": name}
    assert reads(CONFIG, told) is ours


@pytest.mark.parametrize("name", ["Postgres", "PostgresConnector"])
def test_the_version_of_a_connector_is_found_by_a_short_name(name: str) -> None:
    worker = Worker(version="4", plugins={"x.y.PostgresConnector": "3.6.2.Final"})
    now = made.config(made.with_(worker=worker), connector_class=name)
    found = [one.state.id for v in classify(now, made.BEFORE).verdicts for one in v.findings]
    assert "S14" in found


@pytest.mark.parametrize(
    ("offset", "lsn", "snapshotting"),
    [
        ({"lsn": "2100"}, 2_100, False),
        ({"lsn": "0/834", "lsn_commit": "0/802"}, 2_050, False),
        ({"lsn": 2_100, "snapshot": "false"}, 2_100, False),
        ({"lsn": 2_100, "snapshot": False}, 2_100, False),
        ({"lsn": 2_100, "snapshot": "INITIAL", "snapshot_completed": "true"}, 2_100, False),
        ({"lsn": 2_100, "snapshot": "INITIAL", "snapshot_completed": "false"}, None, True),
        ({"lsn": 2_100, "snapshot": True, "last_snapshot_record": True}, 2_100, False),
        ({"lsn": 2_100, "snapshot": True, "last_snapshot_record": False}, None, True),
        ({"lsn": "no LSN"}, None, False),
        ({"lsn": True}, None, False),
    ],
)
def test_an_offset_is_read_however_it_was_stored(
    offset: Mapping[str, object], lsn: int | None, *, snapshotting: bool
) -> None:
    """As older versions of Debezium do, and whoever patches it by hand."""
    stored = StoredOffset(partition={"server": "shop"}, offset=dict(offset))
    assert (stored.lsn, stored.snapshotting) == (lsn, snapshotting)


def offsets(*servers: str) -> tuple[StoredOffset, ...]:
    return tuple(
        StoredOffset(partition={"server": one}, offset={"lsn_commit": 2_050 + n})
        for n, one in enumerate(servers)
    )


def referring(*servers: str, prefix: str = "") -> Reading:
    """A connector whose topic.prefix only the worker resolves."""
    config = made.CONNECTOR.config | {"topic.prefix": REFERENCE}
    resolved = {"topic.prefix": prefix} if prefix else {}
    return made.connector(config=config, offsets=offsets(*servers), resolved=resolved)


@pytest.mark.parametrize(
    ("servers", "prefix", "lsn"),
    [
        (("prod",), "", 2_050),
        (("prod",), "shop", None),
        (("old", "shop"), "shop", 2_051),
        (("old", "new"), "", None),
        (("old", "new"), "shop", None),
    ],
)
def test_an_offset_is_found_though_its_key_is_a_reference(
    servers: tuple[str, ...], prefix: str, lsn: int | None
) -> None:
    """It is the only one that is stored, or the one of the topic prefix that is configured."""
    now = referring(*servers, prefix=prefix)
    [connector] = now.connectors
    assert connector.lsn == lsn
    found = classify(now, made.BEFORE)
    [verdict] = [one for one in found.verdicts if one.name == "shop"]
    stated = [one.state.id for one in verdict.findings]
    assert "S09" not in stated
    assert bool(verdict.unknown) is (lsn is None), told.facts(found)


def test_which_of_two_offsets_a_reference_means_is_unknown_and_said_so() -> None:
    now = referring("old", "new")
    (need,) = needs.of_offset(CONFIG, now, now.connectors[0])
    assert "UNKNOWN which offset is its own" in need.what


SETTINGS = ("slot.name", "publication.name", "database.dbname")


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_setting_only_refers_to_is_as_configured_and_else_unknown(setting: str) -> None:
    """A slot or a publication by the name of a reference is nowhere: that makes it no lost one."""
    config = made.CONNECTOR.config | {setting: "${env:NAME}"}
    told_by_us = {setting: made.CONNECTOR.config[setting]}
    ours = made.connector(config=config, resolved=told_by_us)
    before = made.connector(made.BEFORE, config=config)
    assert not classify(ours, before).unknown
    assert resolved(CONFIG, config) == told_by_us
    unknown = classify(made.connector(config=config), before)
    [verdict] = [one for one in unknown.verdicts if one.name == "shop"]
    assert verdict.findings == ()
    assert f"its {setting} is known to its worker alone" in verdict.unknown


@pytest.mark.parametrize(
    ("offset", "why"),
    [
        ({"lsn": 2_100, "snapshot": True}, "its snapshot did not come to its end"),
        ({"lsn": "no LSN"}, "its offset names no LSN"),
        ({"lsn": "2100"}, "its offset has text for numbers"),
    ],
)
def test_a_recovery_tells_why_an_offset_cannot_be_gone_on_from(
    offset: dict[str, Any], why: str
) -> None:
    now = made.offset(**offset)
    (need,) = needs.of_offset(CONFIG, now, now.connectors[0])
    assert need.reread
    assert why in need.what


def test_a_slot_that_the_driver_confirms_is_told_and_not_read_again() -> None:
    ahead = made.slot(confirmed_flush_lsn=Lsn(2_060))
    (loses,) = needs.of_offset(CONFIG, ahead, ahead.connectors[0])
    by_driver = made.config(ahead, lsn_flush_mode="connector_and_driver")
    (told_only,) = needs.of_offset(CONFIG, by_driver, by_driver.connectors[0])
    assert (loses.reread, told_only.reread) == (True, False)


def theirs(**settings: str) -> Connector:
    """A connector of another team with the same names of slot and database."""
    config = made.CONNECTOR.config | settings
    return made.CONNECTOR.model_copy(update={"name": "theirs", "own": False, "config": config})


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, True),
        ({"database.hostname": "elsewhere"}, False),
        ({"database.port": "5433"}, False),
        ({"database.dbname": "other"}, False),
    ],
)
def test_another_server_with_the_same_names_stands_in_nobodys_way(
    settings: dict[str, str], *, refused: bool
) -> None:
    """Once ours are named: by settings alone both would be."""
    now = made.with_(connectors=(made.CONNECTOR, theirs(**settings)))
    assert bool(list(needs.strangers(CONFIG, now))) is refused
    both = made.with_(
        connectors=(made.CONNECTOR, theirs(**settings).model_copy(update={"own": True}))
    )
    same = settings.get("database.dbname") is None
    assert bool(list(needs.strangers(CONFIG, both))) is same


def test_without_a_connector_of_ours_nothing_is_sound() -> None:
    """Others may be sound; of this pipeline nothing was looked at."""
    for others in ((), (theirs(),)):
        found = classify(made.with_(connectors=others), made.BEFORE)
        assert found.unknown
    assert any(
        line.startswith("UNKNOWN: no connector is this pipeline's") for line in told.lines(found)
    )
