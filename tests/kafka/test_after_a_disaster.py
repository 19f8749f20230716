"""The nightly job runs after a disaster: its sets say so, and restores find the older ones."""

from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from typer.testing import CliRunner

from fixtures.faults.topics import delete_records, delete_topics
from fixtures.kafka_story import commit
from fixtures.stacks.protocol import Stack
from pipeline.cli import app
from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.errors import ConfigError
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import cluster_id, every
from pipeline.kafka.groups import groups
from pipeline.repository import marker
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import newest
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.topic_asked import Asked
from pipeline.runbooks.topic_evidence import Facts
from pipeline.runbooks.topic_loss import TopicRecovery
from tests.kafka import topics
from tests.kafka.readers import forget_if_there

pytestmark = pytest.mark.stack


class Site:
    """A repository of this broker, and its commands."""

    def __init__(self, broker: Stack, folder: Path) -> None:
        self.kafka = broker.config.kafka
        self.repository = Repository(FolderStore(folder))
        self.config = PipelineConfig(kafka=self.kafka, repository=RepositoryConfig(path=folder))
        marker.make(str(folder))
        self._file = folder / "pipeline.toml"
        self._file.write_text(
            f'[kafka]\nbootstrap_servers = "{self.kafka.bootstrap_servers}"\n'
            f'[repository]\npath = "{folder}"\n'
        )

    def says(self, code: int, *words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--config", str(self._file)])
        assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
        return str(done.exception) if isinstance(done.exception, ConfigError) else done.output

    def of_another_cluster(self, backup: BackupSet) -> BackupSet:
        """Commit the same set once more, as if another cluster shared the repository."""
        manifest = backup.manifest
        label = self.repository.new_label(manifest.kind, manifest.finished)
        facts = manifest.facts | {"cluster_id": "other"}
        objects = []
        for entry in manifest.objects:
            with self.repository.store.open(entry.key) as stream:
                key = entry.key.replace(manifest.label, label)
                objects.append(self.repository.store.put(key, [stream.read()]))
        changed = {"label": label, "facts": facts, "objects": tuple(objects)}
        return self.repository.commit(manifest.model_copy(update=changed))


@pytest.fixture
def site(broker: Stack, tmp_path: Path) -> Site:
    """A broker without topics of other tests: what is archived here is all that there is."""
    if left := every(broker.config.kafka)[0]:
        delete_topics(*left)(broker)
    return Site(broker, tmp_path)


def test_what_was_lost_is_said_by_the_job_the_plan_and_the_restore(
    site: Site, broker: Stack
) -> None:
    orders = topics.create(site.kafka, "orders")
    topics.fill(topics.producer(site.kafka), orders, 100)
    outbox = topics.create(site.kafka, "__outbox")  # two underscores make no topic the brokers' own
    commit(site.kafka, "auditor", TopicPartition(orders, 0, 5))
    assert "not backed up: share groups" in site.says(0, "backup", "offsets")
    assert "left out, the brokers' own: __consumer_offsets" in site.says(0, "backup", "topics")
    assert outbox in newest(site.repository, archive.KIND).manifest.facts["topics"]
    sets = {kind: newest(site.repository, kind) for kind in (archive.KIND, groups.KIND)}
    delete_topics(orders)(broker)
    told = site.says(1, "backup", "topics")
    assert f"{orders} is gone, {sets[archive.KIND].label} holds it" in told
    told = site.says(1, "backup", "offsets")
    assert f"auditor in {orders} has no offsets, {sets[groups.KIND].label} holds it" in told
    told = site.says(0, "recover", "topics", "--plan")
    for option, kind in (("--from", archive.KIND), ("--offsets", groups.KIND)):
        assert f"{option} {sets[kind].label}" in told
    told = site.says(0, "recover", "topics", "--plan", "--topic", orders)
    assert f"{orders}: it is gone" in told
    told = site.says(0, "restore", "topic", "--topic", orders)
    assert f"{orders} from {sets[archive.KIND].label}" in told
    site.says(0, "backup", "topics")  # the journal tells that this life goes on with the other
    forget_if_there(site.kafka, "auditor")


def test_a_newer_set_of_another_cluster_is_taken_by_label_and_id_only(site: Site) -> None:
    orders = topics.create(site.kafka, "orders")
    topics.fill(topics.producer(site.kafka), orders, 3)
    commit(site.kafka, "auditor", TopicPartition(orders, 0, 2))
    site.says(0, "backup", "topics", "--topic", orders)
    site.says(0, "backup", "offsets")
    ours = newest(site.repository, archive.KIND, topics=[orders])
    other = site.of_another_cluster(ours)
    foreign = site.of_another_cluster(newest(site.repository, groups.KIND))
    plan = ("restore", "topic", "--topic", orders, "--plan")
    assert f"{orders} from {ours.label}" in site.says(0, *plan)
    assert "--origin other" in site.says(1, *plan, "--from", other.label)
    named = site.says(0, *plan, "--from", other.label, "--origin", "other")
    assert f"{orders} from {other.label}" in named
    assert "--origin other" in site.says(1, "restore", "offsets", "--from", foreign.label)
    lacking = site.says(1, "recover", "topics", "--plan", "--topic", "none", "--from", ours.label)
    assert lacking == f"{ours.label} does not hold none"
    forget_if_there(site.kafka, "auditor")


def test_what_a_recovery_salvaged_is_never_the_newest(site: Site, broker: Stack) -> None:
    """It is killed once its topics are gone: what it kept holds half of the records."""
    orders = topics.create(site.kafka, "orders")
    topics.fill(topics.producer(site.kafka), orders, 100)
    site.says(0, "backup", "topics", "--topic", orders)
    whole = newest(site.repository, archive.KIND, topics=[orders])
    delete_records(orders)(broker)
    topics.fill(topics.producer(site.kafka), orders, 5)

    def die(step: str, _facts: Facts) -> None:
        if step == "remove":
            raise KeyboardInterrupt

    journal = Journal.new(site.config.repository.path, "topics")
    cluster = cluster_id(site.kafka)
    recovery = TopicRecovery(site.config, Asked([orders]), journal, cluster, observe=die)
    with pytest.raises(KeyboardInterrupt):
        recovery.run()
    kept = journal.done()["salvage"]["kept"]
    assert site.repository.get(kept).manifest.facts["evidence"] == journal.recovery
    assert newest(site.repository, archive.KIND, topics=[orders]).label == whole.label
    assert f"{orders} from {whole.label}" in site.says(
        0, "restore", "topic", "--topic", orders, "--plan"
    )
    TopicRecovery(site.config, Asked([orders]), journal, cluster).run()
    site.says(0, "backup", "topics", "--topic", orders)
