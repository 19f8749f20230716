"""What settings of a connector leave out: lists of regular expressions, transforms, references."""

import pytest

from checks import captured
from pipeline.cdc import include_lists
from pipeline.cdc.connectors import TaskStatus
from pipeline.config import CdcConfig, PipelineConfig, PostgresConfig
from pipeline.errors import ConfigError

CONFIG = PipelineConfig.model_construct(
    cdc=CdcConfig(slot="cdc", publication="all_of_it", topic_prefix="shop"),
    postgres=PostgresConfig(dbname="shop"),
)
TOLD = {
    "slot.name": "cdc",
    "publication.name": "all_of_it",
    "database.dbname": "shop",
    "plugin.name": "pgoutput",
    "topic.prefix": "shop",
}
TOPIC = "shop.public.orders"
FILTER = {"transforms": "f", "transforms.f.type": "io.debezium.transforms.Filter"}
NAMED = {
    "transforms.f.predicate": "p",
    "predicates.p.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
}
ROUTER = {
    "transforms": "r",
    "transforms.r.type": "org.apache.kafka.connect.transforms.RegexRouter",
    "transforms.r.regex": r"shop\.(\w+)\.(\w+)",
}
UNWRAP = {"transforms": "u", "transforms.u.type": "io.debezium.transforms.ExtractNewRecordState"}


@pytest.mark.parametrize(
    ("told", "table", "setting"),
    [
        ({}, "public.orders", None),
        ({"table.include.list": r"public\.orders, public\.items"}, "public.items", None),
        ({"table.include.list": r"public\.ord"}, "public.orders", "table.include.list"),
        ({"table.include.list": r"PUBLIC\.Orders"}, "public.orders", None),
        ({"table.exclude.list": ".*_old"}, "public.orders_old", "table.exclude.list"),
        ({"schema.include.list": "sales"}, "public.orders", "schema.include.list"),
        ({"schema.exclude.list": "pub.*"}, "public.orders", "schema.exclude.list"),
        (
            {"table.include.list": "public.a", "signal.data.collection": "public.signals"},
            "public.signals",
            None,
        ),
    ],
)
def test_a_table_is_captured_as_debezium_reads_the_lists(
    told: dict[str, str], table: str, setting: str | None
) -> None:
    assert include_lists.left_out(told, table) == setting


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"database.dbname": "${dir:/secrets:dbname}"}, []),
        ({"publication.name": "other"}, ["publication.name is other, expected all_of_it"]),
        ({"topic.prefix": "staging"}, ["topic.prefix is staging, expected shop"]),
        ({"plugin.name": "decoderbufs"}, ["plugin.name is decoderbufs, expected pgoutput"]),
        ({"topic.delimiter": "_"}, ["topic.delimiter is _, expected ."]),
    ],
)
def test_a_connector_that_strays_from_the_configuration_is_told(
    changed: dict[str, str], told: list[str]
) -> None:
    assert list(captured.strays(CONFIG, TOLD | changed)) == told


@pytest.mark.parametrize(
    ("told", "harm"),
    [
        (FILTER, "drops events"),
        (FILTER | NAMED | {"predicates.p.pattern": r"__debezium-heartbeat.*"}, None),
        (FILTER | NAMED | {"predicates.p.pattern": r"shop\..*"}, "drops events"),
        (ROUTER | {"transforms.r.replacement": "$2"}, "sends events elsewhere"),
        (ROUTER | {"transforms.r.replacement": "shop.$1.$2"}, None),
        (UNWRAP, None),
        (UNWRAP | {"transforms.u.delete.tombstone.handling.mode": "drop"}, "leaves no tombstone"),
        ({"transforms": "k", "transforms.k.type": "x.ReplaceField$Key"}, "changes keys"),
        ({"transforms": "v", "transforms.v.type": "x.ReplaceField$Value"}, None),
    ],
)
def test_a_transform_is_judged_by_what_it_does_to_the_topics(
    told: dict[str, str], harm: str | None
) -> None:
    found = list(captured.reshaped(told, [TOPIC]))
    assert [harm in one for one in found] == [True] if harm else found == []


def test_a_transform_that_nobody_knows_is_not_taken_for_harmless() -> None:
    own = {"transforms": "own", "transforms.own.type": "com.example.Scrub"}
    with pytest.raises(ConfigError, match="whether Scrub drops"):
        list(captured.reshaped(own, [TOPIC]))


def test_a_failed_task_is_told_with_what_caused_it() -> None:
    trace = "Exception: Tolerance exceeded\n\tat a.B\nCaused by: C: x\n\tat d\nCaused by: E: root\n"
    assert TaskStatus(0, "FAILED", "w", trace).cause == (
        "Exception: Tolerance exceeded Caused by: E: root"
    )
    assert not TaskStatus(0, "PAUSED", "w").cause
