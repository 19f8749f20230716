"""Each precondition of a point-in-time recovery refuses what would end it behind the fence.

One server and one base backup for all: nothing is stopped, and what is changed is put back.
"""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from fixtures.stacks.native import NativeStack
from fixtures.stacks.ports import Ports
from fixtures.stacks.protocol import Component
from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError
from pipeline.kafka.cluster import momentary, topics
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.lsn import Lsn, segment_name
from pipeline.repository.sets import BackupSet
from pipeline.runbooks import postgres_preconditions, topic_preconditions
from pipeline.runbooks.plan import Plan, make
from pipeline.runbooks.table import TableRecovery, new_restore
from pipeline.runbooks.topic_asked import Asked as TopicsAsked
from tests.recovery.between import proxy
from tests.recovery.history import Source
from tests.recovery.workers import Settings, worker

CONNECTOR = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "slot.name": "debezium",
    "database.dbname": "postgres",
    "topic.prefix": "shop",
}


@dataclass
class Asked:
    """A recovery to the latest moment as it would be asked for, with other settings."""

    source: Source
    plan: Plan
    brokers: str
    """An address that takes connections and answers nothing; without one Connect counts as down."""

    def __call__(self, name: str, config: PipelineConfig | None = None, **said: Any) -> list[str]:  # noqa: ANN401 - as `listed` takes them
        listed = postgres_preconditions.listed(
            config or self.source.config, self.plan, **{"cdc": True, **said}
        )
        (one,) = (one for one in listed if one.name == name)
        return one.problems()

    def config(self, section: str, **changes: Any) -> PipelineConfig:  # noqa: ANN401 - as they are
        config = self.source.config
        changed = getattr(config, section).model_copy(update=changes)
        return config.model_copy(update={section: changed})


@pytest.fixture(scope="module")
def asked(breakable: NativeStack) -> Iterator[Asked]:
    breakable.make_clean()
    source = Source(breakable).prepared()
    source.run(
        "alter system set max_prepared_transactions = 2",
        f"create publication {source.config.cdc.publication} for table notes",
    )
    breakable.stop(Component.POSTGRES)
    breakable.start(Component.POSTGRES)
    source.back_up("one")
    source.expect(source.write("kept").after)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        brokers = f"127.0.0.1:{silent.getsockname()[1]}"
        yield Asked(source, make(source.config, Target.parse("latest")), brokers)


WITHOUT_SERVICES = ("login", "address", "programs", "room", "wal-command", "prepared", "readers")


@pytest.mark.parametrize("name", WITHOUT_SERVICES)
def test_nothing_stands_in_the_way_of_a_sound_server(asked: Asked, name: str) -> None:
    assert asked(name) == []


def test_who_passes_on_to_the_server_would_still_answer_behind_the_fence(asked: Asked) -> None:
    with proxy(asked.source.config.postgres.port) as port:
        (told,) = asked("address", asked.config("postgres", port=port))
    assert f"127.0.0.1:{port} passes on to the server, as a proxy or a pooler does" in told


def test_a_mistyped_data_folder_is_told_while_the_server_is_up(asked: Asked) -> None:
    elsewhere = asked.source.data.with_name("dta")
    (told,) = asked("address", asked.config("postgres", data=elsewhere))
    assert told.startswith(f"no server runs in {elsewhere}, and 127.0.0.1:")
    assert told.endswith("still accepts connections")


def test_an_address_of_another_server_is_told(asked: Asked) -> None:
    asked = replace(asked, plan=replace(asked.plan, system_identifier="1"))
    (told,) = asked("address")
    assert "has the system identifier 1, 127.0.0.1:" in told


def test_a_server_that_is_down_has_no_address_to_be_asked(asked: Asked) -> None:
    with closing(Ports()) as ports:
        nowhere = asked.config("postgres", port=ports.take(), data=asked.source.data / "none")
        assert asked("address", nowhere) == []
        assert asked("login", nowhere) == []


def test_what_only_the_server_holds_must_fit_into_the_repository(asked: Asked) -> None:
    """A server whose archive was away for days holds more WAL than databases."""
    held = asked.source.data / "pg_wal" / segment_name(1, Lsn(1 << 60))
    with held.open("xb") as sparse:
        sparse.truncate(8 << 40)
    try:
        (told,) = asked("room")
    finally:
        held.unlink()
    assert "bytes free for" in told
    assert "what is saved of the server, found" in told


def test_programs_of_another_version_are_told(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 12.1'\n")
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "postgres").chmod(0o755)
    (told,) = asked("programs", asked.config("postgres", bin=tmp_path))
    assert "has postgres (PostgreSQL) 12.1" in told


@pytest.mark.parametrize(
    ("command", "code"),
    [("/opt/gone/pipeline-wal", 200), ("true", 0), ("false", 1)],
    ids=["missing", "another program", "no such program"],
)
def test_a_wal_command_that_replay_cannot_use_is_told(
    asked: Asked, command: str, code: int
) -> None:
    told = asked("wal-command", asked.config("repository", wal_command=command))
    if code == 1:  # what says that it is not there is all that can be asked
        assert told == []
    else:
        assert told[0].startswith(f"{command} ended with exit code {code}")


def test_a_transaction_that_is_prepared_must_be_decided(asked: Asked) -> None:
    with psycopg.connect(**asked.source.config.postgres.conninfo()) as connection:
        before = connection.execute("select now()").fetchone()
        connection.execute("insert into notes (note) values ('prepared')")
        connection.execute("prepare transaction 'of a coordinator'")
    assert before is not None
    try:
        (told,) = asked("prepared")
        decided = asked("prepared", prepared="rollback")
        asked.plan = replace(asked.plan, target=f"time:{before[0].isoformat()}")
        earlier = asked("prepared")
    finally:
        asked.plan = replace(asked.plan, target="latest")
        asked.source.run("rollback prepared 'of a coordinator'")
    assert told.startswith("prepared transaction 'of a coordinator' of postgres in database")
    assert (decided, earlier) == ([], [])


def with_connectors(asked: Asked, url: str, *names: str) -> PipelineConfig:
    kafka = asked.config("kafka", bootstrap_servers=asked.brokers).kafka
    return asked.config("connect", url=url, connectors=names).model_copy(update={"kafka": kafka})


def test_a_connector_that_reads_what_is_configured_is_fit(asked: Asked) -> None:
    with worker({"inventory": CONNECTOR}) as url:
        assert asked("connectors", with_connectors(asked, url)) == []
        assert asked("captured", with_connectors(asked, url)) == []


UNFIT: dict[str, tuple[Settings, str]] = {
    "another prefix": (
        {"topic.prefix": "shpo"},
        "inventory has topic.prefix=shpo, and [cdc] says shop",
    ),
    "another publication": (
        {"publication.name": "reports"},
        "inventory has publication.name=reports, and [cdc] says dbz_publication",
    ),
    "another slot": ({"slot.name": "other"}, "has slot 'debezium' in database 'postgres'"),
}


@pytest.mark.parametrize(("changes", "told"), UNFIT.values(), ids=UNFIT)
def test_a_connector_that_feeds_other_topics_is_told(
    asked: Asked, changes: Settings, told: str
) -> None:
    with worker({"inventory": {**CONNECTOR, **changes}}) as url:
        (found,) = asked("connectors", with_connectors(asked, url))
    assert told in found


@pytest.mark.parametrize(
    "changes", [{"topic.prefix": "raw", "transforms": "route"}, {"topic.prefix": "${env:PREFIX}"}]
)
def test_a_prefix_that_cannot_be_judged_refuses_nothing(asked: Asked, changes: Settings) -> None:
    """Transforms give topics other names; references only the worker resolves."""
    with worker({"inventory": {**CONNECTOR, **changes}}) as url:
        assert asked("connectors", with_connectors(asked, url)) == []


def test_a_connector_that_does_not_exist_is_told(asked: Asked) -> None:
    with worker({"inventory": CONNECTOR}) as url:
        (told,) = asked("connectors", with_connectors(asked, url, "inventry"))
    assert told == f"connect.connectors names 'inventry', and {url} has inventory"


@pytest.mark.parametrize("told_by", ["server", "backup"])
def test_a_published_table_that_no_connector_reads_is_told(asked: Asked, told_by: str) -> None:
    """The server is asked what is published, and where it is down the backup."""
    lists = {"table.include.list": "public.orders"}
    with closing(Ports()) as ports, worker({"inventory": {**CONNECTOR, **lists}}) as url:
        config = with_connectors(asked, url)
        if told_by == "backup":
            down = asked.config("postgres", port=ports.take()).postgres
            config = config.model_copy(update={"postgres": down})
        (told,) = asked("captured", config)
        left_out = asked("captured", config, without_topics=["public.notes"])
    assert told == "public.notes is published, and inventory leaves it out by table.include.list"
    assert left_out == []


def test_a_name_to_be_left_out_that_nothing_has_is_told(asked: Asked) -> None:
    with worker({"inventory": CONNECTOR}) as url:
        config = with_connectors(asked, url)
        (told,) = asked("left-out", config, without_topics=["public.notse", "shop.public.notes"])
    assert told.startswith("public.notse is no published table, and no topic of one")


def test_topics_that_a_transform_names_and_nobody_tells_are_told(asked: Asked) -> None:
    router = {
        "transforms": "r",
        "transforms.r.type": "org.apache.kafka.connect.transforms.RegexRouter",
    }
    with worker({"inventory": {**CONNECTOR, **router}}) as url:
        config = with_connectors(asked, url)
        (told,) = asked("topics", config)
        assert asked("topics", config, without_topics=["public.notes"]) == []
    assert told.startswith("where events of public.notes are is UNKNOWN: transform r (RegexRouter)")


@pytest.mark.parametrize("name", ["connectors", "captured", "registry"])
def test_a_service_that_answers_something_else_is_told(asked: Asked, name: str) -> None:
    with worker({}, path="elsewhere") as url:
        config = with_connectors(asked, url)
        registry = config.registry.model_copy(update={"url": url})
        (told,) = asked(name, config.model_copy(update={"registry": registry}))
    assert told.startswith("cannot be found out: ")
    assert "404" in told


def test_brokers_that_answer_nothing_are_told(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "SECONDS", 0.2)
    monkeypatch.setattr(momentary, "PATIENCE", timedelta(seconds=0.3))
    (told,) = asked("kafka", asked.config("kafka", bootstrap_servers=asked.brokers))
    assert told.startswith("cannot be found out: ")
    assert asked.brokers in told


@pytest.mark.parametrize(
    ("topic", "refused"), [("shop.public.notes", 1), ("shpo.public.notes", 0), ("others", 0)]
)
def test_topics_that_only_a_mistyped_prefix_makes_strangers_are_told(
    asked: Asked, topic: str, refused: int
) -> None:
    """They would come back from the archive alone, without what came since."""
    archive = cast("BackupSet", SimpleNamespace(manifest=SimpleNamespace(facts={"topics": {}})))
    with worker({"inventory": CONNECTOR}) as url:
        config = with_connectors(asked, url)
        config = config.model_copy(
            update={"cdc": config.cdc.model_copy(update={"topic_prefix": "shpo"})}
        )
        listed = topic_preconditions.listed(config, TopicsAsked([topic]), archive, ())
        told = listed[0].problems()
    assert len(told) == refused
    assert all("whose topic.prefix is 'shop', and cdc.topic_prefix is 'shpo'" in t for t in told)


@pytest.mark.parametrize(("left", "refused"), [((), 1), (("orders",), 0)])
def test_a_topic_that_a_transform_named_is_fed_by_its_connector(
    asked: Asked, left: tuple[str, ...], refused: int
) -> None:
    archive = cast("BackupSet", SimpleNamespace(manifest=SimpleNamespace(facts={"topics": {}})))
    with worker({"inventory": CONNECTOR}, topics={"inventory": ["orders"]}) as url:
        wanted = TopicsAsked(["orders", "others"], without_topics=left)
        listed = topic_preconditions.listed(with_connectors(asked, url), wanted, archive, ())
        told = listed[0].problems()
    assert told == ["orders is fed by connector 'inventory', which gives it another name"][:refused]


def test_topics_whose_source_publishes_nothing_are_told(asked: Asked) -> None:
    """Events behind the archive come from rows, and recovered topics would stay behind them."""
    archive = cast("BackupSet", SimpleNamespace(manifest=SimpleNamespace(facts={"topics": {}})))
    config = asked.config("cdc", publication="mistyped")
    listed = topic_preconditions.listed(config, TopicsAsked(["shop.public.notes"]), archive, ())
    (source,) = (one for one in listed if one.name == "source")
    assert source.problems() == ["publication 'mistyped' has no table"]


def restore_of_notes(config: PipelineConfig, **said: Any) -> TableRecovery:  # noqa: ANN401 - as it takes them
    latest = Target.parse("latest")
    return TableRecovery(config, latest, ["public.notes"], new_restore(config), **said)


@pytest.mark.parametrize("state", ["PAUSED", "STOPPED", "FAILED"])
def test_a_connector_that_passes_nothing_on_is_told_before_tables_are_restored(
    asked: Asked, state: str
) -> None:
    with worker({"inventory": CONNECTOR}, state) as url:
        config = with_connectors(asked, url)
        (told,) = restore_of_notes(config).refusals()
        without = [*restore_of_notes(config, topics=False).refusals()]
        unpublished = replace(restore_of_notes(config), tables=["documents"])
        assert [*unpublished.refusals()] == []
    assert told.startswith(f"connectors: inventory: task 0 is {state}")
    assert told.endswith("To go on all the same: --no-topics.")
    assert without == []


def test_events_of_a_connector_that_was_paused_meanwhile_are_not_waited_for(asked: Asked) -> None:
    with worker({"inventory": CONNECTOR}, "PAUSED") as url:
        running = restore_of_notes(with_connectors(asked, url))
        applied = {"ends": {"public.notes": {}}, "changed": 1, "end": "0/1"}
        running.journal.write("apply", "done", **applied)
        with pytest.raises(RestoreError, match=r"inventory: task 0 is PAUSED\. Resume or mend it"):
            running.reconcile()
