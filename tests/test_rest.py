"""How Connect and the registry are spoken to: what is asked again, and what is never told."""

import logging
import ssl
import threading
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import modes
from pipeline.config import (
    ConnectConfig,
    PipelineConfig,
    RegistryConfig,
    RepositoryConfig,
    RestConfig,
    load,
)
from pipeline.errors import ConfigError, ServerError
from pipeline.registry import apicurio
from pipeline.registry.client import RegistryClient, SchemaMissing
from pipeline.rest import Rest

BRIEF = timedelta(seconds=0.3)
SECRET = "hu/sh@7"  # noqa: S105 - made up
QUOTED = "hu%2Fsh%407"
REBALANCE = b'{"error_code": 409, "message": "conflicting operation (e.g. worker rebalance)"}'
SLOW = b'{"error_code": 500, "message": "Request timed out. The worker is starting"}'


class Service(ThreadingHTTPServer):
    """Answers in turn, the last one for ever, and notes what it was asked."""

    def __init__(self, *answers: tuple[int, bytes], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Answer)
        self.answers = list(answers)
        self.asked: list[str] = []
        self.logins: list[str | None] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Service

    def _answer(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.logins.append(self.headers["Authorization"])
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if not status:  # the connection ends without a word
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # whatever the method
            return self._answer
        raise AttributeError(name)

    def log_message(self, *_line: object) -> None: ...


@pytest.fixture
def service() -> Iterator[Service]:
    with Service((200, b"[]")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "passing",
    [(409, REBALANCE), (500, SLOW), (502, b""), (503, b""), (504, b"late"), (0, b"")],
    ids=["rebalance", "timed out", "no worker", "unavailable", "late", "cut off"],
)
def test_what_is_answered_for_the_moment_is_asked_again(
    service: Service, passing: tuple[int, bytes]
) -> None:
    service.answers = [passing, (200, b'["one"]')]
    with ConnectClient(f"http://{service.address}") as connect:
        assert connect.names() == ["one"]
    assert service.asked == ["GET /connectors"] * 2


@pytest.mark.parametrize("passing", [(500, SLOW), (503, b"")], ids=["timed out", "unavailable"])
def test_what_may_have_been_carried_out_is_not_sent_twice(
    service: Service, passing: tuple[int, bytes]
) -> None:
    service.answers = [passing, (200, b"{}")]
    with ConnectClient(f"http://{service.address}") as connect, pytest.raises(ServerError):
        connect.restart("one")
    assert len(service.asked) == 1


def test_a_rebalance_refuses_before_it_acts_so_all_is_sent_again(service: Service) -> None:
    service.answers = [(409, REBALANCE), (200, b"{}")]
    with ConnectClient(f"http://{service.address}") as connect:
        connect.restart("one")
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("status", "text"),
    [(409, "Connector one already exists"), (500, "no such class"), (400, "bad"), (401, "who?")],
)
def test_what_is_answered_for_good_is_told_at_once(
    service: Service, status: int, text: str
) -> None:
    service.answers = [(status, f'{{"error_code": {status}, "message": "{text}"}}'.encode())]
    with (
        ConnectClient(f"http://{service.address}") as connect,
        pytest.raises(ServerError, match=f"HTTP {status}: {text.replace('?', '.')}"),
    ):
        connect.put_config("one", {})
    assert len(service.asked) == 1


@pytest.mark.parametrize("body", [b'{"status": "ok"}', b'"up"', b""])
def test_what_answers_something_else_is_no_registry(service: Service, body: bytes) -> None:
    """A gateway's page of health would be taken for a registry with one subject, or with none."""
    service.answers = [(200, body)]
    with RegistryClient(f"http://{service.address}") as registry:
        for ask in (registry.subjects, partial(registry.versions, "orders-value")):
            with pytest.raises(ServerError, match=r"expected a list, found .*registry's address"):
                ask()


def test_a_schema_that_does_not_fit_is_no_rebalance(service: Service) -> None:
    service.answers = [(409, b'{"error_code": 409, "message": "incompatible"}')]
    with (
        RegistryClient(f"http://{service.address}") as registry,
        pytest.raises(ServerError, match="HTTP 409: incompatible"),
    ):
        registry.register("orders-value", "{}")
    service.answers = [(404, b'{"error_code": 40401, "message": "gone"}')]
    with (
        RegistryClient(f"http://{service.address}") as registry,
        pytest.raises(SchemaMissing) as told,
    ):
        registry.versions("orders-value")
    assert told.value.code == 40401


def test_patience_ends_with_the_last_reason(service: Service) -> None:
    service.answers = [(503, b"starting")]
    with (
        ConnectClient(f"http://{service.address}", BRIEF) as connect,
        pytest.raises(ServerError, match=r"GET http://.*/connectors: not within 0\.3 s.*starting"),
    ):
        connect.names()


def test_nobody_listens_until_a_worker_starts() -> None:
    """A refused connection carried nothing, so that even a POST is sent again."""
    with Service((204, b"")) as worker:
        port = worker.server_port  # free again when the block ends
    late: list[Service] = []

    def start() -> None:
        late.append(Service((204, b""), port=port))
        late[0].serve_forever(0.01)

    starting = threading.Timer(0.3, start)
    with ConnectClient(f"http://127.0.0.1:{port}") as connect:
        starting.start()
        connect.restart("one")
    late[0].shutdown()
    starting.join()
    late[0].server_close()
    assert len(late[0].asked) == 1


@pytest.mark.parametrize("url", ["https://localhost.invalid:1", "gopher://127.0.0.1:1"])
def test_an_address_that_leads_nowhere_is_told_at_once(url: str) -> None:
    with ConnectClient(url, timedelta(hours=1)) as connect, pytest.raises(ServerError):
        connect.names()


def test_an_address_that_is_none_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="http://host:port is no URL"):
        ConnectClient("http://host:port")


@pytest.mark.parametrize("kind", [ConnectConfig, RegistryConfig])
def test_the_login_of_a_url_is_used_and_never_told(
    kind: type[RestConfig],
    service: Service,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not by configuration or client, not in an error, a traceback or the log of the library."""
    caplog.set_level(logging.DEBUG)
    place = kind(url=f"http://me:{QUOTED}@{service.address}")
    told = [repr(place), str(place), place.model_dump_json()]
    service.answers = [(200, b"[]"), (400, b"no"), (503, b"")]
    with Rest(place, BRIEF) as client:
        assert client.ask("GET", "/").json() == []
        told.append(f"{vars(client)} {client!r} {client.url}")
        told.append(client.ask("GET", "/").text)
        with pytest.raises(ServerError) as error:
            client.ask("GET", "/")
    away = kind(url=f"http://me:{QUOTED}@127.0.0.1:1")
    with Rest(away, BRIEF) as nobody, pytest.raises(ServerError) as refused:
        nobody.ask("POST", "/")
    for raised in (error.value, refused.value):
        told += [repr(raised), *traceback.format_exception(raised)]
    told.append(caplog.text)
    assert not [text for text in told if SECRET in text or QUOTED in text]
    assert service.logins[0] == f"Basic {b64encode(f'me:{SECRET}'.encode()).decode()}"


def test_the_own_interface_of_apicurio_gets_the_login_and_tells_it_nowhere(
    service: Service,
) -> None:
    place = RegistryConfig(url=f"http://me:{QUOTED}@{service.address}/apis/ccompat/v7")
    own = apicurio.beside(place, BRIEF)
    assert own is not None
    service.answers = [(403, b'{"detail": "not for you", "status": 403}')]
    with own, pytest.raises(ServerError, match="import: HTTP 403: not for you") as refused:
        own.bring_in(b"zip")
    told = "".join([repr(own), own.url, *traceback.format_exception(refused.value)])
    assert not [secret for secret in (SECRET, QUOTED) if secret in told]
    assert service.asked == ["POST /apis/registry/v3/admin/import?requireEmptyRegistry=true"]
    assert service.logins == [f"Basic {b64encode(f'me:{SECRET}'.encode()).decode()}"]
    elsewhere = RegistryConfig(url=f"http://{service.address}")
    assert apicurio.beside(elsewhere) is None


def test_a_login_may_stand_beside_the_url_and_is_read_at_each_use(
    service: Service, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    url = f"http://{service.address}"
    basic = RestConfig(url=url, user="me", password_file=secret)
    with Rest(basic) as client:
        client.ask("GET", "/")
        secret.write_text("second\n")
        client.ask("GET", "/")
    with Rest(RestConfig(url=url, token_file=secret)) as client:
        client.ask("GET", "/")
        secret.unlink()
        with pytest.raises(ConfigError, match=f"token_file: .*{secret}"):
            client.ask("GET", "/")
    plain = (b64encode(word).decode() for word in (b"me:first", b"me:second"))
    assert service.logins == [*(f"Basic {each}" for each in plain), "Bearer second"]


def test_the_settings_of_a_connector_are_asked_with_the_login(
    service: Service, tmp_path: Path
) -> None:
    place = ConnectConfig(url=f"http://me:{QUOTED}@{service.address}")
    assert modes(PipelineConfig(connect=place, repository=RepositoryConfig(path=tmp_path))) == {}
    assert service.logins == [f"Basic {b64encode(f'me:{SECRET}'.encode()).decode()}"]


def test_the_file_and_the_environment_may_hold_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f'[connect]\nurl = "https://me:{QUOTED}@connect:8083/base"\n[repository]\npath = "/r"\n'
        f'[kafka]\nclient = {{ "sasl.password" = "{SECRET}" }}\n'
    )
    assert SECRET not in repr(load(file))
    connect = load(file).connect
    assert (connect.url, connect.user, connect.secret()) == (
        "https://connect:8083/base",
        "me",
        SECRET,
    )
    monkeypatch.setenv("PIPELINE_REGISTRY__URL", f"https://me:{QUOTED}@registry")
    monkeypatch.setenv("PIPELINE_REGISTRY__PASSWORD", "other")
    registry = load(file).registry
    assert (registry.url, registry.secret()) == ("https://registry", "other")


def test_only_the_authorities_of_ca_file_are_trusted(service: Service, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(_self_signed("127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    url = f"https://{service.address}"
    with Rest(RestConfig(url=url, ca_file=certificate)) as client:
        assert client.ask("GET", "/").json() == []
    with (
        Rest(RestConfig(url=url), timedelta(hours=1)) as client,
        pytest.raises(ServerError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.ask("GET", "/")
    with pytest.raises(ConfigError, match="ca_file"):
        Rest(RestConfig(url=url, ca_file=tmp_path / "none"))


def test_a_certificate_of_ours_is_shown_where_it_is_asked_for(
    service: Service, tmp_path: Path
) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(_self_signed("127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    place = RestConfig(url=f"https://{service.address}", ca_file=certificate)
    with Rest(place.model_copy(update={"client_cert": certificate})) as client:
        assert client.ask("GET", "/").json() == []
    with Rest(place, BRIEF) as stranger, pytest.raises(ServerError):
        stranger.ask("GET", "/")
    with pytest.raises(ConfigError, match="client_cert"):
        Rest(place.model_copy(update={"client_cert": tmp_path / "none"}))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, b"<html><body>Sign in"), "expected JSON, found '<html><body>Sign in'"),
        ((401, b'{"error_code": 401, "message": "who?"}'), "HTTP 401: who"),
        ((403, b'{"error_code": 40301, "message": "no"}'), "HTTP 403: no"),
        ((422, b'{"error_code": 42205, "message": "is in read-only mode"}'), "read-only mode"),
    ],
    ids=["proxy", "unauthorized", "forbidden", "read-only"],
)
def test_a_registry_that_does_not_take_it_is_one_clear_error(
    service: Service, answer: tuple[int, bytes], says: str
) -> None:
    service.answers = [answer]
    with (
        RegistryClient(f"http://{service.address}") as registry,
        pytest.raises(ServerError, match=says) as told,
    ):
        registry.register("orders-value", "{}")
    assert f"POST http://{service.address}/subjects/orders-value/versions" in str(told.value)
    assert len(service.asked) == 1


def _self_signed(address: str) -> bytes:
    """A key and its certificate, for one day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    return secret + made.public_bytes(pem)
