"""`pipeline recover cdc` on one table: each state that the embedded servers can be brought into."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from psycopg import sql
from typer.testing import CliRunner, Result

from fixtures.stacks import toml
from fixtures.stacks.connect import OFFSETS
from fixtures.stacks.native import NativeStack
from pipeline.cdc.state import kept
from pipeline.cdc.state.read import read
from pipeline.cli import app
from pipeline.errors import LossNotAccepted, RecoveryRefused
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.replay.target_topic import configure
from pipeline.postgres.replication.advance import flushed
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.cdc import Asked, Way
from pipeline.runbooks.runbook import Facts
from pipeline.runbooks.slots import SlotRestore
from pipeline.wait import wait_until
from tests.cdc.recovering import Broken, broken, broken_outbox
from tests.recovery.interrupted import Power

pytestmark = pytest.mark.stack

SOON = timedelta(seconds=60)


@pytest.fixture
def cdc(stack: NativeStack, tmp_path: Path) -> Iterator[Broken]:
    with broken(stack, tmp_path / "repository") as made:
        yield made


def slot_dropped(cdc: Broken) -> None:
    cdc.stop()
    drop_slot(cdc.source.connection, cdc.source.name)
    cdc.change()


def slot_made_again(cdc: Broken) -> None:
    slot_dropped(cdc)
    create_slot(cdc.source.connection, cdc.source.name)


def slot_advanced(cdc: Broken) -> None:
    cdc.stop()
    cdc.change()
    connection = cdc.source.connection
    to = [cdc.source.name, str(flushed(connection))]
    connection.execute("SELECT pg_replication_slot_advance(%s, %s)", to)


def offsets_deleted(cdc: Broken) -> None:
    cdc.stop()
    cdc.change()
    cdc.source.connect.delete_offsets(cdc.source.name)


def offset_beyond_the_wal(cdc: Broken) -> None:
    cdc.stop()
    cdc.change()
    cdc.patch(Lsn(1 << 40))


def offset_patched_ahead(cdc: Broken) -> None:
    """To where everything would be delivered: by its position it looks sound."""
    cdc.stop()
    cdc.change()
    cdc.patch(flushed(cdc.source.connection))


def offset_patched_ahead_of_forgotten_topics(cdc: Broken) -> None:
    """And Connect does not tell which topics it has written to: somebody reset that."""
    offset_patched_ahead(cdc)
    cdc.forget_topics()


def offset_patched_behind(cdc: Broken) -> None:
    cdc.stop()
    [last] = cdc.source.connect.offsets(cdc.source.name)
    cdc.change()
    cdc.patch(Lsn(last.offset["lsn"] - 4096))


def publication_dropped(cdc: Broken) -> None:
    cdc.stop()
    name = sql.Identifier(cdc.source.name)
    cdc.source.connection.execute(sql.SQL("DROP PUBLICATION {}").format(name))
    cdc.change()


def publication_without_deletes(cdc: Broken) -> None:
    name = sql.Identifier(cdc.source.name)
    narrow = sql.SQL("ALTER PUBLICATION {} SET (publish = 'insert')").format(name)
    cdc.source.connection.execute(narrow)
    cdc.change()


def connector_deleted(cdc: Broken) -> None:
    cdc.source.connect.delete(cdc.source.name)
    cdc.change()


@pytest.mark.parametrize(
    ("fault", "told", "reread"),
    [
        pytest.param(slot_dropped, "is not there", True, id="slot-dropped"),
        *(
            pytest.param(*one, marks=pytest.mark.slow, id=one[0].__name__.replace("_", "-"))
            for one in (
                (slot_made_again, "its slot is ahead of its offset", True),
                (slot_advanced, "its slot is ahead of its offset", True),
                (offsets_deleted, "no offset is stored", True),
                (offset_patched_ahead, "is not in broken_", True),
                (offset_patched_ahead_of_forgotten_topics, "is not in broken_", True),
                (offset_patched_behind, "its slot is ahead of its offset", True),
                (offset_beyond_the_wal, "ahead of the server's WAL", True),
                (publication_dropped, "is not there: no slot of before", True),
                (publication_without_deletes, "publish: expected", True),
                (connector_deleted, "is made again, STOPPED", False),
            )
        ),
    ],
)
def test_it_is_named_mended_and_every_row_is_told(
    cdc: Broken, fault: Callable[[Broken], None], told: str, *, reread: bool
) -> None:
    fault(cdc)
    rows = cdc.rows
    asked = Asked(secrets=cdc.secrets if fault is connector_deleted else None)
    planned = list(cdc.recovery(asked).plan())
    recovery = cdc.recovery(asked)
    recovery.run()
    assert told in "\n".join(cdc.said), cdc.said
    if "is not in" not in told:  # only who stopped the consumer can tell
        assert told in "\n".join(planned), planned
    assert recovery.done["reconnect"]["reread"] is reread
    assert cdc.rows == rows
    cdc.recovered()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (slot_dropped, "is not there"),
        (offset_patched_ahead, "is not in any of its "),
        (offset_patched_ahead_of_forgotten_topics, "and Connect tells of none"),
    ],
)
def test_topics_that_a_transform_has_named_are_found_by_what_their_events_say(
    stack: NativeStack, tmp_path: Path, fault: Callable[[Broken], None], told: str
) -> None:
    """Ghosts are buried there as well; which topics these are must be told beforehand."""
    with broken(stack, tmp_path / "repository", moved="all.") as cdc:
        assert cdc.source.topic.startswith("all.")
        fault(cdc)
        if fault is offset_patched_ahead_of_forgotten_topics:
            with pytest.raises(RecoveryRefused, match=f"topics: .* is UNKNOWN: .*{told}"):
                cdc.recovery().run()
            cdc.recovery(Asked(without_topics=[cdc.source.table])).run()
            return
        cdc.recovery().run()
        assert told in "\n".join(cdc.said), cdc.said
        cdc.recovered()


@pytest.mark.slow
def test_events_of_an_outbox_are_told_to_be_unknown_and_stand_in_nobodys_way(
    stack: NativeStack, tmp_path: Path
) -> None:
    """They have no source, and its rows are no data: nothing of it is compared or buried."""
    with broken_outbox(stack, tmp_path / "repository") as cdc:
        cdc.stop()
        cdc.source.run("INSERT INTO {} VALUES (2, 'order', '2', 'never sent')")
        cdc.patch(flushed(cdc.source.connection))
        gone_on = cdc.recovery()
        gone_on.run()
        assert gone_on.done["reconnect"]["reread"] is False
        assert "is of an outbox, whose events name none" in "\n".join(cdc.said)
        cdc.stop()
        drop_slot(cdc.source.connection, cdc.source.name)
        again = cdc.recovery()
        again.run()
        assert again.done["reconnect"]["reread"] is True
        assert f"NOT compared: {cdc.source.table}" in "\n".join(cdc.said)


@pytest.mark.slow
def test_what_is_sound_goes_on_and_may_be_read_again_on_demand(cdc: Broken) -> None:
    cdc.change()
    recovery = cdc.recovery()
    recovery.run()
    assert (recovery.done["judge"]["needs"], recovery.done["reconnect"]["reread"]) == ([], False)
    cdc.recovered()
    again = cdc.recovery(Asked(way=Way.REREAD))
    again.run()
    assert again.done["reconnect"]["reread"] is True
    cdc.recovered()


@pytest.mark.slow
def test_a_secret_that_the_set_masked_is_asked_for_before_anything_is_touched(cdc: Broken) -> None:
    connector_deleted(cdc)
    with pytest.raises(RecoveryRefused, match=r"the set has database\.password masked"):
        cdc.recovery().run()
    assert cdc.source.connect.names() == []
    cdc.recovery(Asked(secrets=cdc.secrets)).run()
    cdc.recovered()


@pytest.mark.slow
def test_who_holds_the_slot_is_named_and_ended_only_by_its_number(cdc: Broken) -> None:
    """A hung process took the slot while the connector was stopped; its task cannot have it."""
    cdc.stop()
    cdc.change()
    with cdc.held() as pid:
        with pytest.raises(RecoveryRefused, match=f"is read by process {pid}, hung"):
            cdc.recovery().run()
        cdc.source.connect.resume(cdc.source.name)
        wait_until("a task that wants the slot", cdc.no_task_runs, within=SOON)
        recovery = cdc.recovery()
        with pytest.raises(LossNotAccepted, match=f"--terminate-pid {pid}"):
            recovery.run()
        wrong = cdc.recovery(Asked(terminate=pid + 1), recovery.journal)
        with pytest.raises(LossNotAccepted, match=f"--terminate-pid {pid}"):
            wrong.run()
        cdc.recovery(Asked(terminate=pid), recovery.journal).run()
    assert recovery.done["reconnect"]["reread"] is False
    cdc.recovered()


@pytest.mark.slow
def test_connectors_and_slots_of_others_are_left_as_they_are(
    cdc: Broken, stack: NativeStack
) -> None:
    with broken(stack, cdc.source.config.repository.path.parent / "other") as other:
        before = other.source.connect.status(other.source.name)
        slot_dropped(cdc)
        cdc.recovery().run()
        assert f"{other.source.name} is left alone: it reads slot" in "\n".join(cdc.said)
        assert other.source.connect.status(other.source.name) == before
        slot = find_slot(cdc.source.connection, other.source.name)
        assert slot is not None
        assert slot.active
        other.recovered()
    cdc.recovered()


@pytest.mark.slow
def test_topics_of_connect_that_are_deleted_by_age_are_compacted(cdc: Broken) -> None:
    kafka = cdc.source.config.kafka
    (before,) = describe(kafka, [OFFSETS])
    configure(kafka, OFFSETS, before.overrides | {"cleanup.policy": "delete"})
    told = list(cdc.recovery().plan())
    recovery = cdc.recovery()
    recovery.run()
    (after,) = describe(kafka, [OFFSETS])
    assert f"{OFFSETS}: cleanup.policy is 'delete': it is compacted from now on" in told
    assert recovery.done["topics"]["mended"] == [OFFSETS]
    assert after.overrides == before.overrides
    cdc.recovered()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [slot_dropped, slot_advanced, offsets_deleted])
def test_rows_are_read_again_by_signal_beside_the_stream(
    stack: NativeStack, tmp_path: Path, fault: Callable[[Broken], None]
) -> None:
    signals = "public.drill_signals"
    settings = {"signal.data.collection": signals}
    with broken(stack, tmp_path / "repository", **settings) as cdc:
        connection, name = cdc.source.connection, sql.Identifier(cdc.source.name)
        with pytest.raises(RecoveryRefused, match="it is not there, or not published"):
            cdc.recovery(Asked(way=Way.SIGNAL)).run()
        connection.execute(f"CREATE TABLE {signals} (id text, type text, data text)".encode())
        publish = sql.SQL("ALTER PUBLICATION {} ADD TABLE drill_signals").format(name)
        connection.execute(publish)
        fault(cdc)
        recovery = cdc.recovery(Asked(way=Way.SIGNAL))
        recovery.run()
        assert recovery.done["reconnect"]["reread"] is True
        cdc.recovered()
        connection.execute(f"DROP TABLE {signals}".encode())


@pytest.mark.slow
def test_the_command_plans_recovers_and_says_what_to_do_next(cdc: Broken, tmp_path: Path) -> None:
    slot_dropped(cdc)
    configuration = tmp_path / "pipeline.toml"
    toml.write(cdc.source.config, configuration, password_file=cdc.password_file)

    def command(*words: str) -> Result:
        said = ["recover", "cdc", *words, "--config", str(configuration)]
        return CliRunner().invoke(app, said)

    planned = command("--plan")
    assert planned.exit_code == 0, planned.output
    assert "by re-read: " in planned.output
    assert find_slot(cdc.source.connection, cdc.source.name) is None
    refused = command("--identity", "7")
    assert isinstance(refused.exception, RecoveryRefused)
    done = command("--identity", cdc.recovery().identity)
    assert done.exit_code == 0, done.output
    assert f"next: pipeline backup cdc --reread {cdc.source.name}" in done.output
    cdc.recovered()


@pytest.mark.slow
def test_no_slot_is_made_while_a_connector_would_go_on_by_it(cdc: Broken) -> None:
    config, name = cdc.source.config, sql.Identifier(cdc.source.name)
    known = kept.earlier(Repository(FolderStore(config.repository.path)))
    assert known is not None
    cdc.source.connection.execute(sql.SQL("DROP PUBLICATION {}").format(name))
    cdc.source.connect.resume(cdc.source.name)

    def told() -> list[str]:
        restore = SlotRestore(config, read(config), known)
        return [line for one in restore.preconditions() for line in one.lines()]

    assert [line.partition(". ")[0] for line in told()] == [
        f"connectors: {cdc.source.name} is RUNNING"
    ]
    cdc.stop()
    assert told() == []
    SlotRestore(config, read(config), known).run(cdc.said.append)
    cdc.recovery().run()
    cdc.recovered()


@pytest.mark.slow
def test_what_another_recovery_has_mended_does_not_pass_for_sound(cdc: Broken) -> None:
    """It died between the publication and the re-read: positions are sound, and events missing."""
    publication_without_deletes(cdc)
    dead = cdc.recovery()

    def die(step: str, _facts: Facts) -> None:
        if step == "source":
            raise Power

    dead.observe = die
    with pytest.raises(Power):
        dead.run()
    with pytest.raises(RecoveryRefused, match=f"--resume {dead.journal.recovery}"):
        cdc.recovery().run()
    cdc.recovery(Asked(way=Way.REREAD)).run()
    cdc.recovered()
    cdc.recovery().run()


@pytest.mark.slow
def test_a_publication_that_was_narrowed_on_purpose_is_kept(cdc: Broken) -> None:
    publication_without_deletes(cdc)
    narrow = cdc.source.publication
    recovery = cdc.recovery(Asked(keep_publication=True))
    recovery.run()
    assert (recovery.done["judge"]["needs"], cdc.source.publication) == ([], narrow)
