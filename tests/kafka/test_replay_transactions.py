"""Where brokers let us write no markers, transactions without a record fill the same offsets."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from kafka.protocol.admin import ListTransactionsRequest

from checks.kafka_subjects import TopicArchive
from fixtures.faults.kafka_archive import Forgery, changed, outcome
from fixtures.scratch import Scratch
from pipeline.config import KafkaConfig
from pipeline.errors import BackupError, NoBackup, RestoreError
from pipeline.kafka.cluster.raw_produce import RawWriter
from pipeline.kafka.log.batches import Marker, marker
from pipeline.kafka.log.place import Place
from pipeline.kafka.replay import empty_transactions, replay_journal
from pipeline.kafka.replay.empty_transactions import _Transactional
from pipeline.kafka.replay.replay_plan import By
from tests.kafka import topics
from tests.kafka.brokers import listening
from tests.kafka.replayed import Site, consumed, eventful, place_extent

pytestmark = pytest.mark.stack


def gappy(here: Site, partitions: int = 1) -> str:
    """Gaps of every length, a log that starts late."""
    topic = topics.create(here.kafka, "gappy", partitions, {"retention.ms": "-1"})
    for partition in range(partitions):
        eventful(here.kafka, topic, 60, partition, **{"compression.type": "lz4"})
    topics.transactions(here.kafka, topic, "caaca", size=40)
    topics.transactions(here.kafka, topic, "cc", size=1)
    topics.delete_before(here.kafka, topic, 25)
    here.archive(topic)
    return topic


def equal(here: Site, topic: str) -> None:
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)
    assert place_extent(here.kafka, f"{topic}-back") == place_extent(here.kafka, topic)


def test_empty_transactions_fill_the_same_offsets(here: Site) -> None:
    topic = gappy(here, partitions=2)
    done = here.bring(topic, by=By.TRANSACTIONS)
    equal(here, topic)
    assert consumed(here.kafka, f"{topic}-back", 1) == consumed(here.kafka, topic, 1)
    assert done.run.journal.done()["plan"]["by"] == "empty transactions"


def test_what_marker_and_list_do_not_agree_on_is_not_brought_back(here: Site) -> None:
    """An abort that became a commit: all digests agree, and six of its records would stay away."""
    topic = topics.create(here.kafka, "contradicted")
    topics.transactions(here.kafka, topic, "cac", size=6)
    here.archive(topic)
    scratch = Scratch(TopicArchive, here.config.repository.path, here.config, "")
    forgery = Forgery.of(scratch, topic)
    batches = forgery.batches(0)
    aborted = next(
        number
        for number, (batch, view) in enumerate(batches)
        if batch.control and marker(batch, memoryview(view), topic) is Marker.ABORT
    )
    content = changed(batches, aborted, lambda batch, view: outcome(batch, view, Marker.COMMIT))
    forgery.hold(0, content, counted=False).seal()
    with pytest.raises(BackupError, match=r"says COMMIT of a transaction .* listed as aborted"):
        here.bring(topic)


def ongoing(kafka: KafkaConfig, name: str) -> list[str]:
    """Transactions of a replay that are open: each would put a marker where it ends one day."""
    wanted = ListTransactionsRequest(
        state_filters=["Ongoing"], producer_id_filters=[], duration_filter=-1
    )
    with RawWriter(kafka) as reader:
        told = reader.ask(wanted).transaction_states
    return [each.transactional_id for each in told if each.transactional_id.startswith(name)]


def test_what_an_interrupted_run_left_open_ends_before_it_goes_on(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, true, asked = gappy(here), _Transactional._until, list[str]()

    def dying(self: _Transactional, request: object, code: Callable[[Any], int]) -> object:
        asked.append(type(request).__name__)
        if asked.count("EndTxnRequest") > 50:
            raise RestoreError("the end, with transactions open")
        return true(self, request, code)

    with monkeypatch.context() as patched:
        patched.setattr(_Transactional, "_until", dying)
        with pytest.raises(RestoreError, match="with transactions open"):
            here.bring(topic, by=By.TRANSACTIONS)
    ((name, _),) = replay_journal.unfinished(here.config)
    assert ongoing(here.kafka, name)
    monkeypatch.setattr(RawWriter, "mark", None)  # it goes on as it began
    here.resume(name)
    equal(here, topic)
    assert not ongoing(here.kafka, name)


def test_a_marker_too_many_is_one_error(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, true = gappy(here), _Transactional.mark

    def twice(self: _Transactional, place: Place, count: int) -> None:
        true(self, place, count + 1)

    monkeypatch.setattr(_Transactional, "mark", twice)
    monkeypatch.setattr(empty_transactions, "WITHIN", topics.WITHIN)
    with pytest.raises(RestoreError, match=r"gappy-\d+-back\[0\] ends at \d+, planned was \d+"):
        here.bring(topic, by=By.TRANSACTIONS)


@pytest.fixture
def guarded() -> Iterator[tuple[KafkaConfig, KafkaConfig]]:
    """A broker with ACLs: how its administrator and how an application connect."""
    login = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="app" password="app" user_app="app";'
    )
    listener = {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": login}
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
    }
    with listening({"APP": ("SASL_PLAINTEXT", listener)}, authorizer) as at:
        application = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "app",
            "sasl.password": "app",
        }
        yield (
            KafkaConfig(bootstrap_servers=at["PLAINTEXT"]),
            KafkaConfig(bootstrap_servers=at["APP"], client=application),
        )


def forbid(kafka: KafkaConfig, operation: AclOperation) -> None:
    """Let the application do this no more."""
    acl = AclBinding(
        ResourceType.BROKER,
        "kafka-cluster",
        ResourcePatternType.LITERAL,
        "User:app",
        "*",
        operation,
        AclPermissionType.DENY,
    )
    client = topics.admin(kafka)
    for done in client.create_acls([acl]).values():
        done.result()


@pytest.mark.slow
def test_a_broker_that_refuses_markers_gets_transactions(
    here: Site, guarded: tuple[KafkaConfig, KafkaConfig]
) -> None:
    administrator, application = guarded
    elsewhere = gappy(here)
    (label,) = here.repository.labels()
    here.connect(administrator)
    with pytest.raises(NoBackup, match="its cluster_id is"):
        here.plan(elsewhere)
    assert any("archived from cluster" in line for line in here.plan(elsewhere, label).lines())
    topic = gappy(here)
    assert not any("cluster" in line for line in here.plan(topic).lines())
    with RawWriter(application) as writer:
        assert writer.may_mark()
    for operation in (AclOperation.ALTER, AclOperation.CLUSTER_ACTION):
        forbid(administrator, operation)
    here.connect(application)
    done = here.bring(topic)
    assert done.run.plan.by is By.TRANSACTIONS
    assert any("let us write no markers" in line for line in done.run.plan.lines())
    here.connect(administrator)
    equal(here, topic)
    here.connect(application)
    with pytest.raises(RestoreError, match="right to ALTER the cluster; --mode dense needs none"):
        here.bring(topic, name="other", by=By.MARKERS)
