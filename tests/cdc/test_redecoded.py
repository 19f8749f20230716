"""Changes that the real connector delivered, and those that it did not, told apart by decoding."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.stacks.native import NativeStack
from pipeline.cli.changes import show
from pipeline.postgres.base import base_backup
from pipeline.postgres.replication.slots import create_slot, drop_slot
from pipeline.postgres.server.tools import Tools
from pipeline.repository import marker
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.wait import wait_until
from tests.cdc.source import WITHIN, Source, captured

pytestmark = pytest.mark.stack


def archived(stack: NativeStack, source: Source) -> Path:
    """Return what the server has archived once all that was written so far is in it."""
    query = "SELECT pg_walfile_name(pg_switch_wal())"
    (name,) = source.connection.execute(query.encode()).fetchone() or ("",)
    found = stack.config.repository.path / "wal"
    there = found / name
    wait_until(f"archived {name}", lambda: None if there.exists() else "not yet", within=WITHIN)
    return found


def test_changes_of_a_dropped_slot_are_named_and_no_others(
    stack: NativeStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stack.folder / "scratch" / tmp_path.name  # the server's owner can read it there
    marker.make(str(folder))
    columns = "id int PRIMARY KEY, note text, body text"
    with captured(stack, "owed", columns, "SELECT g, 'first' FROM generate_series(1, 9) g") as made:
        place = made.config.repository.model_copy(update={"path": folder})
        source = replace(made, config=made.config.model_copy(update={"repository": place}))
        base_backup.take(source.config, Repository(FolderStore(folder)))
        query = b"SELECT pg_current_wal_insert_lsn()::text"
        (start,) = source.connection.execute(query).fetchone() or ("",)
        source.run("INSERT INTO {} SELECT g, 'many' FROM generate_series(10, 400) g")
        source.run("UPDATE {} SET body = repeat(md5(random()::text), 300) WHERE id < 9")
        source.run("UPDATE {} SET note = 'changed' WHERE id < 9")
        source.run("UPDATE {} SET id = id + 1000 WHERE id = 7")
        source.run("DELETE FROM {} WHERE id BETWEEN 20 AND 30")
        with source.connection.cursor().copy(f"COPY {source.table} (id) FROM STDIN") as rows:
            rows.write("".join(f"{number}\n" for number in range(2000, 2050)))
        source.wait_delivered()
        source.connect.stop(source.name)
        source.connect.wait_stopped(source.name)
        drop_slot(source.connection, source.name)
        source.run("INSERT INTO {} VALUES (5000, 'lost', 'lost')")
        source.run("UPDATE {} SET note = 'lost' WHERE id = 1")
        source.run("UPDATE {} SET id = 5001 WHERE id = 5000")
        source.run("DELETE FROM {} WHERE id = 2")
        end = create_slot(source.connection, source.name).confirmed_flush_lsn
        shutil.copytree(archived(stack, source), folder / "wal", dirs_exist_ok=True)
        Tools.of(source.config.postgres).own(folder)
        show(
            source.config,
            begin=start,
            end=str(end),
            xid=None,
            tables=(),
            as_json=True,
            only_missing=True,
        )
    told, aside = capsys.readouterr()
    assert f"{source.topic}: 470 events of this stretch" in aside
    found = [json.loads(line) for line in told.splitlines()]
    assert [(one["op"], one["key"]["id"]) for one in found] == [
        ("insert", "5000"),
        ("update", "1"),
        ("update", "5001"),
        ("delete", "2"),
    ]
