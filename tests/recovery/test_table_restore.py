"""Rows of a moment come back into a live table, and nothing else is touched."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.stacks import toml
from fixtures.stacks.native import NativeStack
from fixtures.stacks.versions import since
from pipeline.cli import app
from pipeline.errors import ConfigError, ObjectMissing, RestoreError
from pipeline.postgres.logical import logical
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.recovery.awkward import GUARD
from tests.recovery.orchard import STAGED, Orchard

VIEW = "view public.tall"
OTHERS = ("growers", "trees", "plain", "weather_2025", "weather_rest")


def test_a_bad_update_is_taken_back_row_by_row(orchard: Orchard) -> None:
    before, definition = orchard.everything(), orchard.definition()
    files = orchard.files("trees", "fruits", "growers", "plain")
    target = orchard.damage(
        "update trees set kind = 'pear', height = 1 where id <= 100;delete from fruits where no = 7"
    )
    orchard.run("insert into growers (name) values ('came later')")
    recovery = orchard.recovery(target, "trees", "fruits")
    recovery.run()
    assert recovery.done["apply"]["counts"] == {
        "public.trees": {"deleted": 0, "updated": 100, "inserted": 0},
        "public.fruits": {"deleted": 0, "updated": 0, "inserted": 1},
    }
    assert orchard.everything() | {"growers": before["growers"]} == before
    assert orchard.definition() == definition
    assert orchard.files("trees", "fruits", "growers", "plain") == files
    assert orchard.run("delete from growers where name = 'came later' returning 1") == 1


def test_a_dropped_table_comes_back_with_all_that_belongs_to_it(orchard: Orchard) -> None:
    """What CASCADE took from elsewhere comes back where it is a foreign key, else it is told."""
    before, files = orchard.everything(), orchard.files("fruits", "growers", "plain")
    view = orchard.run("select pg_get_viewdef('tall')")
    definition = orchard.definition()
    target = orchard.damage("drop table trees cascade")
    recovery = orchard.recovery(target, "trees")
    recovery.run()
    assert recovery.done["apply"]["keys"] == ["fruits_tree_fkey of public.fruits"]
    assert recovery.done["apply"]["absent"] == [VIEW]
    assert recovery.done["prove"]["validated"] == ["fruits_tree_fkey of public.fruits"]
    orchard.run(f"create view tall as {view}")
    assert orchard.everything() == before
    assert orchard.definition() == definition
    assert orchard.files("fruits", "growers", "plain") == files
    taken = orchard.run("insert into trees (grower) values (1) returning id")
    assert taken > 300
    orchard.run(f"delete from trees where id = {taken}")


@pytest.mark.parametrize(
    ("tables", "statement"),
    [
        pytest.param(
            ("trees", "fruits", "growers"), "truncate growers cascade", id="three-by-foreign-keys"
        ),
        pytest.param(("weather",), "drop table weather", id="partitioned-dropped"),
        pytest.param(
            ("weather",),
            "delete from weather where rain > 3; update weather set rain = rain + 1",
            id="partitions-updated",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("fruits", "weather_rest"),
            "truncate fruits, weather_rest",
            id="one-partition",
            marks=pytest.mark.slow,
        ),
        pytest.param(("plain",), "drop table plain", id="no-key", marks=pytest.mark.slow),
    ],
)
def test_what_was_asked_for_comes_back_together(
    orchard: Orchard, tables: tuple[str, ...], statement: str
) -> None:
    before, definition = orchard.everything(), orchard.definition()
    target = orchard.damage(statement)
    orchard.recovery(target, *tables).run()
    assert orchard.everything() == before
    assert orchard.definition() == definition


def test_a_table_that_would_be_made_again_with_other_grants_is_not(orchard: Orchard) -> None:
    """Default privileges that were given since apply to every new table, and no digest tells."""
    before, definition = orchard.everything(), orchard.definition()
    target = orchard.damage("drop table plain")
    orchard.run("alter default privileges grant select on tables to gardener")
    told = r"made again, but not as at the target, nothing was changed:\n"
    with pytest.raises(RestoreError, match=told + r"relation public\.plain: .*gardener=r"):
        orchard.recovery(target, "plain").run()
    assert orchard.run("select to_regclass('plain')") is None
    orchard.run("alter default privileges revoke select on tables from gardener")
    recovery = orchard.recovery(target, "plain")
    recovery.run()
    assert recovery.done["apply"]["otherwise"] == []
    assert orchard.everything() == before
    assert orchard.definition() == definition


def test_what_was_altered_about_a_live_table_since_is_told_and_left(orchard: Orchard) -> None:
    target = orchard.damage("update trees set notes = 'wrong' where id <= 3")
    orchard.run(
        "alter policy gardeners on trees using (kind <> 'pear')",
        "grant delete on trees to pg_monitor",
        "alter publication orchard set table trees where (id > 5), fruits (tree, no)",
        "create index trees_touched on trees (touched)",
    )
    definition, recovery = orchard.definition(), orchard.recovery(target, "trees")
    recovery.run()
    assert [told.partition(": expected")[0] for told in recovery.done["apply"]["otherwise"]] == [
        "policy gardeners on public.trees",
        "publication orchard of public.trees",
        "relation public.trees",
        "index public.trees_touched came since",
    ]
    assert orchard.definition() == definition
    orchard.run(
        "alter policy gardeners on trees using (kind = 'apple')",
        "revoke delete on trees from pg_monitor",
        "alter publication orchard set table trees where (id > 0), fruits (tree, no)",
        "drop index trees_touched",
    )


def test_rows_that_would_lose_their_parent_are_named(orchard: Orchard) -> None:
    """Not deleted with it, though their foreign key says ON DELETE CASCADE."""
    target = orchard.damage("update trees set kind = 'pear'")
    orchard.run(
        "insert into trees (id, grower) overriding system value values (9001, 1)",
        "insert into fruits values (9001, 1, 1), (9001, 2, 1)",
    )
    wrong = orchard.everything()
    with pytest.raises(RestoreError, match=r"fruits: 2 rows have no parent .*\(tree\) = 9001"):
        orchard.recovery(target, "trees").run()
    assert orchard.everything() == wrong
    orchard.recovery(target, "trees", "fruits").run()
    assert orchard.run("select count(*) from fruits where tree = 9001") == 0


def test_a_change_elsewhere_takes_everything_back(orchard: Orchard) -> None:
    """A rule writes to another table: what nobody asked for must not happen."""
    target = orchard.damage("insert into fruits select 1, 10000 + n from generate_series(1, 9) n")
    orchard.run("create rule log as on delete to fruits do also insert into plain values ('log')")
    wrong = orchard.everything()
    with pytest.raises(RestoreError, match=r"other tables would be touched.*\n.*plain: 9 inserted"):
        orchard.recovery(target, "fruits").run()
    assert orchard.everything() == wrong
    orchard.run("drop rule log on fruits")
    orchard.recovery(target, "fruits").run()


def test_rows_that_do_not_come_out_as_they_were_take_everything_back(orchard: Orchard) -> None:
    """A rule swallows them, and the server reports no error: only the digest tells."""
    before = orchard.everything()
    target = orchard.damage("delete from fruits where no % 3 = 0")
    orchard.run("create rule swallow as on insert to fruits do instead nothing")
    wrong = orchard.everything()
    told = r"not the same as at the target, nothing was changed:\npublic\.fruits: expected \d+ rows"
    with pytest.raises(RestoreError, match=told):
        orchard.recovery(target, "fruits").run()
    assert orchard.everything() == wrong
    orchard.run("drop rule swallow on fruits")
    orchard.recovery(target, "fruits").run()
    assert orchard.everything() == before


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("plain", "update plain set note = 'x'", "plain has no primary key"),
        pytest.param(
            "fruits",
            "alter table fruits add ripe bool",
            "columns of public.fruits were altered",
            marks=pytest.mark.slow,
        ),
        ("scratchpad", "insert into scratchpad values (1)", "scratchpad is unlogged"),
        pytest.param("nowhere", "select 1", "there is no such table", marks=pytest.mark.slow),
        ("tall", "select 1", "there is no such table"),
    ],
)
def test_what_cannot_be_put_back_is_refused(
    orchard: Orchard, table: str, change: str, told: str
) -> None:
    target = orchard.damage("select pg_current_xact_id()")
    orchard.run(change)
    before = orchard.everything()
    with pytest.raises((RestoreError, ConfigError), match=told):
        orchard.recovery(target, table).run()
    assert orchard.everything() == before
    assert orchard.run(STAGED) == 0
    orchard.run("alter table fruits drop column if exists ripe")


def test_the_command_takes_rows_from_a_logical_backup(
    orchard: Orchard, breakable: NativeStack, tmp_path: Path
) -> None:
    config = orchard.source.config
    toml.write(config, tmp_path / "pipeline.toml", password_file=breakable.password_file)
    options = ["--config", str(tmp_path / "pipeline.toml"), "--no-topics"]
    logical.take(config, Repository(FolderStore(config.repository.path)))
    before, definition = orchard.everything(), orchard.definition()
    orchard.run("drop table fruits", "update trees set notes = 'gone'")
    words = ["restore", "table", "--from", "latest", "--table", "trees", "--table", "fruits"]
    planned = CliRunner().invoke(app, [*words, "--plan", *options])
    assert planned.exit_code == 0, planned.output
    assert "fruits is gone: it is made again" in planned.output
    assert "public.trees gets the rows of the moment" in planned.output
    assert (
        orchard.run("select count(*) from trees where notes <> 'gone'") == orchard.run(STAGED) == 0
    )
    told = CliRunner().invoke(app, [*words, *options])
    assert told.exit_code == 0, told.output
    assert "public.fruits: 0 deleted, 0 updated, 900 inserted" in told.output
    assert "NOT compared with topics: not asked for" in told.output
    assert orchard.everything() == before
    assert orchard.definition() == definition


def test_the_command_wants_one_source(breakable: NativeStack, tmp_path: Path) -> None:
    toml.write(breakable.config, tmp_path / "pipeline.toml", password_file=breakable.password_file)
    options = ["--config", str(tmp_path / "pipeline.toml"), "--table", "trees"]
    for source in ([], ["--to", "latest", "--from", "latest"]):
        told = CliRunner().invoke(app, ["restore", "table", *source, *options])
        assert isinstance(told.exception, ConfigError | ObjectMissing)


def test_the_wal_of_a_restore_changes_rows_of_its_tables_only(orchard: Orchard) -> None:
    """What the server wrote down itself; locks of rows that a foreign key refers to are none."""
    source, begin = orchard.source, orchard.source.position()
    target = orchard.damage("drop table fruits")
    recovery = orchard.recovery(target, "fruits")
    recovery.run()
    (sent,) = (line for line in recovery.journal.lines() if line["result"] == "sent")
    end = orchard.run("select pg_current_wal_flush_lsn()::text")
    told = source.tools.run(
        "pg_waldump",
        *(f"--path={source.data}/pg_wal", f"--xid={sent['xid']}"),
        *(f"--start={begin}", f"--end={end}"),
    )
    changed = set(re.findall(r"rmgr: Heap2? .*desc: (?!LOCK).*rel \d+/\d+/(\d+)", told))
    files = {name: str(file) for name, (_, file) in orchard.files("fruits", *OTHERS).items()}
    assert files.pop("fruits") in changed
    assert not changed & set(files.values())


def test_unique_values_that_went_from_row_to_row_go_back(orchard: Orchard) -> None:
    """Two growers changed names, a third took that of the second; trees refer to all of them."""
    orchard.run(
        "create function noted() returns trigger language plpgsql as $$begin"
        " raise exception 'a trigger ran'; end$$",
        "create trigger noted before delete or insert on growers for each row"
        " execute function noted()",
        "alter table growers enable replica trigger noted",
    )
    before, definition = orchard.everything(), orchard.definition()
    target = orchard.damage(
        "update growers set name = name || ' of old' where id < 4;"
        "update growers set name = format('grower %s', 1 + id % 3) where id < 4;"
        "update growers set name = 'grower 21' where id = 20"
    )
    recovery = orchard.recovery(target, "growers")
    recovery.run()
    assert recovery.done["apply"]["counts"] == {
        "public.growers": {"deleted": 0, "updated": 0, "replaced": 4, "inserted": 0}
    }
    assert orchard.everything() == before
    assert orchard.definition() == definition
    orchard.run("drop function noted cascade")


def test_rows_do_not_go_into_another_table_that_took_the_name(orchard: Orchard) -> None:
    before = orchard.everything()
    target = orchard.damage("delete from fruits")
    orchard.run("alter table fruits rename to old_fruits")
    orchard.run("create table fruits (like old_fruits including all)")
    told = "what was public.fruits at the target is public.old_fruits now"
    with pytest.raises(RestoreError, match=told):
        orchard.recovery(target, "fruits").run()
    assert orchard.run("select count(*) from fruits") == 0
    orchard.run("drop table fruits", "alter table old_fruits rename to fruits")
    orchard.recovery(target, "fruits").run()
    assert orchard.everything() == before


def test_a_guard_against_ddl_is_no_obstacle(orchard: Orchard) -> None:
    since(17, "a session without event triggers")
    before = orchard.everything()
    target = orchard.damage("drop table plain; delete from fruits where no < 50")
    orchard.run(GUARD)
    try:
        orchard.recovery(target, "plain", "fruits").run()
    finally:
        orchard.run("drop event trigger guard", "drop function no_ddl")
    assert orchard.everything() == before


def test_tables_of_a_schema_that_is_gone_come_back_with_it(orchard: Orchard) -> None:
    orchard.run(
        'create schema "Cold Store" authorization gardener; set role gardener;'
        'create table "Cold Store"."Crates" (id int primary key, tree bigint); reset role;'
        'grant usage on schema "Cold Store" to pg_monitor with grant option;'
        'grant create on schema "Cold Store" to public;'
        "create schema plain create table plain.one (id int primary key);"
        'insert into "Cold Store"."Crates" values (1, 1)'
    )
    orchard.source.back_up("cold")
    definition = orchard.definition()
    target = orchard.damage('drop schema "Cold Store" cascade; drop schema plain cascade')
    orchard.recovery(target, '"Cold Store"."Crates"', "plain.one").run()
    assert orchard.run('select tree from "Cold Store"."Crates"') == 1
    assert orchard.definition() == definition
    orchard.run('drop schema "Cold Store" cascade; drop schema plain cascade')
