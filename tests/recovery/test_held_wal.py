"""A busy server lets go of WAL during a long copy, and the copy has all that it needs."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from pipeline.errors import BackupError
from pipeline.postgres.base import base_backup
from pipeline.postgres.base.restore import unpack
from pipeline.repository.sets import Repository
from pipeline.wait import wait_until
from tests.recovery.history import SOON, Source
from tests.recovery.interrupted import Interrupted
from tests.recovery.unpacked import free_place, opened

SLOTS = "select count(*) from pg_replication_slots"


@pytest.fixture
def long_copy(source: Source, tmp_path: Path) -> Repository:
    """A repository that takes so long that the server archives and forgets segments meanwhile."""
    source.write("before the copy")

    def segments_pass() -> None:
        for _ in range(3):
            source.archive()
            source.run("checkpoint")

    return Repository(Interrupted(tmp_path / "repository", segments_pass))


@pytest.fixture
def no_slot_is_free(source: Source) -> None:
    left = (
        "select current_setting('max_replication_slots')::int - count(*) from pg_replication_slots"
    )
    source.run(
        "select pg_create_physical_replication_slot('taken_' || n) "
        f"from generate_series(1, ({left})) n"
    )


def test_wal_is_held_until_the_copy_has_it(source: Source, long_copy: Repository) -> None:
    backup = base_backup.take(source.config, long_copy)
    wait_until(
        "end of the slot", lambda: f"{n} slots" if (n := source.run(SLOTS)) else None, within=SOON
    )
    for into in free_place(source):
        unpack(backup, into, source.tools)
        with opened(into, source) as connection:
            found = connection.execute("select note from notes").fetchall()
    assert found == [("before the copy",)]


@pytest.mark.usefixtures("no_slot_is_free")
def test_without_a_free_slot_a_busy_server_gives_no_backup_and_not_half_a_one(
    source: Source, long_copy: Repository
) -> None:
    with pytest.raises(BackupError, match=r"requested WAL segment \w+ has already been removed"):
        base_backup.take(source.config, long_copy)
    assert list(long_copy.store.list()) == []


@pytest.mark.usefixtures("no_slot_is_free")
def test_without_a_free_slot_a_quiet_server_gives_one_and_it_is_said(
    source: Source, repository: Repository
) -> None:
    said: list[str] = []
    backup = base_backup.take(source.config, repository, said.append)
    assert f"{backup.label}: {base_backup.NOT_HELD}: all replication slots are in use" in said
    assert repository.labels() == [backup.label]


@pytest.fixture
def one_walsender_is_free(source: Source) -> Iterator[None]:
    """Every other one is taken by a client that only stays connected."""
    taken = "select count(*) from pg_stat_activity where backend_type = 'walsender'"
    left = source.run(f"select current_setting('max_wal_senders')::int - ({taken}) - 1")
    with ExitStack() as stack:
        for _ in range(left):
            conninfo = source.config.postgres.conninfo(replication="true")
            stack.enter_context(closing(psycopg.connect(**conninfo)))
        yield


@pytest.mark.usefixtures("one_walsender_is_free")
def test_the_last_walsender_is_left_to_the_copy(source: Source, repository: Repository) -> None:
    said: list[str] = []
    backup = base_backup.take(source.config, repository, said.append)
    (told,) = (line for line in said if base_backup.NOT_HELD in line)
    assert "max_wal_senders" in told
    assert repository.labels() == [backup.label]
