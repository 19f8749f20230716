"""A base backup that an operator names is passed over, whatever state it is in."""

import pytest
from typer.testing import CliRunner, Result

from fixtures.stacks import toml
from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.errors import TargetUnreachable
from pipeline.postgres.replay.targets import Target
from pipeline.repository.sets import MANIFEST
from pipeline.runbooks.plan import Plan, make
from pipeline.runbooks.point_in_time import new_recovery
from tests.recovery.history import History, Source, replaced
from tests.recovery.interrupted import Power
from tests.recovery.without_connect import recovery

LATEST = Target.parse("latest")


def _said(history: History, archive: PipelineConfig, *words: str) -> Result:
    file = archive.repository.path / "pipeline.toml"
    toml.write(archive, file, password_file=history.source.stack.password_file)
    return CliRunner().invoke(app, [*words, "--config", str(file)])


def test_the_plan_goes_round_it_and_says_so(history: History, archive: PipelineConfig) -> None:
    first, second = (history.source.backups[name].label for name in ("first", "second"))
    plan = "recover", "postgres", "--plan"
    assert f"base backup       {second}" in _said(history, archive, *plan).output
    found = _said(history, archive, *plan, "--without", second)
    assert f"base backup       {first}" in found.output
    assert f"  PASSED OVER     {second}: is passed over" in found.output
    with pytest.raises(TargetUnreachable, match=f"{first}: is passed over: .*--without"):
        make(archive, LATEST, without=[first, second])


def test_one_whose_manifest_is_bad_is_passed_over_unread(
    history: History, archive: PipelineConfig
) -> None:
    first, second = (history.source.backups[name] for name in ("first", "second"))
    replaced(archive.repository.path / second.prefix / MANIFEST, b"{}")
    plan = make(archive, LATEST)
    assert plan.backup == first.label
    assert "manifest" in plan.passed_over[second.label]
    assert make(archive, LATEST, without=[second.label]).backup == first.label
    assert Plan.of_facts(plan.as_facts()) == plan


@pytest.mark.parametrize("words", [("recover", "postgres"), ("restore", "table", "--to", "latest")])
def test_a_label_that_is_none_is_refused_by_name(
    history: History, archive: PipelineConfig, words: tuple[str, ...]
) -> None:
    named = ("--without", "base-of-nobody")
    found = _said(history, archive, *words, *named)
    assert "there is no base backup base-of-nobody" in str(found.exception)
    found = _said(history, archive, *words, *named, "--resume", "some")
    assert "--without out" in str(found.exception)
    assert not list(archive.repository.path.glob("recoveries/*/journal.jsonl"))


def test_a_recovery_that_is_resumed_knows_what_it_passes_over(source: Source) -> None:
    older, newer = source.back_up("one"), source.back_up("two")
    source.expect(source.write("after").after)
    journal = new_recovery(source.config)
    cut = recovery(source, journal, "latest")
    cut.without, cut.cut_after = [newer.label], "salvage"
    with pytest.raises(Power):
        cut.run()
    recovery(source, journal, "latest").run()
    plan = journal.done()["plan"]
    assert (plan["backup"], list(plan["passed_over"])) == (older.label, [newer.label])
    assert source.run("select string_agg(note, ',') from notes") == "after"
