"""Two recoveries of different kinds: what one has stopped, the other one does not start."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import rest
from pipeline.config import ConnectConfig, PipelineConfig, RepositoryConfig
from pipeline.repository.journal import FOLDER, Journal
from pipeline.runbooks import held_connectors
from tests.recovery.workers import worker

TOPICS = "topics-20261130T120000Z"


def told(config: PipelineConfig, kind: str) -> list[str]:
    return held_connectors.precondition(config, kind).problems()


def begun(repository: Path, name: str = TOPICS) -> Journal:
    journal = Journal(repository / FOLDER / name)
    journal.write("fence", "done", connectors=["shop"])
    return journal


@pytest.mark.parametrize("kind", ["cdc", "registry", "point-in-time"])
def test_connectors_of_an_unfinished_recovery_are_left_stopped(tmp_path: Path, kind: str) -> None:
    begun(tmp_path)
    with worker({"shop": {}}, state="STOPPED") as url:
        config = PipelineConfig(
            connect=ConnectConfig(url=url), repository=RepositoryConfig(path=tmp_path)
        )
        assert told(config, kind) == [f"{TOPICS} did not come to its end, and holds shop stopped"]
        assert told(config, "topics") == []  # one of its own kind has a rule of its own


@pytest.mark.parametrize("ended", ["reconnect", "abandoned", "started by hand"])
def test_a_recovery_that_ended_or_was_given_up_holds_nothing(tmp_path: Path, ended: str) -> None:
    journal = begun(tmp_path)
    if ended == "reconnect":
        journal.write("reconnect", "done")
    elif ended == "abandoned":
        journal.abandon("another recovery was begun instead")
    with worker({"shop": {}}, "RUNNING" if ended == "started by hand" else "STOPPED") as url:
        config = PipelineConfig(
            connect=ConnectConfig(url=url), repository=RepositoryConfig(path=tmp_path)
        )
        assert told(config, "cdc") == []


def test_what_an_unfinished_recovery_holds_is_unknown_without_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "PATIENCE", timedelta(seconds=0.3))
    begun(tmp_path)
    gone = ConnectConfig(url="http://127.0.0.1:9")
    config = PipelineConfig(connect=gone, repository=RepositoryConfig(path=tmp_path))
    [line] = told(config, "cdc")
    assert line.startswith("cannot be found out: ")
