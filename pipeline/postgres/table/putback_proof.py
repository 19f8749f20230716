"""Proof of the transaction that puts tables back: those are as at the target, others untouched."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Connection

from pipeline.errors import RestoreError
from pipeline.postgres.base.digests import other_rows, prepare, present_objects, table_digests
from pipeline.postgres.logical.catalogue import catalogue, differences
from pipeline.postgres.table.copied import Copied

_CHANGED = """
    SELECT relid::bigint, format('%I.%I', schemaname, relname),
           n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables
     WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY 2
"""
_LOCKED = """
    SELECT DISTINCT l.relation::bigint, format('%I.%I', n.nspname, c.relname), l.mode
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm')
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 2, 3
"""
# of these it is their absence that loses something: definitions may be spelled in many ways
_DEFINED = ("constraint ", "default of ", "index ", "policy ", "trigger ")
_TOO_STRONG = frozenset({"ExclusiveLock", "AccessExclusiveLock"})


def prove_same(live: Connection[Any], copied: Copied, oids: Sequence[int]) -> list[str]:
    """Compare rows and objects with the target; return what live tables had then and have not now.

    The settings of the proof must not stay: functions of users may need their search path.
    """
    with live.transaction(force_rollback=True):
        prepare(live)
        found = {(t["schema"], t["name"]): t for t in table_digests(live, oids)}
        present = present_objects(live)
    wrong = [
        f"{t['schema']}.{t['name']}: {told}"
        for t in copied.digests
        if (told := other_rows(t, found.get((t["schema"], t["name"]))))
    ]
    absent = [name for name in copied.objects if name not in present]
    if not wrong and absent and len(copied.missing) == len(copied.relations):
        wrong = [f"{name} is missing" for name in absent]
    if wrong:
        raise RestoreError(
            "not the same as at the target, nothing was changed:\n" + "\n".join(wrong)
        )
    return [*absent, *(name for name in copied.gone if name not in present)]


def prove_defined(live: Connection[Any], copied: Copied, oids: Sequence[int]) -> list[str]:
    """Compare owners, grants, policies and definitions of all that belongs to the tables.

    Returns what is otherwise with live tables, where somebody may have meant it, and definitions
    that do not read the same. RestoreError names what tables that are made again lack, and other
    owners, grants, row security or types: there nobody meant it.
    """
    found = _settled(catalogue(live, oids))
    present = {name: stated for name, stated in copied.kept.items() if name in found}  # or `absent`
    told = [f"{name}: {words}" for name, words in differences(_settled(present), found)]
    told += [f"{name} came since" for name in found if name not in {*copied.kept, *copied.again}]
    wrong = list[str]()
    for name, words in differences(_settled(copied.again), found):
        # a publication may be gone as a whole; that a table is not in one is told by `publications`
        gone = name.startswith("publication ") and name not in found
        reads = name.startswith(_DEFINED) and name in found
        (told if gone or reads else wrong).append(f"{name}: {words}")
    if wrong:
        raise RestoreError(
            "made again, but not as at the target, nothing was changed:\n" + "\n".join(wrong)
        )
    return told


def _settled(stated: Mapping[str, str]) -> dict[str, str]:
    """Take a foreign key that is still to be validated for one that is: `validate` sees to it."""
    return {name: told.removesuffix(" NOT VALID") for name, told in stated.items()}


def prove_untouched(
    live: Connection[Any], oids: Sequence[int], schema: str
) -> dict[str, list[str]]:
    """Refuse where a row of another table was changed, by a cascade for one, or was locked away.

    Returns the locks on other tables.
    """
    changed = [row for row in live.execute(_CHANGED).fetchall() if row[0] not in oids]
    held: dict[str, list[str]] = {}
    for oid, name, mode in live.execute(_LOCKED).fetchall():
        if oid not in oids and not name.startswith(f"{schema}."):
            held.setdefault(name, []).append(mode)
    told = [f"{row[1]}: {row[2]} inserted, {row[3]} updated, {row[4]} deleted" for row in changed]
    told += [
        f"{name}: locked in {mode}"
        for name, modes in held.items()
        for mode in modes
        if mode in _TOO_STRONG
    ]
    if told:
        raise RestoreError(
            "other tables would be touched, nothing was changed:\n" + "\n".join(told)
        )
    return held
