"""Blocking connections to brokers that speak kafka-python's protocol classes.

kafka-python's own transport reads 4 KiB at a time and hands each piece through an event loop; here
an answer of megabytes is received at once into one buffer, and other threads run meanwhile.
"""

import io
import socket
import ssl
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any

from kafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from pipeline.errors import ConfigError, ServerError

SECONDS = 30.0
"""How long a broker may be silent while something is asked of it."""
CLIENT = "recovery-drills"
LARGEST_FRAME = 1 << 30
_SIZE = struct.Struct(">i")
_HEADER_AT_MOST = 64
_ASKED_FIRST = 3
"""A version of ApiVersions that every broker since 2.4 knows."""


class Disconnected(ServerError):
    """The connection broke or was refused: another try may succeed."""


class Refused(ServerError):
    """The broker does not let us in, or speaks no version that we do: no other try helps."""


class Wire:
    """One connection. Requests are answered in order, and may be sent before the last answer."""

    def __init__(self, host: str, port: int, settings: Mapping[str, Any]) -> None:
        self.where = f"{host}:{port}"
        self._client = str(settings.get("client_id", CLIENT))
        self._correlation = 0
        self._waiting: deque[Any] = deque()
        self._buffer = bytearray(1 << 16)
        self._versions = BrokerVersionData(api_versions={})
        self._socket = self._connect(host, port, settings)
        try:
            self._greet()
            if str(settings.get("security_protocol", "")).startswith("SASL"):
                self._authenticate(host, settings)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: Any) -> Any:  # noqa: ANN401 - generated
        """Send it and wait for the answer; nothing else may be under way."""
        self.send(request)
        return self.receive()

    def send(self, request: Any) -> None:  # noqa: ANN401 - generated
        try:
            if request.API_VERSION is None:
                request.API_VERSION = self._versions.api_version(request)
        except IncompatibleBrokerVersion as error:
            raise Refused(f"{self.where}: {error}") from error
        self._correlation += 1
        request.with_header(correlation_id=self._correlation, client_id=self._client)
        try:
            self._socket.sendall(request.encode(framed=True, header=True))
        except OSError as error:
            raise self._broken(error) from error
        self._waiting.append(request.header)

    def receive(self) -> Any:  # noqa: ANN401 - generated
        """Wait for the answer to the oldest request."""
        sent = self._waiting.popleft()
        frame = self._frame()
        kind = sent.get_response_class()
        start = io.BytesIO(frame[:_HEADER_AT_MOST])
        header = kind.parse_header(start)
        if header.correlation_id != sent.correlation_id:
            raise Disconnected(f"{self.where}: the answer is to another request")
        return kind.decode(frame[start.tell() :])

    def _frame(self) -> memoryview:
        (size,) = _SIZE.unpack(self._read(_SIZE.size))
        if not 0 <= size <= LARGEST_FRAME:
            raise Disconnected(f"{self.where}: an answer of {size} bytes: not a Kafka broker")
        return self._read(size)

    def _read(self, size: int) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        view, done = memoryview(self._buffer)[:size], 0
        while done < size:
            try:
                got = self._socket.recv_into(view[done:])
            except OSError as error:
                raise self._broken(error) from error
            if not got:
                raise Disconnected(f"{self.where}: the broker closed the connection")
            done += got
        return view

    def _broken(self, error: OSError) -> Disconnected:
        return Disconnected(f"{self.where}: {str(error) or type(error).__name__}")

    def _connect(self, host: str, port: int, settings: Mapping[str, Any]) -> socket.socket:
        context = _tls(settings)
        try:
            plain = socket.create_connection((host, port), timeout=SECONDS)
        except OSError as error:
            raise self._broken(error) from error
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return plain
        try:
            return context.wrap_socket(plain, server_hostname=host.rstrip("."))
        except OSError as error:
            plain.close()
            kind = Refused if isinstance(error, ssl.SSLError) else Disconnected
            raise kind(f"{self.where}: TLS: {error}") from error

    def _greet(self) -> None:
        """Learn which versions the broker speaks."""
        request = ApiVersionsRequest(
            version=_ASKED_FIRST, client_software_name=CLIENT, client_software_version="0.1"
        )
        told = self.ask(request)
        if told.error_code:
            raise Refused(f"{self.where}: ApiVersions: {for_code(told.error_code).__name__}")
        versions = {each.api_key: (each.min_version, each.max_version) for each in told.api_keys}
        self._versions = BrokerVersionData(api_versions=versions)

    def _authenticate(self, host: str, settings: Mapping[str, Any]) -> None:
        name = settings.get("sasl_mechanism")
        told = self.ask(SaslHandshakeRequest(mechanism=name, version=1))
        if told.error_code:
            offered = ", ".join(told.mechanisms or ())
            raise Refused(f"{self.where}: SASL mechanism {name} is not among {offered}")
        try:
            mechanism = get_sasl_mechanism(name)(host=host, **settings)
            while not mechanism.is_done():
                told = self.ask(SaslAuthenticateRequest(mechanism.auth_bytes()))
                if told.error_code:
                    raise Refused(f"{self.where}: {told.error_message}")
                mechanism.receive(told.auth_bytes)
        except (KafkaError, KeyError, ValueError) as error:
            raise Refused(f"{self.where}: SASL {name}: {error!r}") from error
        if not mechanism.is_authenticated():
            raise Refused(f"{self.where}: SASL {name} did not authenticate")


def _tls(settings: Mapping[str, Any]) -> ssl.SSLContext | None:
    if not str(settings.get("security_protocol", "")).endswith("SSL"):
        return None
    config = KafkaSSLTransport.DEFAULT_CONFIG | dict(settings)
    try:
        build = KafkaSSLTransport._build_ssl_context  # noqa: SLF001 - none is public
        context: ssl.SSLContext = build(config)
    except OSError as error:
        raise ConfigError(f"kafka.client: certificates cannot be read: {error}") from error
    return context
