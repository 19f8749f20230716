"""What a rehearsal chooses, what it may reach, and how it is judged."""

from pathlib import Path
from random import Random

import psycopg
import pytest

from fixtures.incident import IncidentLog
from fixtures.rehearsal.findings import judged
from fixtures.rehearsal.frozen import frozen
from fixtures.rehearsal.isolation import reaches_nobody
from fixtures.rehearsal.rehearsal import Rehearsal
from fixtures.rehearsal.sockets import SocketWatch
from fixtures.reporting.model import ReportedCheck
from fixtures.verdict import NotVerified, Verdict
from pipeline.config import (
    ConnectConfig,
    KafkaConfig,
    Objectives,
    PipelineConfig,
    PostgresConfig,
    RegistryConfig,
    RepositoryConfig,
)
from tests.recovery.history import History
from tests.sets import committed

OBJECTIVE = Objectives().full_pipeline


@pytest.fixture
def source(tmp_path: Path) -> PipelineConfig:
    """A pipeline at addresses that nothing of a rehearsal may know."""
    return PipelineConfig(
        postgres=PostgresConfig(host="db.example", password="secret", data=tmp_path / "live"),  # noqa: S106 - none
        kafka=KafkaConfig(bootstrap_servers="kafka.example:9092", client={"sasl.password": "x"}),
        connect=ConnectConfig(url="http://connect.example"),
        registry=RegistryConfig(url="http://registry.example"),
        repository=RepositoryConfig(path=tmp_path / "repository"),
    )


def rehearsal(source: PipelineConfig, folder: Path, rng: Random | None = None) -> Rehearsal:
    folder.mkdir(exist_ok=True)
    return Rehearsal(source, folder, IncidentLog(), lambda _: None, SocketWatch(list), rng)


def test_nothing_of_a_rehearsal_knows_where_its_source_is(
    source: PipelineConfig, tmp_path: Path
) -> None:
    committed(source.repository.path, "base")
    running = rehearsal(source, tmp_path / "run")
    config = running.config
    assert ".example" not in running.nowhere.model_dump_json()
    assert ".example" not in config.model_dump_json()
    assert config.postgres.secret() is None
    assert config.kafka.client == {}
    assert config.postgres.data is None
    assert list((config.repository.path / "sets").glob("base/*/manifest.json"))


def test_without_room_of_its_own_nothing_is_rehearsed(source: PipelineConfig) -> None:
    with (
        pytest.raises(NotVerified, match=r"\[scratch\] path is not configured"),
        Rehearsal.begun(source, IncidentLog(), lambda _: None, None),
    ):
        raise AssertionError("it began")


def test_an_older_backup_is_chosen_by_the_seed(source: PipelineConfig, tmp_path: Path) -> None:
    labels = [committed(source.repository.path, "base").label for _ in range(5)]
    chosen = set()
    for seed in range(40):
        newer = rehearsal(source, tmp_path / "run", Random(seed)).newer
        assert newer == rehearsal(source, tmp_path / "run", Random(seed)).newer
        assert newer == labels[len(labels) - len(newer) :]
        chosen.add(labels[len(labels) - len(newer) - 1])
    assert chosen == set(labels[:-1]), "each older one sometimes, and the newest never"
    assert rehearsal(source, tmp_path / "run").newer == []


def test_a_server_that_reaches_others_is_told_by_each_way(history: History) -> None:
    """One that serves clients and archives is what a rehearsed server must not be."""
    postgres = history.source.config.postgres
    seen = reaches_nobody(
        lambda name: psycopg.connect(**postgres.conninfo(dbname=name), autocommit=True), ()
    )
    wrong = dict(one for one in seen if one[1])
    assert {"listen_addresses", "archive_mode", "processes"} <= wrong.keys()
    assert "archiver" in (wrong["processes"] or "")


@pytest.mark.parametrize(
    ("outcomes", "rta", "verdict"),
    [
        (["PASS", "NOT RUN"], 10.0, Verdict.RECOVERED),
        (["PASS"], 7200.0, Verdict.TARGET_MISSED),
        (["PASS", "UNKNOWN"], 10.0, Verdict.NOT_VERIFIED),
        (["UNKNOWN", "FAIL"], 7200.0, Verdict.LOST_DATA),
        ([], 10.0, Verdict.NOT_VERIFIED),
    ],
)
def test_the_verdict_is_the_worst_that_was_found(
    outcomes: list[str], rta: float, verdict: Verdict
) -> None:
    gate = [ReportedCheck("a.check", "A rule.", one, 1, "told", closes=False) for one in outcomes]
    assert judged(gate, rta, OBJECTIVE).verdict == verdict


def test_what_the_source_writes_meanwhile_is_not_seen(tmp_path: Path) -> None:
    """A replay to the newest moment would pass the place that was planned."""
    real, view = tmp_path / "real", tmp_path / "view"
    (real / "stream/1").mkdir(parents=True)
    (real / "wal").mkdir()
    (real / "wal" / "000000010000000000000001").write_bytes(b"whole")
    growing = real / "stream/1" / "000000010000000000000002.partial"
    growing.write_bytes(b"until now")
    (real / "expected-end.json").write_text("then")
    frozen(real, view)
    growing.write_bytes(b"until now, and on")
    growing.rename(growing.with_suffix(""))
    (real / "wal" / "000000010000000000000003").write_bytes(b"later")
    (real / "expected-end.json").write_text("later")
    assert (view / "wal" / "000000010000000000000001").read_bytes() == b"whole"
    assert (view / "stream/1" / growing.name).read_bytes() == b"until now"
    assert (view / "expected-end.json").read_text() == "then"
    assert len(list(view.glob("wal/*")) + list(view.glob("stream/1/*"))) == 2
