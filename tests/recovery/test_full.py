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
from pipeline.runbooks.full import FullRecovery, new_recovery
from pipeline.runbooks.full_sets import NO_OFFSETS
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
    assert again.sources.archive.label == chosen.label
    assert again.sources.offsets is None
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
    assert running.sources.registry is not None
    assert running.sources.registry.label == sound.label
    told = {one.name: one for one in running.of_topics()}["schemas"].problems()
    assert len(told) == len(refused)
    assert all(part in line for part, line in zip(refused, told, strict=True))
    plan = list(running.sources.lines())
    assert plan[0] == f"registry          {sound.label}"
    lost = "the registry had lost or changed orders-value"
    assert plan[-1] == f"  PASSED OVER     {later.label}: {lost}"


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


DECIDED = {"decided": "2026-03-01T02:03:04+00:00"}


def stands_in_the_way(running: FullRecovery, name: str) -> list[str]:
    return {one.name: one for one in running.of_topics()}[name].problems()


@pytest.mark.parametrize(
    ("kind", "newer"),
    [
        ("topics", topics() | DECIDED | {"incomplete": {"clicks": "no leader"}}),
        ("offsets", {"cluster_id": "A"}),
    ],
)
def test_an_older_set_is_taken_by_the_operators_word_alone(
    config: PipelineConfig, kind: str, newer: dict[str, Any]
) -> None:
    """It lacks what came later, so nothing takes it in silence: the set in the way is named."""
    root = config.repository.path
    committed(root, "topics", timedelta(hours=4), topics() | DECIDED)
    committed(root, "offsets", timedelta(hours=3), {"cluster_id": "A"})
    unsound = committed(root, kind, timedelta(hours=1), newer)
    (root / unsound.prefix / "a").chmod(0o600)
    (root / unsound.prefix / "a").write_bytes(b"damaged")
    assert any(unsound.label in told for told in stands_in_the_way(recovery(config), kind))

    running = recovery(config)
    running.without = [unsound.label]
    told = list(running.plan_of_topics())
    assert f"  PASSED OVER     {unsound.label}: it is named by --without" in told
    assert unsound.label not in running.sources.labels().values()
    assert None not in (running.sources.archive, running.sources.offsets)


def test_offsets_count_in_the_cluster_of_the_archive_alone(config: PipelineConfig) -> None:
    """On other brokers the same number is another record: such a set is passed over, and named."""
    committed(config.repository.path, "topics", timedelta(hours=4), topics() | DECIDED)
    own = committed(config.repository.path, "offsets", timedelta(hours=3), {"cluster_id": "A"})
    other = committed(config.repository.path, "offsets", timedelta(hours=1), {"cluster_id": "B"})
    running = recovery(config)
    assert running.sources.offsets is not None
    assert running.sources.offsets.label == own.label
    told = f"  PASSED OVER     {other.label}: its cluster_id is B, expected A"
    assert told in list(running.plan_of_topics())


def test_a_plan_names_groups_that_do_not_come_back(config: PipelineConfig) -> None:
    committed(config.repository.path, "topics", facts=topics() | DECIDED)
    facts = {"cluster_id": "A", "incomplete": {"billing": "its coordinator did not answer"}}
    committed(config.repository.path, "offsets", facts=facts)
    told = list(recovery(config).plan_of_topics())
    assert "  NOT WHOLE       billing: its coordinator did not answer" in told


@pytest.mark.parametrize("damaged", [True, False])
def test_a_registry_that_the_gate_could_not_ask_for_is_refused_beforehand(
    config: PipelineConfig,
    damaged: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """What it knew cannot be read, or it had lost something, and the set that knew it is gone."""
    committed(config.repository.path, "topics", facts=topics(clicks="1") | DECIDED)
    gone = {"differs": {"orders-value": "gone"}, "differs_from": "schemas-gone"}
    found = with_registry(config, timedelta(hours=1), **({} if damaged else gone))
    if damaged:
        path = config.repository.path / found.prefix / REGISTRY
        path.chmod(0o600)
        path.write_bytes(path.read_bytes().replace(b"orders", b"others"))
    (told,) = stands_in_the_way(recovery(config), "schemas")
    assert ("sha256" if damaged else "schemas-gone, which knew it, is gone") in told
