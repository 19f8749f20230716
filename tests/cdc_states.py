"""A sound state of CDC, and each of the others made from it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.cdc.state.reading import (
    Asked,
    Connector,
    DatabasePublication,
    Prepared,
    PublishedTable,
    Reading,
    SeenSlot,
    Server,
    ServiceTable,
    StoredOffset,
    SubscriptionRead,
    Task,
    TopicRead,
    Worker,
)
from pipeline.postgres.replication.publications import Publication
from pipeline.postgres.replication.publications import PublishedTable as Member
from pipeline.postgres.wal.lsn import Lsn

TAKEN = datetime(2026, 11, 30, 4, tzinfo=UTC)
HISTORY = ("7", 1)
SLOT = SeenSlot(
    name="debezium",
    plugin="pgoutput",
    database="shop",
    active=True,
    restart_lsn=Lsn(1_000),
    confirmed_flush_lsn=Lsn(2_000),
    wal_status="reserved",
    active_pid=42,
    reader="Debezium Streaming at 10.0.0.7",
)
PUBLICATION = DatabasePublication(
    database="shop",
    publication=Publication(
        name="dbz_publication",
        owner="postgres",
        all_tables=False,
        publish=("insert", "update", "delete", "truncate"),
        via_root=False,
        generated_columns=None,
        schemas=(),
        tables=(Member("shop", "customers"), Member("shop", "orders")),
    ),
    tables=(
        PublishedTable(name="shop.customers", identity="d", usable=True),
        PublishedTable(name="shop.orders", identity="d", usable=True),
    ),
)
CONNECTOR = Connector(
    name="shop",
    own=True,
    config={
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": "db",
        "database.dbname": "shop",
        "topic.prefix": "shop",
        "slot.name": "debezium",
        "publication.name": "dbz_publication",
    },
    state="RUNNING",
    tasks=(Task(id=0, state="RUNNING"),),
    wanted=1,
    offsets=(
        StoredOffset(partition={"server": "shop"}, offset={"lsn": 2_100, "lsn_commit": 2_050}),
    ),
    topics=("shop.shop.orders",),
    history=HISTORY,
)
SOUND = Reading(
    taken=TAKEN + timedelta(hours=1),
    asked=Asked(
        receiver_slot="pipeline_receiver", internal_topics=("connect-configs", "connect-offsets")
    ),
    server=Server(
        system_identifier="7",
        timeline=1,
        version=180001,
        database="shop",
        databases=("shop", "other"),
        flush_lsn=Lsn(3_000),
        segment_bytes=100,
    ),
    slots=(SLOT,),
    publications=(PUBLICATION,),
    tables={"shop": ("shop.customers", "shop.orders")},
    worker=Worker(
        version="4.3.0",
        plugins={"io.debezium.connector.postgresql.PostgresConnector": "3.7.0.Final"},
    ),
    connectors=(CONNECTOR,),
    topics=(TopicRead(name="shop.shop.orders", topic_id="a", policy="delete", ends={0: 10}),),
    internal_topics=(
        TopicRead(name="connect-configs", topic_id="b", policy="compact", ends={0: 3}),
        TopicRead(name="connect-offsets", topic_id="c", policy="compact", ends={0: 5, 1: 0}),
    ),
)
BEFORE = SOUND.model_copy(
    update={
        "taken": TAKEN,
        "server": SOUND.server and SOUND.server.model_copy(update={"flush_lsn": Lsn(2_950)}),
        "slots": (
            SeenSlot(**{**vars(SLOT), "restart_lsn": Lsn(900), "confirmed_flush_lsn": Lsn(1_900)}),
        ),
        "connectors": (
            CONNECTOR.model_copy(
                update={
                    "offsets": (
                        StoredOffset(partition={"server": "shop"}, offset={"lsn_commit": 1_950}),
                    )
                }
            ),
        ),
    }
)
Made = tuple[Reading, Reading]


def server(of: Reading = SOUND, **changes: Any) -> Reading:  # noqa: ANN401 - fields
    assert of.server is not None
    return of.model_copy(update={"server": of.server.model_copy(update=changes)})


def slot(of: Reading = SOUND, **changes: Any) -> Reading:  # noqa: ANN401 - fields
    return of.model_copy(update={"slots": (SeenSlot(**{**vars(of.slots[0]), **changes}),)})


def connector(of: Reading = SOUND, **changes: Any) -> Reading:  # noqa: ANN401 - fields
    return of.model_copy(update={"connectors": (of.connectors[0].model_copy(update=changes),)})


def config(of: Reading = SOUND, **changes: str) -> Reading:
    """Settings; a name's dots are written as underscores."""
    told = {name.replace("_", "."): value for name, value in changes.items()}
    return connector(of, config=of.connectors[0].config | told)


def offset(of: Reading = SOUND, **told: Any) -> Reading:  # noqa: ANN401 - JSON
    return connector(of, offsets=(StoredOffset(partition={"server": "shop"}, offset=told),))


def with_(of: Reading = SOUND, **changes: Any) -> Reading:  # noqa: ANN401 - fields
    return of.model_copy(update=changes)


def published(of: Reading, **changes: Any) -> Reading:  # noqa: ANN401 - fields
    told = Publication(**{**vars(PUBLICATION.publication), **changes})
    return with_(of, publications=(PUBLICATION.model_copy(update={"publication": told}),))


def topic(name: str = "shop.shop.orders", topic_id: str = "z", end: int = 1) -> TopicRead:
    return TopicRead(name=name, topic_id=topic_id, policy="compact", ends={0: end})


OTHER = SeenSlot(
    name="standby",
    plugin="",
    database="",
    active=False,
    restart_lsn=Lsn(1),
    confirmed_flush_lsn=None,
    wal_status="reserved",
    slot_type="physical",
)
BEATS = {"connector": "shop", "use": "heartbeats", "table": "shop.beats"}
ROUTED = {"transforms_outbox_type": "io.debezium.transforms.outbox.EventRouter"}
FAILED = (Task(id=0, state="FAILED", cause="org.x.Error: no"),)
GONE = Connector(**{**CONNECTOR.model_dump(), "state": "RUNNING"})
HELD = Prepared(gid="g", database="shop", since="then")
DAY_USEC = int((TAKEN - timedelta(days=1)).timestamp() * 1e6)

# each state by its id, made from the sound one; a pair where the earlier set matters as well
MADE: dict[str, Callable[[], Made]] = {
    "S01": lambda: (with_(slots=()), BEFORE),
    "S02": lambda: (connector(with_(slots=()), offsets=(), state="STOPPED", tasks=()), BEFORE),
    "S03": lambda: (slot(restart_lsn=Lsn(2_060), confirmed_flush_lsn=Lsn(2_070)), BEFORE),
    "S04": lambda: (slot(confirmed_flush_lsn=Lsn(2_060)), BEFORE),
    "S05": lambda: (
        config(slot(confirmed_flush_lsn=Lsn(2_060)), lsn_flush_mode="connector_and_driver"),
        BEFORE,
    ),
    "S06": lambda: (server(flush_lsn=Lsn(2_040)), server(BEFORE, flush_lsn=Lsn(2_000))),
    "S07": lambda: (server(timeline=2), BEFORE),
    "S08": lambda: (server(system_identifier="8"), BEFORE),
    "S09": lambda: (config(topic_prefix="renamed"), BEFORE),
    "S10": lambda: (
        connector(
            offsets=(
                *CONNECTOR.offsets,
                StoredOffset(partition={"server": "old"}, offset={"lsn": 5}),
            )
        ),
        BEFORE,
    ),
    "S11": lambda: (offset(lsn=2_000, snapshot="INITIAL", snapshot_completed=False), BEFORE),
    "S12": lambda: (
        offset(lsn_commit=2_050, incremental_snapshot_primary_key="aced"),
        BEFORE,
    ),
    "S13": lambda: (offset(lsn_commit=2_050, ts_usec=DAY_USEC), connector(BEFORE, offsets=())),
    "S14": lambda: (
        with_(worker=Worker(version="4", plugins={"x.PostgresConnector": "3.6.2.Final"})),
        BEFORE,
    ),
    "S15": lambda: (SOUND, offset(BEFORE, lsn_commit=2_050)),
    "S16": lambda: (slot(wal_status="lost", invalidation_reason="wal_removed"), BEFORE),
    "S17": lambda: (slot(wal_status="unreserved", safe_wal_size=-5), BEFORE),
    "S18": lambda: (slot(invalidation_reason="idle_timeout", active=False), BEFORE),
    "S19": lambda: (slot(invalidation_reason="wal_level_insufficient"), BEFORE),
    "S20": lambda: (slot(conflicting=True, wal_status="lost"), BEFORE),
    "S21": lambda: (slot(confirmed_flush_lsn=None, restart_lsn=None), BEFORE),
    "S22": lambda: (slot(reader="pg_recvlogical at 10.0.0.9"), BEFORE),
    "S23": lambda: (slot(plugin="test_decoding"), BEFORE),
    "S24": lambda: (
        slot(active=False, confirmed_flush_lsn=Lsn(2_900)),
        offset(BEFORE, lsn_commit=2_050),
    ),
    "S25": lambda: (slot(active=False), BEFORE),
    "S26": lambda: (SOUND, slot(server(BEFORE, flush_lsn=Lsn(2_000)), restart_lsn=Lsn(1_000))),
    "S27": lambda: (with_(prepared=(HELD,)), with_(BEFORE, prepared=(HELD,))),
    "S28": lambda: (slot(server(in_recovery=True), failover=True, synced=False), BEFORE),
    "S29": lambda: (with_(slots=(SeenSlot(**{**vars(SLOT), "failover": True}), OTHER)), BEFORE),
    "S30": lambda: (server(guards=("standby_9",)), BEFORE),
    "S31": lambda: (server(), server(BEFORE, flush_lsn=Lsn(9_000))),
    "S32": lambda: (with_(publications=()), BEFORE),
    "S33": lambda: (published(SOUND, tables=(Member("shop", "customers"),)), BEFORE),
    "S34": lambda: (
        with_(
            publications=(
                PUBLICATION.model_copy(
                    update={
                        "tables": (PublishedTable(name="shop.orders", identity="n", usable=False),)
                    }
                ),
            )
        ),
        BEFORE,
    ),
    "S36": lambda: (with_(service_tables=(ServiceTable(**BEATS, present=False),)), BEFORE),
    "S37": lambda: (with_(connectors=(), absent=(GONE,)), BEFORE),
    "S38": lambda: (config(snapshot_mode="no_data"), BEFORE),
    "S39": lambda: (connector(tasks=FAILED), BEFORE),
    "S40": lambda: (
        with_(internal_topics=(topic("connect-configs", "b", 9), topic("connect-offsets"))),
        BEFORE,
    ),
    "S41": lambda: (with_(topics=(topic(),)), BEFORE),
    "S43": lambda: (config(with_(topics=(topic(),)), **ROUTED), config(BEFORE, **ROUTED)),
    "S45": lambda: (
        with_(subscriptions=(SubscriptionRead(database="shop", name="s", enabled=True),)),
        BEFORE,
    ),
}
