"""The recovery of everything is made of the steps of the others, in the order of dependencies."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.cdc.schemas import REGISTRY
from pipeline.config import PipelineConfig, PostgresConfig, RepositoryConfig
from pipeline.errors import NoBackup
from pipeline.postgres.replay.targets import Target
from pipeline.registry.schemas import Inventory, RegisteredSchema, as_json
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.full import NO_OFFSETS, FullRecovery, new_recovery
from pipeline.runbooks.point_in_time import PointInTimeRecovery
from tests.sets import committed, topics

LATEST = Target.parse("latest")


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return PipelineConfig(
        postgres=PostgresConfig(data=tmp_path / "data"),
        repository=RepositoryConfig(path=tmp_path / "repository"),
    )


def recovery(config: PipelineConfig) -> FullRecovery:
    return FullRecovery(config, LATEST, new_recovery(config), "7")


def test_each_step_comes_behind_what_it_needs(config: PipelineConfig) -> None:
    names = [step.name for step in recovery(config).steps()]
    order = ["fence", "restore", "replay", "open", "topics", "groups", "servers", "reconnect"]
    assert [name for name in names if name in order] == order
    alone = PointInTimeRecovery(config, LATEST, new_recovery(config), "7").steps()
    own = {"topics", "groups", "servers"}
    assert [name for name in names if name not in own] == [step.name for step in alone]
    assert names[-1] == FullRecovery.last, "clients get in last"


def test_a_recovery_that_was_begun_keeps_its_sets(config: PipelineConfig) -> None:
    """Backups go on on another site, and a newer set is of another moment."""
    running = recovery(config)
    chosen = committed(config.repository.path, "topics", facts=topics(clicks="1"))
    begun = {"topics": chosen.label, "offsets": None, "replication": 1, "without_settings": ["a"]}
    running.journal.write(FullRecovery.first, "done", **begun)
    committed(config.repository.path, "topics", facts=topics(clicks="2"))
    committed(config.repository.path, "offsets", facts={"cluster_id": "A"})
    again = FullRecovery(config, LATEST, running.journal, "7")
    assert again.archive.label == chosen.label
    assert again.offsets is None
    assert (again.replication, again.without_settings) == (1, ["a"])


def test_the_registrys_own_topic_comes_from_its_newest_backup(config: PipelineConfig) -> None:
    """It is backed up with every set of offsets, and so knows ids that the archive does not."""
    facts = topics(clicks="1", journal="2")
    archive = committed(config.repository.path, "topics", facts=facts)
    registry = committed(
        config.repository.path,
        "schemas",
        facts=topics(journal="2") | {"storage": "journal", "scope": None},
    )
    found = {of.archive.label: list(of.topics) for of in recovery(config).evidence}
    assert found == {archive.label: ["clicks"], registry.label: ["journal"]}


def with_registry(config: PipelineConfig, age: timedelta, **facts: Any) -> BackupSet:  # noqa: ANN401 - as manifests have them
    """A set of a registry that knows the id 7 alone."""
    known = RegisteredSchema("orders-value", 1, 7, '"string"', "AVRO")
    repository = Repository(FolderStore(config.repository.path))
    own = {"storage": "journal", "scope": None, **facts}
    backup = committed(config.repository.path, "schemas", age, topics(journal="2") | own)
    told = as_json(Inventory("READWRITE", "NONE", {}, (known,), highest=7))
    entry = repository.store.put(backup.prefix + REGISTRY, [told])
    manifest = backup.manifest.model_copy(update={"objects": (*backup.manifest.objects, entry)})
    path = config.repository.path / backup.prefix / "manifest.json"
    path.write_bytes(manifest.sealed())
    return repository.get(backup.label)


@pytest.mark.parametrize(("carried", "refused"), [([7], []), ([7, 9], ["clicks have ids 9: "])])
def test_the_registry_comes_from_before_it_had_lost_something(
    config: PipelineConfig, carried: list[int], refused: list[str]
) -> None:
    """What was lost is not made right by a backup of the loss; what records need must be known."""
    facts = topics(clicks="1", journal="2") | {"decided": "2026-03-01T02:03:04+00:00"}
    committed(config.repository.path, "topics", facts=facts)
    sound = with_registry(config, timedelta(hours=2))
    later = with_registry(
        config,
        timedelta(hours=1),
        differs={"orders-value": "gone"},
        differs_from=sound.label,
        carried={"clicks": carried},
    )
    running = recovery(config)
    assert running.registry is not None
    assert running.registry.label == sound.label
    told = {one.name: one for one in running.of_topics()}["schemas"].problems()
    assert len(told) == len(refused)
    assert all(part in line for part, line in zip(refused, told, strict=True))
    plan = running.plan_of_topics()
    assert next(plan) == f"registry          {sound.label}"
    lost = "the registry had lost or changed orders-value"
    assert next(plan) == f"  PASSED OVER     {later.label}: {lost}"


def test_without_an_archive_of_topics_nothing_is_begun(config: PipelineConfig) -> None:
    asked = {one.name: one for one in recovery(config).of_topics()}
    (told,) = asked["topics"].problems()
    assert "no backup of topics" in told
    with pytest.raises(NoBackup):
        list(recovery(config).plan_of_topics())


def test_a_plan_says_that_groups_were_never_backed_up(config: PipelineConfig) -> None:
    facts = topics() | {"decided": "2026-03-01T02:03:04+00:00"}
    committed(config.repository.path, "topics", facts=facts)
    lines = list(recovery(config).plan_of_topics())
    assert f"groups            {NO_OFFSETS}" in lines
    assert "step              topics (replay)" in lines


def test_an_archive_that_is_not_whole_is_refused_by_name(config: PipelineConfig) -> None:
    facts = topics() | {"incomplete": {"clicks": "no leader"}}
    committed(config.repository.path, "topics", facts=facts)
    asked = {one.name: one for one in recovery(config).of_topics()}
    assert any(
        "does not hold clicks whole: no leader" in told for told in asked["topics"].problems()
    )
