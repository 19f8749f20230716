"""Raw batches of a real broker, and the private names of kafka-python that bring them."""

import inspect
import ssl
import uuid
from datetime import timedelta

import pytest
from kafka.net import KafkaConnectionManager, KafkaNetSocket, KafkaSSLTransport, KafkaTCPTransport

from fixtures.stacks.protocol import Stack
from pipeline.config import KafkaConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.cluster.connections import _Direct
from pipeline.kafka.cluster.raw import OffsetGone, RawReader, settings
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.log.batches import Codec, check_crc, walk
from pipeline.kafka.log.gaps import Aborted
from pipeline.kafka.log.place import Place
from tests.kafka import topics


def test_kafka_python_still_has_the_names_that_are_replaced() -> None:
    build = inspect.signature(KafkaConnectionManager._build_transport)
    assert list(build.parameters) == ["self", "node", "timeout_at"]
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        source = inspect.getsource(transport._sock_recv)
        assert "self._sock.recv(4096)" in source
        assert "return recvd_data, err" in source
    assert "self._sock_recv()" in inspect.getsource(KafkaTCPTransport._read_from_sock)


def test_kafka_python_still_has_the_names_that_writing_uses() -> None:
    assert KafkaConnectionManager.DEFAULT_CONFIG["max_in_flight_requests_per_connection"] == 5
    assert KafkaConnectionManager.DEFAULT_CONFIG["reconnect_backoff_max_ms"] == 30_000
    assert "proxy_url=self.config['proxy_url']" in inspect.getsource(KafkaConnectionManager)
    assert type(KafkaNetSocket("direct://")) is _Direct
    parameters = inspect.signature(KafkaNetSocket.sock_connect).parameters
    assert list(parameters) == ["self", "net", "sock", "sockaddr", "timeout_at"]
    for name in ("run", "send", "call_soon", "least_loaded_node"):
        assert callable(getattr(KafkaConnectionManager, name))


def test_kafka_python_still_makes_the_tls_context_that_is_borrowed() -> None:
    """It verifies the certificate and, unless told otherwise, the name in it."""
    build = KafkaSSLTransport._build_ssl_context
    assert list(inspect.signature(build).parameters) == ["config"]
    assert KafkaSSLTransport.DEFAULT_CONFIG.keys() == {
        *("ssl_context", "ssl_check_hostname", "ssl_crlfile", "ssl_password"),
        *("ssl_cafile", "ssl_certfile", "ssl_keyfile"),
    }
    context = build(KafkaSSLTransport.DEFAULT_CONFIG)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_security_settings_are_translated_or_refused() -> None:
    client = {
        "security.protocol": "sasl_ssl",
        "ssl.ca.location": "ca.pem",
        "sasl.username": "me",
        "ssl.endpoint.identification.algorithm": "none",
        "linger.ms": "5",
    }
    assert settings(client) == {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": "ca.pem",
        "sasl_plain_username": "me",
        "ssl_check_hostname": False,
    }
    with pytest.raises(ConfigError, match=r"'sasl\.oauthbearer\.config' cannot be used"):
        settings({"sasl.oauthbearer.config": "x"})


def place(kafka: KafkaConfig, topic: str) -> Place:
    (found,) = describe(kafka, [topic])
    return found.places[0]


@pytest.mark.stack
def test_batches_come_as_they_were_written(broker: Stack) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "plain")
    topics.fill(topics.producer(kafka, **{"compression.type": "lz4"}), topic, 5_000)
    with RawReader(kafka) as reader:
        data = b"".join(each.data for each in reader.batches(place(kafka, topic), 0, 5_000))
    position = 0
    for batch, view in walk(data, topic):
        check_crc(batch, view, topic)
        assert batch.base_offset == position
        assert batch.codec is Codec.LZ4
        position = batch.next_offset
    assert position == 5_000


@pytest.mark.stack
def test_a_fetch_smaller_than_the_log_goes_on_where_it_ended(broker: Stack) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "small-fetches")
    topics.fill(topics.producer(kafka, **{"batch.size": 1000}), topic, 5_000)
    with RawReader(kafka, fetch_bytes=5_000) as reader:
        answers = list(reader.batches(place(kafka, topic), 0, 4_000))
    found = [batch for each in answers for batch, _ in walk(each.data, topic)]
    assert len(answers) > 3
    assert [b.base_offset for b in found[1:]] == [b.next_offset for b in found[:-1]]
    assert found[-1].base_offset < 4_000 <= found[-1].next_offset


@pytest.mark.stack
def test_the_broker_names_aborted_transactions(broker: Stack) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "aborts")
    topics.transactions(kafka, topic, "cac")
    with RawReader(kafka) as reader:
        (fetched,) = reader.batches(place(kafka, topic), 0, 12)
    first = next(walk(fetched.data, topic))[0]
    assert fetched.aborted == (Aborted(first.producer_id, 4),)
    assert (fetched.last_stable, fetched.high_watermark, fetched.log_start) == (12, 12, 0)


@pytest.mark.stack
def test_offsets_and_topics_that_are_gone_are_named(broker: Stack) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "shortened")
    topics.fill(topics.producer(kafka), topic, 10)
    here = place(kafka, topic)
    topics.delete_before(kafka, topic, 5)
    with RawReader(kafka) as reader:
        with pytest.raises(OffsetGone, match=rf"{topic}\[0\]@3 on {kafka.bootstrap_servers}"):
            reader.fetch(here, 3)
        with pytest.raises(ServerError, match=rf"{topic}\[0\]@0 .* deleted while it was read"):
            reader.fetch(Place(topic, uuid.uuid4(), 0), 0)


def test_a_broker_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("topics", "momentary"):
        monkeypatch.setattr(f"pipeline.kafka.cluster.{where}.SECONDS", 1.0)
    monkeypatch.setattr("pipeline.kafka.cluster.momentary.PATIENCE", timedelta(seconds=1))
    nowhere = KafkaConfig(bootstrap_servers="127.0.0.1:1", client={"log_level": "0"})
    with pytest.raises(ServerError, match=r"topic orders on 127\.0\.0\.1:1"):
        describe(nowhere, ["orders"])
