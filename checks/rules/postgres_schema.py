"""What tables are made of at the source, held against the newest logical backup's catalogue."""

import re
from collections.abc import Iterator, Mapping
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.subjects import LogicalBackup, SourceServer
from fixtures.faults import server, sources
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError, ObjectMissing
from pipeline.postgres.logical.catalogue import catalogue

Catalogue = Mapping[str, str]

_TYPE = re.compile(r"(.+?) [tf](?: |$)")  # before whether it is NOT NULL
_COLUMN = re.compile(r'\.(?:"(?:[^"]|"")*"|[^."]+)$')  # behind schema and table
_KEY = re.compile(r"PRIMARY KEY|UNIQUE|FOREIGN KEY")
_REFERRED = re.compile(r" REFERENCES (.+?)\(")
_FULL, _NOTHING = "f", "n"  # replica identities


@check(
    "postgres.columns-and-keys-as-backed-up",
    on=SourceServer,
    advice="Was it changed on purpose? Then see that the registry takes the new schema of that "
    "topic (compatibility), and `pipeline backup logical` makes this green. If not: `pipeline find "
    "--table …` names the moment before, `pipeline restore table` brings it back. A replica "
    "identity that is meant so: name its table in [cdc] narrowed.",
)
def columns_and_keys(source: SourceServer) -> Iterator[Observation]:
    """Every table has the columns, types and keys of the newest dump, and every dump's identity."""
    facts = LogicalBackup.of(source.config).facts
    if facts["database"] != source.config.postgres.dbname:
        raise ObjectMissing(f"catalogue of {source.config.postgres.dbname}", facts["database"])
    if (then := facts.get("catalogue")) is None:
        raise BackupError("the newest logical backup was taken without its catalogue")
    with source.connection() as connection:
        now = catalogue(connection)
    held = {(_table(name), _valid(now[name])) for name in now if name.startswith("constraint ")}
    # tables that are gone are for postgres.schema-as-backed-up; what was added is no loss
    for name, stated in then.items():
        kind = name.partition(" ")[0]
        if f"relation {_table(name)}" not in now:
            continue
        if kind == "column":
            yield Observation(name, _other_type(stated, now.get(name)))
        elif kind == "constraint" and _KEY.match(stated) and _stands(stated, now):
            gone = None if (_table(name), _valid(stated)) in held else f"it was {stated}"
            yield Observation(name, gone)
    yield from _identities(source, now)


def _identities(source: SourceServer, now: Catalogue) -> Iterator[Observation]:
    """What tells less of old rows than at any dump that is kept: the next one would forget it."""
    told = {f"relation {name}" for name in source.config.cdc.narrowed}
    for dump in LogicalBackup.kept(source.config):
        if dump.facts["database"] != source.config.postgres.dbname:
            continue
        for name, stated in (dump.facts.get("catalogue") or {}).items():
            if name.startswith("relation ") and name in now and stated[0] in "rp":
                less = None if name in told else _less_identity(stated[-1], now[name][-1])
                yield Observation(name, f"{less}: {dump.backup.label}" if less else None)
                told |= {name} if less else set()


def _table(name: str) -> str:
    """The table that an entry of the catalogue speaks of, as the server spells it."""
    kind, _, rest = name.partition(" ")
    return _COLUMN.sub("", rest) if kind == "column" else rest.rpartition(" on ")[2]


def _valid(definition: str) -> str:
    return definition.removesuffix(" NOT VALID")


def _stands(definition: str, now: Catalogue) -> bool:
    """Whether a reference may still be there: with a partition that is gone, those to it go."""
    referred = _REFERRED.search(definition)
    return referred is None or f"relation {referred[1]}" in now


def _other_type(then: str, now: str | None) -> str | None:
    if now is None:
        return "the newest logical backup has this column"
    before, after = (found[1] if (found := _TYPE.match(one)) else one for one in (then, now))
    return None if before == after else f"its type was {before}, and is {after}"


def _less_identity(then: str, now: str) -> str | None:
    if now != then and (now == _NOTHING or then == _FULL):
        return f"its replica identity was {then}, and is {now}: events tell less of old rows"
    return None


@columns_and_keys.detects
def column_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A migration that ran in the wrong database."""
    server.execute(scratch, "alter table shop.orders drop column note")
    return Damage("column shop.orders.note", "it was dropped", says="has this column")


@columns_and_keys.detects
def column_of_another_type(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A column made narrower: the next value, and rows of a backup, may not fit."""
    change = sql.SQL("alter table shop.customers alter name type varchar({})")
    server.execute(scratch, change.format(rng.randrange(20, 200)))
    return Damage("column shop.customers.name", "its type was changed", says="its type was text")


@columns_and_keys.detects
def primary_key_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Dropped for a load, and not made again: rows may come twice, and updates are refused."""
    server.execute(scratch, "alter table shop.orders drop constraint orders_pkey")
    return Damage(
        "constraint orders_pkey on shop.orders", "it was dropped", says="it was PRIMARY KEY"
    )


@columns_and_keys.detects
def reference_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A foreign key that was in the way: orders of nobody are let in since."""
    server.execute(scratch, "alter table shop.orders drop constraint orders_customer_fkey")
    name = "constraint orders_customer_fkey on shop.orders"
    return Damage(name, "it was dropped", says="it was FOREIGN KEY")


@columns_and_keys.detects
def replica_identity_lost(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A table whose updates and deletes the publication refuses since."""
    server.execute(scratch, "alter table shop.customers replica identity nothing")
    return Damage("relation shop.customers", "its replica identity is nothing", says="and is n")


@columns_and_keys.detects
def identity_narrowed_before_a_dump(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Consumers that need old values get none since, and the next dump knows no other."""
    server.execute(scratch, "alter table shop.customers replica identity full")
    sources.back_up_logical(scratch)
    server.execute(scratch, "alter table shop.customers replica identity default")
    sources.back_up_logical(scratch)
    what = "its replica identity was full"
    return Damage("relation shop.customers", what, says="its replica identity was f, and is d")
