"""Files of a dropped database go before its transaction commits: targets between are refused."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from fixtures.stacks.protocol import Component
from pipeline.config import PipelineConfig
from pipeline.errors import BeginAgain, TargetUnreachable
from pipeline.postgres.base import base_backup
from pipeline.postgres.history.find import Suspect, find
from pipeline.postgres.history.irrevocable import Removals
from pipeline.postgres.history.waldump import Record
from pipeline.postgres.replay import asking
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.plan import make
from pipeline.runbooks.point_in_time import new_recovery
from tests.recovery.history import Source
from tests.recovery.museum import connect, in_database
from tests.recovery.without_connect import WithoutConnect, recovery


@dataclass
class Shop:
    """A database beside the source's, which is the one that a configuration is about."""

    source: Source
    config: PipelineConfig

    def found(self) -> Suspect:
        backup = self.source.backups["one"]
        found = find(
            self.config.repository.path,
            self.source.tools,
            backup_facts=backup.manifest.facts,
            table="goods",
        )
        return next(one for one in found.suspects if one.what == "drop")

    def recovered(self, target: str) -> WithoutConnect:
        """A recovery to that target, done."""
        identity = self.source.backups["one"].manifest.facts["system_identifier"]
        journal = new_recovery(self.config)
        running = WithoutConnect(self.config, Target.parse(target), journal, identity)
        running.run()
        return running

    def rows(self) -> int:
        with connect(self.config.postgres) as connection:
            row = connection.execute("select count(*) from goods").fetchone()
        return int(str(row[0])) if row else -1


@pytest.fixture
def shop(source: Source) -> Shop:
    source.run("create database shop")
    config = in_database(source.config, "shop")
    with connect(config.postgres) as connection:
        connection.execute("create table goods as select generate_series(1, 100) as id")
        connection.execute("analyze")
    source.backups["one"] = base_backup.take(
        config, Repository(FolderStore(config.repository.path))
    )
    return Shop(source, config)


def drop(shop: Shop) -> None:
    shop.source.run("drop database shop")
    shop.source.write("behind")
    shop.source.archive()
    shop.source.expect(shop.source.flushed())


def test_what_find_prints_brings_a_dropped_database_back(shop: Shop) -> None:
    with connect(shop.config.postgres) as connection:
        connection.execute("insert into goods values (101)")
    drop(shop)
    shop.recovered(shop.found().before)
    assert shop.rows() == 101


def test_a_target_in_the_middle_of_a_drop_is_refused_with_one_that_is_not(shop: Shop) -> None:
    drop(shop)
    suspect = shop.found()
    assert suspect.removal is not None
    with pytest.raises(TargetUnreachable, match=f"To keep it: {suspect.before}"):
        make(shop.config, Target.parse(f"before:xid:{suspect.xid}"))
    with pytest.raises(TargetUnreachable, match=f"To keep it: {suspect.before}"):
        make(shop.config, Target.parse(f"lsn:{suspect.removal.first}"))  # replays what starts there


def test_a_half_dropped_database_is_refused_whoever_asks(shop: Shop) -> None:
    """Of another database nobody would notice, until somebody connects to it."""
    drop(shop)
    suspect = shop.found()
    between = Target.parse(f"before:xid:{suspect.xid}")
    with pytest.raises(TargetUnreachable, match=rf"to go past it: xid:{suspect.xid}$"):
        make(shop.source.config, between)
    make(shop.source.config, Target.parse(f"xid:{suspect.xid}"))


@pytest.mark.parametrize("target", ["latest", "xid"])
def test_a_target_behind_the_drop_of_the_database_that_is_wanted_is_refused(
    shop: Shop, target: str
) -> None:
    drop(shop)
    suspect = shop.found()
    with pytest.raises(TargetUnreachable, match="was dropped before, by transaction"):
        make(shop.config, Target.parse(target if target == "latest" else f"xid:{suspect.xid}"))
    make(shop.source.config, Target.parse("latest"))


def test_a_database_that_is_not_there_at_the_target_is_told_at_once(source: Source) -> None:
    """It is made later: only the server where replay stands can tell."""
    source.back_up("one")
    early = source.write("early")
    source.run("create database later")
    source.expect(source.flushed())
    config = in_database(source.config, "later")
    identity = source.backups["one"].manifest.facts["system_identifier"]
    target = Target.parse(f"xid:{early.xid}")
    running = WithoutConnect(config, target, new_recovery(config), identity)
    with pytest.raises(BeginAgain, match=r'"later" does not exist.*there: postgres, template1'):
        running.run()


def test_a_dropped_tablespace_ends_before_its_folder_goes(source: Source) -> None:
    place = source.data.parent / "shelf"
    place.mkdir()
    source.tools.own(place)
    source.run(f"create tablespace shelf location '{place}'")
    source.back_up("one")
    source.run("drop tablespace shelf")
    xid = source.run("select pg_current_xact_id()::text::int") - 1
    source.expect(source.flushed())
    with pytest.raises(TargetUnreachable, match=r"tablespace \d+ is half .* keep it: before:lsn:"):
        make(source.config, Target.parse(f"before:xid:{xid}"))


def test_what_cannot_connect_is_told_after_a_while(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that is not there may come by replay, but not for ever."""
    monkeypatch.setattr(asking, "STALLED", timedelta(seconds=1))
    source.back_up("one")
    source.expect(source.write("kept").after)
    source.stack.kill(Component.POSTGRES)  # or it says so beforehand
    running = recovery(source, new_recovery(source.config), "latest")
    nobody = source.config.postgres.model_copy(update={"user": "nobody_here"})
    running.config = source.config.model_copy(update={"postgres": nobody})
    with pytest.raises(Exception, match=r'role "nobody_here" does not exist[\s\S]*its log: '):
        running.run()


def line(rmgr: str, xid: int, at: str, op: str, rest: str) -> Record:
    return Record(*(str(word).encode() for word in (rmgr, 30, xid, at, op, rest)))


@pytest.mark.parametrize(
    ("records", "removed"),
    [
        pytest.param([line("Database", 0, "0/10", "DROP", "dir 1663/5")], [], id="moved"),
        pytest.param(
            [
                line("Database", 7, "0/10", "CREATE_FILE_COPY", "copy dir 1663/1 to 1663/5"),
                line("Database", 7, "0/20", "DROP", "dir 1663/5"),
            ],
            [],
            id="never made to the end",
        ),
        pytest.param(
            [
                line("Heap", 0, "0/8", "INPLACE", "off: 4, blkref #0: rel 1664/0/1262 blk 0"),
                line("Heap", 0, "0/10", "INPLACE", "off: 9, blkref #0: rel 1664/0/1262 blk 0"),
                line("Heap", 7, "0/18", "DELETE", "off: 9, blkref #0: rel 1664/0/1262 blk 0"),
                line("Database", 7, "0/20", "DROP", "dir 1663/5"),
            ],
            [(5, "0/10")],
            id="marked before",
        ),
        pytest.param(
            [line("Database", 7, "0/20", "DROP", "dir 1663/5 1700/5")], [(5, "0/20")], id="unmarked"
        ),
    ],
)
def test_only_what_a_transaction_takes_away_counts(
    records: list[Record], removed: list[tuple[int, str]]
) -> None:
    removals = Removals()
    for record in records:
        removals.note(record)
    assert [(one.database, one.first) for one in removals] == [
        (database, Lsn.parse(lsn)) for database, lsn in removed
    ]
