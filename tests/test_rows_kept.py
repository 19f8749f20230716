"""Which tables lost rows between backups, decided from what the sets counted."""

from pathlib import Path

import pytest

from checks.rules.backup_rows import rows_kept
from checks.subjects import BackupRepository
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(FolderStore(tmp_path))


def dumped(repository: Repository, database: str = "shop", **rows: int | None) -> str:
    """Commit a logical backup of a database whose tables have so many rows; its label."""
    tables = [{"schema": "public", "name": name, "rows": count} for name, count in rows.items()]
    with repository.begin("logical") as draft:
        facts = {"scope": "database", "database": database, "tables": tables}
        return draft.commit(facts, ()).label


def told(path: Path, *may_shrink: str) -> dict[str, str]:
    seen = rows_kept.examine(BackupRepository(path, may_shrink=may_shrink))
    return {one.subject: one.problem for one in seen if one.problem is not None}


def test_a_table_that_lost_its_rows_is_told_for_as_long_as_a_set_has_them(
    repository: Repository, tmp_path: Path
) -> None:
    full = dumped(repository, orders=1_000, customers=30)
    for _ in range(2):
        last = dumped(repository, orders=20, customers=0)
        assert told(tmp_path) == {
            "public.orders": f"1,000 rows in {full}, 20 in {last}",
            "public.customers": f"30 rows in {full}, 0 in {last}",
        }


def test_a_table_that_may_shrink_is_not_told(repository: Repository, tmp_path: Path) -> None:
    dumped(repository, orders=1_000, queue=500)
    dumped(repository, orders=1_000, queue=0)
    assert told(tmp_path).keys() == {"public.queue"}
    assert not told(tmp_path, "public.queue")


@pytest.mark.parametrize(
    ("before", "after"), [(100, 1), (1_000, 500), (0, 0), (1_000, None), (None, 0), (10, 1_000)]
)
def test_what_is_no_loss_is_not_told(
    repository: Repository, tmp_path: Path, before: int | None, after: int | None
) -> None:
    """Few rows, not even half of them, more than before, or a number that nobody knows."""
    dumped(repository, orders=before)
    dumped(repository, orders=after)
    assert not told(tmp_path)


def test_a_dropped_table_and_another_database_are_not_compared(
    repository: Repository, tmp_path: Path
) -> None:
    dumped(repository, orders=1_000, dropped=1_000)
    dumped(repository, database="beside", orders=10_000)
    dumped(repository, orders=1_000)
    assert not told(tmp_path)
