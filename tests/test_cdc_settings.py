"""What connectors' settings say: secrets are masked, and needed tables are found."""

import pytest

from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.settings import MASK, masked, service_tables


@pytest.mark.parametrize(
    "name",
    [
        "database.password",
        "producer.override.sasl.jaas.config",
        "value.converter.basic.auth.user.info",
        "value.converter.apicurio.auth.client.secret",
        "driver.sslpassword",
        "ssl.keystore.key",
        "aws.secret.access.key",
        "schema.registry.api-key",
    ],
)
def test_a_secret_is_masked_and_told_apart_by_its_digest(name: str) -> None:
    kept, digests = masked("shop", {name: "swordfish"})
    assert kept == {name: MASK}
    assert digests == masked("shop", {name: "swordfish"})[1]
    assert digests != masked("shop", {name: "marlin"})[1]
    assert digests != masked("other", {name: "swordfish"})[1], "no table of digests serves twice"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database.password", "${dir:/secrets:postgres}"),
        ("database.password", ""),
        ("slot.name", "debezium"),
        ("key.converter", "org.apache.kafka.connect.json.JsonConverter"),
    ],
)
def test_a_reference_and_what_is_no_secret_stay(name: str, value: str) -> None:
    assert masked("shop", {name: value}) == ({name: value}, {})


def test_a_part_that_only_looks_like_a_reference_is_masked() -> None:
    kept, digests = masked("shop", {"database.password": "${dir:/x:y}swordfish"})
    assert "swordfish" not in str(kept)
    assert digests


def test_a_login_within_a_url_is_left_out() -> None:
    kept, digests = masked("shop", {"value.converter.url": "http://me:swordfish@registry/"})
    assert kept == {"value.converter.url": "http://registry/"}
    assert list(digests) == ["value.converter.url"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("INSERT INTO s.beat VALUES (1)", ("heartbeats", "s.beat", ("insert",))),
        ('update only "S"."Beat" SET at = now()', ("heartbeats", '"S"."Beat"', ("update",))),
        ("MERGE INTO beat USING x ON true", ("heartbeats", "beat", ("insert", "update"))),
    ],
)
def test_the_table_of_heartbeats_is_found(query: str, told: tuple[object, ...]) -> None:
    connector = Connector(name="shop", own=True, config={"heartbeat.action.query": query})
    assert list(service_tables(connector)) == [told]


def test_signals_and_an_outbox_are_found() -> None:
    config = {
        "signal.data.collection": "shop.signals",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "table.include.list": r"shop\.outbox, shop\.all_.*",
    }
    connector = Connector(name="shop", own=True, config=config)
    assert list(service_tables(connector)) == [
        ("signals", "shop.signals", ("insert",)),
        ("outbox", "shop.outbox", ()),
    ]
    other = connector.model_copy(update={"config": config | {"signal.enabled.channels": "kafka"}})
    assert [use for use, *_ in service_tables(other)] == ["outbox"]
