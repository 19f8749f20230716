"""What comes back from the newest logical backup: in a new server, with nothing of the old one."""

from collections.abc import Iterator
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.relation_rules import references, sequences
from checks.restored import LogicalRestore
from fixtures.faults import backups, dumps, sources
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError, PipelineError
from pipeline.postgres.base import large_objects
from pipeline.postgres.base.digests import other_rows, prepare, present_objects, table_digests
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.catalogue import FOR_ALL_ROLES, catalogue, differences


@check(
    "logical.restores-every-row",
    on=LogicalRestore,
    severity="blocker",
    advice="This dump does not bring the data back. Look whether the source holds what is named "
    "here: where it is wrong there too, a new dump is no better, and the one before this must be "
    "kept. Else take a new one, and prove it with this check.",
)
def restores_every_row(restored: LogicalRestore) -> Iterator[Observation]:
    """The newest logical backup loads, and every table has the rows and digest noted with it."""
    facts, label = restored.dump.facts, restored.dump.backup.label
    try:
        connection = restored.connect()
    except PipelineError as error:
        yield Observation(label, str(error))
        return
    yield Observation(label, None)
    with connection, connection.transaction():
        prepare(connection)
        present = present_objects(connection)
        for name in facts["objects"]:
            yield Observation(name, None if name in present else "it did not come back")
        found = {(table["schema"], table["name"]): table for table in table_digests(connection)}
        held = large_objects.read(connection)
    if large_objects.dumped(facts):
        yield Observation("large objects", large_objects.other(facts[large_objects.FACT], held))
    for table in facts["tables"]:
        name = f"{table['schema']}.{table['name']}"
        yield Observation(name, other_rows(table, found.get((table["schema"], table["name"]))))


@restores_every_row.detects
def letter_changed_in_the_dump(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """One bit of a dump that is not packed: pg_restore ends with 0, and a name is another one."""
    dumps.taken_otherwise(scratch, compressed=False)
    name = f"customer {rng.randrange(10, 99)}".encode()
    dumps.change(scratch, logical.DUMP, lambda content: dumps.change_a_letter(content, name))
    return Damage(
        "shop.customers", f"one letter of {name!r} became another", says="rows with digest"
    )


@restores_every_row.detects
def rows_missing_in_the_dump(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """A dump of another moment than its manifest: rows came in between."""
    gone = sql.SQL("delete from shop.orders where id = {}").format(rng.randrange(1, 2_000))
    with sources.running(scratch):
        sources.execute(scratch, gone)
    dumps.taken_otherwise(scratch)
    return Damage("shop.orders", "the dump was taken after a row had gone", says="rows with digest")


@restores_every_row.detects
def large_objects_left_out(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """A dump with --no-blobs: rows refer to scans of which nothing is there."""
    make = "select lo_from_bytea(0, decode(repeat('7f', {}), 'hex')) from generate_series(1, 3)"
    sources.logical_backup_after(scratch, sql.SQL(make).format(rng.randrange(1, 9_000)))
    dumps.taken_otherwise(scratch, "--no-blobs")
    return Damage("large objects", "the dump has none of three", says="expected 3 of")


@restores_every_row.detects
def dump_that_does_not_load(scratch: Scratch[LogicalRestore], _rng: Random) -> Damage:
    """Damage that only a load finds; a script that swallows its error calls it a restore."""
    dumps.change(scratch, logical.DUMP, dumps.break_a_packed_block)
    return Damage(
        backups.latest_logical(scratch).label,
        "packed rows were damaged before storing",
        says="pg_restore ended with exit code",
    )


@check(
    "logical.restores-the-catalogue",
    on=LogicalRestore,
    advice="Rows would be there, and who may see them would differ: load globals.sql before the "
    "dump, then compare what is named here, or take a backup as an account that may read it all.",
)
def restores_the_catalogue(restored: LogicalRestore) -> Iterator[Observation]:
    """Roles, owners, grants, policies, settings, extensions and publications come back as noted."""
    noted = restored.dump.facts.get("catalogue")
    if noted is None:
        raise BackupError(f"{restored.dump.backup.label}: it was taken without its catalogue")
    with restored.connect() as connection:
        found = catalogue(connection)
    wrong = dict(differences(noted, found))
    for name in noted:
        if name != FOR_ALL_ROLES:  # no dump has it; who restores is told
            yield Observation(name, wrong.get(name))


@restores_the_catalogue.detects
def role_left_out(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """Roles that were made by hand on the new server, and one of them was forgotten."""
    role = f"reader_{rng.randrange(100)}"
    sources.logical_backup_after(
        scratch,
        sql.SQL("create role {}").format(sql.Identifier(role)),
    )
    dumps.change(
        scratch,
        logical.GLOBALS,
        lambda content: b"".join(
            line for line in content.splitlines(keepends=True) if role.encode() not in line
        ),
    )
    return Damage(f"role {role}", "globals.sql does not make it", says="it did not come back")


@restores_the_catalogue.detects
def grants_and_owners_left_out(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """A dump with --no-privileges, as the copy for a test system is made."""
    table = rng.choice(("customers", "orders"))
    with sources.running(scratch):
        grant = sql.SQL("grant select on {} to public").format(sql.Identifier("shop", table))
        sources.execute(scratch, grant)
        sources.back_up_logical(scratch)
    dumps.taken_otherwise(scratch, "--no-privileges")
    return Damage(
        f"relation shop.{table}", "the dump does not grant what was granted", says="expected "
    )


@restores_the_catalogue.detects
def publication_left_out(scratch: Scratch[LogicalRestore], _rng: Random) -> Damage:
    """A dump with --no-publications: every row comes back, and CDC is silent."""
    dumps.taken_otherwise(scratch, "--no-publications")
    return Damage(
        f"publication {scratch.config.cdc.publication}",
        "the dump does not make it",
        says="it did not come back",
    )


@restores_the_catalogue.detects
def row_security_left_out(scratch: Scratch[LogicalRestore], _rng: Random) -> Damage:
    """A dump with --no-policies: everybody sees every row."""
    sources.logical_backup_after(
        scratch,
        "alter table shop.orders enable row level security",
        "create policy own on shop.orders using (customer = 1)",
    )
    dumps.taken_otherwise(scratch, "--no-policies")
    return Damage(
        "policy own on shop.orders", "the dump does not make it", says="it did not come back"
    )


@restores_the_catalogue.detects
def setting_of_the_database_lost(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """A setting that was made for the database, and not in a file."""
    name = scratch.config.postgres.dbname
    change = sql.SQL("alter database {} set work_mem = {}").format(
        sql.Identifier(name), f"{rng.randrange(8, 64)}MB"
    )
    sources.logical_backup_after(scratch, change)
    with sources.running(scratch):
        reset = sql.SQL("alter database {} reset all").format(sql.Identifier(name))
        sources.execute(scratch, reset)
    dumps.taken_otherwise(scratch)
    return Damage(
        f"setting of {name}",
        "the dump was taken after it had been reset",
        says="it did not come back",
    )


@restores_the_catalogue.detects
def default_privileges_left_out(scratch: Scratch[LogicalRestore], _rng: Random) -> Damage:
    """A dump with --no-privileges: what is there is granted by hand, and the next table is not."""
    grant = "alter default privileges in schema shop grant select on tables to public"
    sources.logical_backup_after(scratch, grant)
    dumps.taken_otherwise(scratch, "--no-privileges")
    owner = scratch.config.postgres.user
    return Damage(
        f"default privileges {owner} shop r",
        "the dump does not make them",
        says="it did not come back",
    )


@restores_the_catalogue.detects
def extension_of_another_version(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """The source never ran ALTER EXTENSION UPDATE: a dump makes the newest that is at hand."""
    version = f"1.{rng.randrange(1, 4)}"
    make = sql.SQL("create extension amcheck version {}").format(sql.Literal(version))
    sources.logical_backup_after(scratch, make)
    what = f"the source has its version {version}"
    return Damage("extension amcheck", what, says=f"expected '{version} public', found")


@restores_the_catalogue.detects
def event_trigger_left_out(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """A trigger that was switched off for a migration, and the dump was taken meanwhile."""
    name = sql.Identifier(f"watch_{rng.randrange(100)}")
    sources.logical_backup_after(
        scratch,
        "create function shop.watch() returns event_trigger language plpgsql as 'begin end'",
        sql.SQL("create event trigger {} on sql_drop execute function shop.watch()").format(name),
    )
    with sources.running(scratch):
        sources.execute(scratch, sql.SQL("drop event trigger {}").format(name))
    dumps.taken_otherwise(scratch)
    return Damage(
        f"event trigger {name.as_string()[1:-1]}",
        "the dump does not make it",
        says="it did not come back",
    )


@restores_the_catalogue.detects
def database_of_another_encoding(scratch: Scratch[LogicalRestore], _rng: Random) -> Damage:
    """A database with the default of another machine: one day a row does not fit into it."""
    old, new = b"ENCODING = 'UTF8'", b"ENCODING = 'KOI8'"
    dumps.change(scratch, logical.DUMP, lambda content: content.replace(old, new))
    return Damage("database", "the dump makes it in KOI8", says="expected 'UTF8")


@check(
    "logical.restores-its-rules",
    on=LogicalRestore,
    advice="The loaded database would refuse inserts, or holds rows that break its own rules: "
    "repair them at the source, where they are as well, and take a new backup.",
)
def restores_its_rules(restored: LogicalRestore) -> Iterator[Observation]:
    """In the loaded database every constraint holds, and no sequence gives a number again."""
    with restored.connect() as connection:
        yield from sequences(connection)
        yield from references(connection)


@restores_its_rules.detects
def sequence_behind_its_column(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """A sequence that was set back: the first inserts after a restore fail."""
    number = rng.randrange(1, 100)
    restart = sql.SQL("select setval('shop.orders_id_seq', {})").format(number)
    sources.logical_backup_after(scratch, restart)
    return Damage("shop.orders_id_seq", f"it was set back to {number}", says="it would give")


@restores_its_rules.detects
def rule_that_was_never_looked_at(scratch: Scratch[LogicalRestore], rng: Random) -> Damage:
    """A check that is NOT VALID, and rows from before it."""
    number = rng.randrange(2, 100)
    add = "alter table shop.customers add constraint first check (id >= {}) not valid"
    sources.logical_backup_after(scratch, sql.SQL(add).format(number))
    return Damage("shop.first", f"customers below {number} are there", says="rows break it")
