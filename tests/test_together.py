"""A set of sets: what makes its members one, and what is said where they are not."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.errors import ObjectMissing, ServerError
from pipeline.keeping import reaching, together
from pipeline.keeping.retention import decide
from pipeline.postgres.base.reach import Reach
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from tests.sets import committed, topics

NOW = datetime.now(UTC)
POINT = {
    "lsn": "0/3000100",
    "time": NOW.isoformat(),
    "system_identifier": "7",
    "timeline": 1,
    "snapshot": "7:7:",
}
BASE = {
    "system_identifier": "7",
    "timeline": 1,
    "start_lsn": "0/2000028",
    "end_lsn": "0/2000100",
    "end_time": NOW.isoformat(),
    "wal_segment_size": 1 << 24,
}
NONE = {"point": None, "reason": "PostgreSQL does not answer"}
LATE = {"point": POINT, "caught_up": "UNKNOWN", "reason": "the slot stands"}


class Parts:
    """Parts that were backed up, as `take` asks for them."""

    def __init__(
        self,
        root: Path,
        base: dict[str, Any],
        reached: dict[str, Any],
        slots: dict[str, Any] | None = None,
    ) -> None:
        self.root, self.order = root, list[str]()
        point = {"consistency_point": reached, "decided": (NOW + timedelta(hours=1)).isoformat()}
        state = {"system_identifier": "7", "timeline": 1, "lsn": "0/2800000"} | (slots or {})
        self.facts = {
            "base": base,
            "slots": state,
            "offsets": {"cluster_id": "A"},
            "topics": topics() | point,
        }

    def one(self, kind: str) -> together.Part:
        def taken(_: Mapping[str, BackupSet]) -> together.Taken:
            self.order.append(kind)
            return committed(self.root, kind, facts=self.facts[kind]), []

        return taken

    def all(self) -> dict[str, together.Part]:
        return {kind: self.one(kind) for kind in self.facts}


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    ExpectedEnd("7", 1, Lsn.parse("0/4000000"), NOW).write(tmp_path)
    return PipelineConfig(repository=RepositoryConfig(path=tmp_path))


def repository(config: PipelineConfig) -> Repository:
    return Repository(FolderStore(config.repository.path))


def take(
    config: PipelineConfig,
    base: dict[str, Any] = BASE,
    reached: dict[str, Any] | None = None,
    slots: dict[str, Any] | None = None,
) -> together.Taken:
    good = {"point": POINT, "caught_up": True}
    parts = Parts(config.repository.path, base, reached or good, slots)
    soon = timedelta(seconds=0.1)
    taken = together.take(config, repository(config), parts.all(), arrives=soon)
    assert parts.order == ["base", "slots", "offsets", "topics"]
    return taken


def test_members_are_named_and_sealed(config: PipelineConfig) -> None:
    taken, wrong = take(config)
    assert wrong == []
    assert set(taken.manifest.facts["members"]) == {"base", "slots", "offsets", "topics"}
    assert together.point_of(taken)["lsn"] == POINT["lsn"]
    assert list(together.problems(repository(config), taken)) == []
    assert any("behind 0/3000100" in line for line in taken.manifest.facts["loses"])
    assert any(line.startswith("schemas: everything") for line in taken.manifest.facts["loses"])


@pytest.mark.parametrize(
    ("base", "reached", "told"),
    [
        ({**BASE, "end_lsn": "0/3000200"}, None, "behind the point at 0/3000100"),
        ({**BASE, "timeline": 2}, None, "has timeline 2, the point has 1"),
        ({**BASE, "system_identifier": "8"}, None, "has system_identifier 8, the point has 7"),
        (BASE, NONE, "there is no consistency point: PostgreSQL does not answer"),
        (BASE, LATE, "events up to 0/3000100 may not be in the topics: the slot stands"),
    ],
)
def test_what_is_not_one_is_said(
    config: PipelineConfig, base: dict[str, Any], reached: dict[str, Any] | None, told: str
) -> None:
    _, wrong = take(config, base, reached)
    assert any(told in line for line in wrong), wrong


@pytest.mark.parametrize(
    ("slots", "told"),
    [
        ({"lsn": "0/3000200"}, "is of 0/3000200, behind the point at 0/3000100"),
        ({"system_identifier": "8"}, "has system_identifier 8, the point has 7"),
    ],
)
def test_slots_of_another_moment_or_server_are_said(
    config: PipelineConfig, slots: dict[str, Any], told: str
) -> None:
    (line,) = take(config, slots=slots)[1]
    assert told in line


def test_wal_that_does_not_come_is_said_with_what_to_do(config: PipelineConfig) -> None:
    ExpectedEnd("7", 1, Lsn.parse("0/3000000"), NOW).write(config.repository.path)
    taken, (told,) = take(config)
    assert "000000010000000000000003 is not archived" in told
    assert "pipeline wal receive" in told
    assert taken.manifest.facts["wal_missing"] == told
    wal = config.repository.path / "wal"
    wal.mkdir()
    (wal / "000000010000000000000003").touch()
    assert take(config)[1] == []


def test_a_part_that_cannot_be_taken_leaves_no_set_of_sets(config: PipelineConfig) -> None:
    parts = Parts(config.repository.path, BASE, NONE).all()

    def refused(_: Mapping[str, BackupSet]) -> together.Taken:
        raise ServerError("no broker answers")

    with pytest.raises(ServerError, match="no broker"):
        together.take(config, repository(config), parts | {"topics": refused})
    assert repository(config).labels("all") == []
    taken, wrong = together.take(config, repository(config), parts | {"slots": refused})
    assert "slots" not in taken.manifest.facts["members"], "and the rest is one without it"
    assert "there is no backup of slots: no broker answers" in wrong
    assert len(repository(config).labels("base")) == 2, "what was taken stands by itself"


def test_a_member_that_is_gone_or_another_one_is_named(config: PipelineConfig) -> None:
    taken, _ = take(config)
    members = taken.manifest.facts["members"]
    there = config.repository.path / "sets"
    (there / "offsets" / members["offsets"] / "manifest.json").unlink()
    manifest = there / "topics" / members["topics"] / "manifest.json"
    other = committed(config.repository.path, "topics")
    manifest.write_bytes((there / "topics" / other.label / "manifest.json").read_bytes())
    told = list(together.problems(repository(config), taken))
    assert [line.partition(":")[0] for line in told] == [members["offsets"], members["topics"]]


def database(backup: BackupSet | str, **changes: Any) -> Reach:  # noqa: ANN401 - its fields
    label = backup if isinstance(backup, str) else backup.manifest.facts["members"]["base"]
    known: dict[str, Any] = {
        "backup": label,
        "timeline": 1,
        "first_lsn": Lsn.parse("0/2000100"),
        "first_time": NOW,
        "last_lsn": Lsn.parse("0/5000000"),
        "until": NOW + timedelta(hours=2),
        "reason": "the WAL ends",
    }
    return Reach(**(known | changes))


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, None),
        ({"last_lsn": Lsn.parse("0/2800000")}, "the point is at 0/3000100"),
        ({"restorable": False}, "cannot be restored"),
    ],
)
def test_a_point_is_reached_only_where_the_wal_leads_to_it(
    config: PipelineConfig,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    limit: str | None,
) -> None:
    taken, _ = take(config)
    monkeypatch.setattr(reaching, "reach", lambda *_: [database(taken, **changes)])
    at_point, newest = reaching.everything(config)
    if limit is None:
        assert (at_point.until, at_point.limits) == (NOW, ())
        assert newest.until == NOW + timedelta(hours=2)
        assert any("other topics: nothing is known of 1:00:00" in line for line in newest.limits)
    else:
        assert at_point.until is None
        assert any(limit in line for line in at_point.limits)
    assert "schema registry: never backed up" in newest.limits


def test_nothing_leads_anywhere_without_a_base_backup(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaching, "reach", lambda *_: [])
    (newest,) = reaching.everything(config)
    assert newest.until is None
    assert "NOWHERE" in next(newest.lines())


def test_members_stay_as_long_as_the_set_of_sets_does(config: PipelineConfig) -> None:
    """The base backup is older than the set by its own time, and would go before it."""
    taken, _ = take(config)
    members = set(taken.manifest.facts["members"].values())
    for kind in ("base", "offsets", "topics"):  # others take their place as the newest
        facts = BASE if kind == "base" else topics() if kind == "topics" else {"cluster_id": "A"}
        committed(config.repository.path, kind, facts=facts)
    later = NOW + timedelta(days=400)
    spared = dict(decide(config, later).spared)
    assert members <= spared.keys()
    assert any(why == f"{taken.label} is made of it" for why in spared.values())


def test_a_set_without_its_list_of_members_is_an_error(config: PipelineConfig) -> None:
    taken, _ = take(config)
    (config.repository.path / taken.prefix / together.OBJECT).unlink()
    with pytest.raises(ObjectMissing, match=together.OBJECT):
        list(together.problems(repository(config), taken))
