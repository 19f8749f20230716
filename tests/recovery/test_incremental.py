"""A chain of base backups comes back as one, and a chain with a foreign link not at all."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from checks.rules.backup import objects_match_manifest
from checks.subjects import BaseBackup
from fixtures.stacks.native import NativeStack
from fixtures.stacks.versions import since
from pipeline.errors import BackupError, RestoreError, TargetUnreachable
from pipeline.postgres.base import base_backup, chain, server_manifest
from pipeline.postgres.base.reach import reach
from pipeline.postgres.base.restore import unpack
from pipeline.postgres.replay.targets import Target
from pipeline.repository.sets import MANIFEST, BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.plan import make
from pipeline.runbooks.point_in_time import new_recovery
from pipeline.wait import wait_until
from tests.recovery.chained import FOREIGN, Chained, Copy, missing, summarize
from tests.recovery.dying import crash_everywhere
from tests.recovery.history import SOON, History, Source, copied, replaced
from tests.recovery.unpacked import free_place, state_of
from tests.recovery.without_connect import recovery

STATE = """
    select (select md5(string_agg(t::text, ',' order by id)) from notes t),
           (select md5(string_agg(t::text, ',' order by id)) from documents t)
"""


@pytest.fixture(scope="module")
def chained(breakable: NativeStack) -> Chained:
    source = Source(breakable).prepared()
    summarize(source)
    states = {}
    for number, name in enumerate(("full", "first", "second")):
        source.write(f"before {name}")
        source.run(
            f"update documents set body = 'body of {name}' where id % 7 = {number}",
            f"create table made_before_{name} as select generate_series(1, 10) as n",
            "drop table if exists made_before_full" if name == "second" else "select 1",
        )
        states[name] = source.run(STATE)
        source.back_up(name, incremental=name != "full")
    source.write("after")
    source.archive()
    source.expect(source.position())
    return Chained(source, states)


@pytest.fixture
def into(chained: Chained) -> Iterator[Path]:
    """A place for a restore that does not exist yet."""
    yield from free_place(chained.source)


def test_an_increment_is_small_and_says_on_what_it_builds(chained: Chained) -> None:
    backups = chained.source.backups
    assert chain.parent_label(backups["full"]) is None
    assert chain.parent_label(backups["first"]) == backups["full"].label
    assert [link.label for link in chain.links(backups["second"])] == [
        backups[name].label for name in ("full", "first", "second")
    ]
    sizes = [base_backup.archives(backups[name])[0].size for name in ("full", "first")]
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("name", ["full", "first", "second"])
def test_each_backup_of_a_chain_comes_back_with_its_own_rows(
    chained: Chained, into: Path, name: str
) -> None:
    backup = chained.source.backups[name]
    size = unpack(backup, into, chained.source.tools)
    assert size == sum(base_backup.archives(link)[0].size for link in chain.links(backup))
    assert list(into.rglob("INCREMENTAL.*")) == []
    assert not (into / server_manifest.NAME).exists()
    assert state_of(into, chained.source, STATE) == chained.states[name]


def test_the_manifest_beside_a_backup_is_the_one_within_it(chained: Chained, into: Path) -> None:
    backup = chained.source.backups["first"]
    kept = into.with_name("kept_manifest")
    server_manifest.extract(backup, kept)
    assert kept.read_bytes().rstrip().endswith(b"}")
    assert b'"Path": "global/INCREMENTAL' in kept.read_bytes()
    kept.unlink()


@pytest.fixture
def copy(chained: Chained, tmp_path: Path) -> Copy:
    folder = chained.source.stack.folder / "scratch" / tmp_path.name
    return Copy(chained, copied(chained.repository, folder, chained.source.tools))


@pytest.mark.parametrize("damage", FOREIGN, ids=lambda damage: damage.__name__)
def test_a_chain_with_a_foreign_link_is_refused_by_name(
    copy: Copy, into: Path, damage: Callable[[Copy], str]
) -> None:
    names = {name: copy.chained.label(name) for name in ("full", "first", "second")}
    told = damage(copy).format(**names)
    with pytest.raises(RestoreError, match=f"(?s){told}"):
        unpack(copy.get("second"), into, copy.chained.source.tools)
    assert not into.exists()


def test_the_check_of_objects_sees_the_whole_chain(copy: Copy, chained: Chained) -> None:
    def problems() -> dict[str, str | None]:
        base = BaseBackup(copy.get("second"), chained.source.tools)
        return {seen.subject: seen.problem for seen in objects_match_manifest.examine(base)}

    assert set(problems().values()) == {None}
    assert len(problems()) == 1 + 3 * 2
    key = copy.get("full").manifest.objects[0].key
    replaced(copy.folder / key, (copy.folder / key).read_bytes()[:-1])
    assert (problems()[key] or "").startswith("expected")
    missing(copy)
    assert "which is gone" in (problems()[chained.label("second")] or "")


@pytest.mark.slow
def test_a_full_backup_that_passes_for_an_increment_is_refused(copy: Copy, into: Path) -> None:
    """Its parent would be combined with something that never built on it."""
    source = copy.chained.source
    later = base_backup.take(source.config, Repository(FolderStore(copy.folder)))
    forged = later.manifest.model_dump()
    forged["facts"]["parent"] = chain.as_fact(copy.get("second"))
    backup = BackupSet(Manifest.model_validate(forged), later.store)
    with pytest.raises(RestoreError, match=f"{later.label}: its backup_label is that of a full"):
        unpack(backup, into, source.tools)
    assert not into.exists()


def test_a_plan_goes_around_a_broken_chain_and_says_why(copy: Copy, chained: Chained) -> None:
    history = History(chained.source, {}, {}, chained.source.position())
    config = history.elsewhere(copy.folder)
    assert make(config, Target.parse("latest")).backup == chained.label("second")
    assert make(config, Target.parse("latest")).builds_on == (
        chained.label("full"),
        chained.label("first"),
    )
    missing(copy)
    around = make(config, Target.parse("latest"))
    assert around.backup == chained.label("full")
    assert "which is gone" in around.passed_over[chained.label("second")]
    assert f"PASSED OVER     {chained.label('second')}: " in "\n".join(around.lines())
    answers = {answer.backup: answer for answer in reach(config)}
    assert answers[chained.label("full")].restorable
    useless = answers[chained.label("second")]
    assert not useless.restorable
    assert "which is gone" in "\n".join(useless.lines())
    (copy.folder / copy.get("full").prefix / MANIFEST).unlink()
    with pytest.raises(TargetUnreachable, match="which is gone"):
        make(config, Target.parse("latest"))


def test_a_manifest_that_does_not_tell_its_end_is_refused_by_name(
    copy: Copy, chained: Chained
) -> None:
    history = History(chained.source, {}, {}, chained.source.position())
    for name in ("full", "first", "second"):
        facts = dict(copy.get(name).manifest.facts)
        del facts["end_time"]
        body = copy.get(name).manifest.model_dump() | {"facts": facts}
        path = copy.folder / copy.get(name).prefix / MANIFEST
        replaced(path, Manifest.model_validate(body).sealed())
    with pytest.raises(TargetUnreachable, match="its manifest does not tell end_time"):
        make(history.elsewhere(copy.folder), Target.parse("latest"))


def test_without_a_backup_to_build_on_the_refusal_says_why_each_is_none(
    copy: Copy, chained: Chained
) -> None:
    copy.state("second", end_lsn="F/0")
    (copy.folder / copy.get("first").prefix / server_manifest.OBJECT).unlink()
    manifest = copy.get("first").manifest
    body = manifest.model_dump() | {"objects": manifest.objects[:1]}
    path = copy.folder / copy.get("first").prefix / MANIFEST
    replaced(path, Manifest.model_validate(body).sealed())
    copy.state("full", system_identifier="7")
    with pytest.raises(BackupError) as refused:
        base_backup.take(chained.source.config, copy.repository, incremental=True)
    told = str(refused.value)
    assert f"{chained.label('second')}: it ends at F/0, the server stands at" in told
    assert f"{chained.label('first')}: it was taken without backup_manifest.zst" in told
    assert f"{chained.label('full')}: its system_identifier is 7" in told


def test_a_restore_that_is_killed_anywhere_leaves_nothing_by_its_name(
    chained: Chained, into: Path, seed: int
) -> None:
    backup, tools = chained.source.backups["second"], chained.source.tools
    rng = Random(seed)
    strikes = rng.sample(range(1, 16), 1)
    crash_everywhere(strikes, into, lambda: unpack(backup, into, tools))
    unpack(backup, into, tools)
    assert state_of(into, chained.source, STATE) == chained.states["second"]


@pytest.mark.slow
def test_a_restore_that_is_killed_at_every_step_can_be_done_again(
    chained: Chained, into: Path
) -> None:
    backup, tools = chained.source.backups["second"], chained.source.tools
    last = crash_everywhere(itertools.count(1), into, lambda: unpack(backup, into, tools))
    assert last > 10
    assert state_of(into, chained.source, STATE) == chained.states["second"]


# these begin with a new server, where the chain was: they come last


def test_without_summaries_no_increment_is_begun(source: Source) -> None:
    since(17, "an incremental backup")
    source.back_up("full")
    source.run("alter system set summarize_wal = off", "select pg_reload_conf()")
    wait_until(
        "summaries off",
        lambda: None if source.run("show summarize_wal") == "off" else "still on",
        within=SOON,
    )
    sets = source.config.repository.path / "sets"
    before = sorted(sets.rglob("*"))
    with pytest.raises(BackupError, match="summarize_wal = on, and the server has it off"):
        source.back_up("increment", incremental=True)
    assert sorted(sets.rglob("*")) == before


def test_a_recovery_from_an_increment_ends_with_the_rows_of_its_target(source: Source) -> None:
    summarize(source)
    source.back_up("one")
    source.write("in the increment")
    source.run("update documents set body = 'changed' where id < 50")
    source.back_up("two", incremental=True)
    source.write("kept")
    wanted = source.run(STATE)
    dropped = source.write("dropped")
    source.expect(dropped.after)
    running = recovery(source, new_recovery(source.config), f"before:xid:{dropped.xid}")
    running.run()
    assert running.journal.done()["plan"]["builds_on"] == [source.backups["one"].label]
    assert source.run(STATE) == wanted
    with pytest.raises(BackupError, match="its timeline is 1, that of the server 2"):
        source.back_up("three", incremental=True)
    source.back_up("four")
    source.back_up("five", incremental=True)
