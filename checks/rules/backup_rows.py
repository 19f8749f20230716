"""Rows that an earlier backup had and the newest has not: each of the two is whole by itself."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.logical_dump import WHOLE
from checks.subjects import BackupRepository
from fixtures.faults import backups
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.base import base_backup
from pipeline.postgres.base.row_digests import FACT
from pipeline.postgres.logical import logical
from pipeline.repository.sets import BackupSet

SHARE = 0.5
"""A table that kept less than this of its rows has lost most of them."""
FEW = 100
"""Fewer rows than these may go from a table that is not empty then."""


@check(
    "backup.rows-kept",
    on=BackupRepository,
    severity="blocker",
    advice="Was that meant? Then name the table in `[checks] may_shrink`. If not: `pipeline find "
    "--table …` names the transaction and the moment before it, and `pipeline restore table "
    "--without …` brings the rows back. Retention removes the sets that still have them.",
)
def rows_kept(repository: BackupRepository) -> Iterator[Observation]:
    """No table lost most of its rows since the earlier sets that are kept, but those that may."""
    for kind in (base_backup.KIND, logical.KIND):
        counted = list(filter(_counted, repository.sets.sets(kind)))
        if not counted:
            continue
        *earlier, newest = counted
        yield Observation(newest.label, None)
        now = _rows(newest)
        for table, (rows, label) in _most(newest, earlier).items():
            if table not in now or table in repository.may_shrink:
                continue
            yield Observation(table, _lost(rows, label, now[table], newest.label))


def _counted(backup: BackupSet) -> bool:
    """Whether the set counted the rows of a whole database."""
    facts = backup.manifest.facts
    if backup.manifest.kind == logical.KIND:
        return facts.get("scope") in {WHOLE, None}
    return "tables" in facts


def _rows(backup: BackupSet) -> dict[str, int]:
    """Rows by table: counted with the digests, else as the server estimated them."""
    facts = backup.manifest.facts
    tables: list[dict[str, Any]] = (facts.get(FACT) or facts)["tables"]
    return {
        f"{one['schema']}.{one['name']}": one["rows"] for one in tables if one["rows"] is not None
    }


def _most(newest: BackupSet, earlier: list[BackupSet]) -> dict[str, tuple[int, str]]:
    """The most rows that a table had in an earlier set of that database, and which set it was."""
    most = dict[str, tuple[int, str]]()
    database = newest.manifest.facts.get("database")
    for backup in earlier:
        if backup.manifest.facts.get("database") == database:
            for table, rows in _rows(backup).items():
                most[table] = max(most.get(table, (0, "")), (rows, backup.label))
    return most


def _lost(before: int, label: str, now: int, newest: str) -> str | None:
    emptied = now == 0 < before
    if emptied or (now < before * SHARE and before - now >= FEW):
        return f"{before:,} rows in {label}, {now:,} in {newest}"
    return None


def _fewer_rows(scratch: Scratch[BackupRepository], backup: BackupSet, kept: float) -> Damage:
    """Have the newest set hold fewer rows of a table than one of the day before."""
    manifest = backup.manifest
    name = manifest.label.removeprefix(f"{manifest.kind}-")
    day_before = manifest.started - timedelta(days=1)
    label = f"{manifest.kind}-{day_before:%Y%m%dT%H%M%SZ}{name[16:]}"
    backups.write_manifest(
        scratch, {**manifest.model_dump(), "label": label, "started": day_before, "objects": ()}
    )
    facts = dict(manifest.facts)
    known = facts.get(FACT) or facts
    tables = [
        {**one, "rows": int(one["rows"] * kept)} if one["name"] == "orders" else one
        for one in known["tables"]
    ]
    changed = {**known, "tables": tables}
    facts = {**facts, FACT: changed} if FACT in facts else changed
    backups.reseal(scratch, backup, facts=facts)
    return Damage("shop.orders", f"{label} had more rows of it", says=f" rows in {label}, ")


@rows_kept.detects
def table_emptied(scratch: Scratch[BackupRepository], _rng: Random) -> Damage:
    """TRUNCATE in the wrong window, and a dump that holds what is left."""
    return _fewer_rows(scratch, backups.latest_logical(scratch), 0)


@rows_kept.detects
def most_rows_deleted(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """DELETE with a condition that was true too often, before the newest base backup."""
    return _fewer_rows(scratch, backups.latest_base(scratch), rng.uniform(0.01, 0.4))
