"""A restore of tables that dies leaves them as they were or as they shall be, and can go on."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from fixtures.stacks import toml
from fixtures.stacks.native import NativeStack
from pipeline.errors import RecoveryRefused, ServerError
from pipeline.postgres.table.putback import PutBack
from pipeline.repository.journal import Journal
from pipeline.runbooks import side
from pipeline.runbooks.live import handed_over
from pipeline.runbooks.runbook import Facts
from pipeline.runbooks.table import TableRecovery
from pipeline.wait import wait_until
from tests.recovery.history import SOON
from tests.recovery.interrupted import Power
from tests.recovery.orchard import STAGED, Orchard

SOURCES = Path(__file__).parent.parent.parent


@dataclass
class Cut(TableRecovery):
    """A restore that dies after a step, or on either side of its COMMIT."""

    at: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()

        def die(step: str, _facts: Facts) -> None:
            if step == self.at:
                raise Power

        self.observe = die

    def _tell(self, done: PutBack) -> None:
        super()._tell(done)
        if self.at == "committed":
            raise Power


class Torn(Journal):
    """A journal whose writer dies right after it said what it is about to commit."""

    def write(self, step: str, result: str, **facts: object) -> None:
        super().write(step, result, **facts)
        if result == "sent":
            raise Power


def cut(recovery: TableRecovery, at: str) -> Cut:
    return Cut(
        recovery.config, recovery.target, recovery.tables, recovery.journal, topics=False, at=at
    )


@pytest.mark.parametrize("at", ["stage", pytest.param("plan", marks=pytest.mark.slow)])
def test_before_the_commit_the_table_is_as_it_was(orchard: Orchard, at: str) -> None:
    before = orchard.everything()
    target = orchard.damage("delete from fruits where no % 2 = 0")
    wrong = orchard.everything()
    recovery = orchard.recovery(target, "fruits")
    with pytest.raises(Power):
        cut(recovery, at).run()
    assert orchard.everything() == wrong
    assert not list(side.scratch(recovery.config).glob(f"{side.PREFIX}*/data"))
    orchard.recovery(target, "fruits", journal=recovery.journal).run()
    assert orchard.everything() == before
    assert orchard.run(STAGED) == 0


def test_a_commit_that_was_not_sent_is_done_again(orchard: Orchard) -> None:
    before = orchard.everything()
    target = orchard.damage("drop table fruits")
    recovery = orchard.recovery(target, "fruits")
    with pytest.raises(Power):
        orchard.recovery(target, "fruits", journal=Torn(recovery.journal.folder)).run()
    assert orchard.run("select to_regclass('fruits')") is None
    recovery.run()
    assert orchard.everything() == before


def test_after_the_commit_nothing_is_taken_back_again(orchard: Orchard) -> None:
    """What clients wrote between the commit and the resume stays."""
    target = orchard.damage("update fruits set weight = 0")
    recovery = orchard.recovery(target, "fruits")
    with pytest.raises(Power):
        cut(recovery, "committed").run()
    orchard.run("insert into fruits values (1, 77777, 5)")
    again = orchard.recovery(target, "fruits", journal=recovery.journal)
    again.run()
    assert again.done["apply"]["found"] == "committed before the interruption"
    assert orchard.run("delete from fruits where no = 77777 returning weight") == 5
    assert orchard.run("select count(*) from fruits where weight = 0") == 0


def test_rows_that_another_restore_swept_are_staged_again(orchard: Orchard) -> None:
    """They are not taken for committed, nor is the restore given up."""
    before = orchard.everything()
    target = orchard.damage("update fruits set weight = 0")
    recovery = orchard.recovery(target, "fruits")
    with pytest.raises(Power):
        cut(recovery, "stage").run()
    schema = orchard.run(STAGED.replace("count(*)", "nspname"))
    orchard.run(f"drop schema {schema} cascade")
    orchard.recovery(target, "fruits", journal=recovery.journal).run()
    assert recovery.journal.count("stage", "done") == 2
    assert orchard.everything() == before


def test_two_restores_do_not_run_at_once(orchard: Orchard) -> None:
    target = orchard.damage("select pg_current_xact_id()")
    recovery = orchard.recovery(target, "fruits")
    with (
        side.alone(recovery.config),
        pytest.raises(RecoveryRefused, match="another side server is at work"),
    ):
        recovery.run()


def test_a_client_that_holds_one_lock_and_wants_the_next_is_let_through(orchard: Orchard) -> None:
    """A drill found it: two foreign keys came back one by one, and neither side ever let go."""
    orchard.run("create table leaves (tree bigint references trees)")
    source, before = orchard.source, orchard.everything()
    source.back_up("with leaves")
    target = orchard.damage("drop table trees cascade")
    recovery = orchard.recovery(target, "trees")
    with pytest.raises(Power):
        cut(recovery, "stage").run()
    with source.connect() as client, ThreadPoolExecutor() as thread:
        client.execute("begin; insert into leaves values (1)")
        restoring = thread.submit(orchard.recovery(target, "trees", journal=recovery.journal).run)
        waits = "select count(*) from pg_locks where not granted and relation = 'leaves'::regclass"
        wait_until("wait for leaves", lambda: None if orchard.run(waits) else "no", within=SOON)
        client.execute("insert into fruits values (1, 123456, 1)")
        client.execute("commit")
        restoring.result()
    orchard.run("delete from fruits where no = 123456", "drop table leaves")
    orchard.run("create view tall as select id, kind from trees where height > 5")
    assert orchard.everything() == before


def test_an_idle_server_has_handed_over_what_it_wrote(orchard: Orchard) -> None:
    """At the end of a segment the next one is not begun, and would be waited for in vain."""
    orchard.run("select pg_switch_wal()")
    with orchard.source.connect() as live:
        handed_over(live, orchard.source.config)
        handed_over(live, orchard.source.config)


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_one_of_two_states(
    orchard: Orchard, breakable: NativeStack, tmp_path: Path, seed: int
) -> None:
    """The command is killed -9 again and again; what it left is swept by the next one."""
    rng, config = Random(seed), orchard.source.config
    configuration = tmp_path / "pipeline.toml"
    toml.write(config, configuration, password_file=breakable.password_file)
    before = orchard.everything()
    target = orchard.damage("delete from trees where id % 3 = 0")
    wrong = orchard.everything()
    words = [sys.executable, "-m", "pipeline", "restore", "table", "--table", "trees"]
    words += ["--table", "fruits", "--no-topics", "--to", str(target), "--config"]
    for _ in range(10):
        process = subprocess.Popen(
            [*words, str(configuration)],
            env=os.environ | {"PYTHONPATH": str(SOURCES)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ended = ends_within(process, rng.uniform(0.5, 6))
        process.kill()  # nothing where it has ended
        process.wait()
        assert orchard.everything() in ([before] if ended else [before, wrong])
    orchard.recovery(target, "trees", "fruits").run()
    assert orchard.everything() == before
    assert orchard.run(STAGED) == 0
    assert not list(side.scratch(config).glob(f"{side.PREFIX}*/data"))


def ends_within(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether a process ends by itself in that time."""
    try:
        wait_until(
            "end",
            lambda: None if process.poll() is not None else "runs",
            within=timedelta(seconds=seconds),
        )
    except ServerError:
        return False
    return process.returncode == 0
