"""One way to speak with Kafka Connect and the registry: login, certificates, patience.

What is answered for the moment only (a worker that starts or rebalances, a proxy without a worker)
is asked again, unless the request may have been carried out and would then count twice.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Self

import httpx

from pipeline.config import RestConfig
from pipeline.errors import ConfigError, ServerError, without_logins
from pipeline.wait import wait_until

PATIENCE = timedelta(seconds=30)
POLL = timedelta(milliseconds=200)
NOT_FOUND = 404
_REPEATABLE = {"GET", "PUT", "PATCH"}
_UNAVAILABLE = {502, 503, 504}


class Rest:
    """One service; `url` is its address without a login, for messages."""

    def __init__(self, place: RestConfig | str, patience: timedelta | None = None) -> None:
        self._place = RestConfig(url=place) if isinstance(place, str) else place
        self._patience = PATIENCE if patience is None else patience
        self.url = self._place.url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=self.url,
                timeout=self._place.timeout.total_seconds(),
                auth=self._signed,
                verify=_trusted(self._place),
            )
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self.url} is no URL: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        repeatable: bool | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send, again while the answer is one of the moment, and return the first other answer.

        `body` goes as JSON, `content` as it is. Raises ServerError with the last reason when
        patience has passed.
        """
        again = method in _REPEATABLE if repeatable is None else repeatable
        what = f"{method} {self.url}{path}"
        answers: list[httpx.Response] = []

        def momentary() -> str | None:
            try:
                answer = self._http.request(
                    method, path, json=body, content=content, headers=headers
                )
            except httpx.HTTPError as error:
                told = without_logins(f"{type(error).__name__}: {error}")
                if _for_good(error) or not (again or _unsent(error)):
                    raise ServerError(f"{what}: {told}") from error
                return told
            if self._busy(answer) or (again and _unavailable(answer)):
                return f"HTTP {answer.status_code}: {message(answer)}"
            answers.append(answer)
            return None

        wait_until(what, momentary, within=self._patience, every=POLL)
        return answers[-1]

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        repeatable: bool | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Return the answer's JSON, None when it has no body; raise what `_refused` makes of it."""
        answer = self.ask(method, path, body, repeatable=repeatable)
        if answer.is_error:
            told = f"HTTP {answer.status_code}: {message(answer)}"
            raise self._refused(f"{method} {self.url}{path}: {told}", answer)
        try:
            return answer.json() if answer.content else None
        except ValueError:
            told = " ".join(answer.text.split())[:80]
            raise ServerError(
                f"{method} {self.url}{path}: HTTP {answer.status_code}, expected JSON, found "
                f"{told!r}: is that the address of the API, or a proxy's?"
            ) from None

    def _busy(self, _answer: httpx.Response) -> bool:
        """Whether the service did not carry it out, and will when asked later."""
        return False

    def _refused(self, told: str, _answer: httpx.Response) -> ServerError:
        return ServerError(told)

    def _signed(self, request: httpx.Request) -> httpx.Request:
        """Add the login, read now, so that a rotated file is followed."""
        if token := self._place.token():
            request.headers["Authorization"] = f"Bearer {token}"
        elif self._place.user is not None:
            basic = httpx.BasicAuth(self._place.user, self._place.secret() or "")
            return next(basic.auth_flow(request))
        return request


def message(answer: httpx.Response) -> str:
    """What both services say of an error."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:500]


def _trusted(place: RestConfig) -> ssl.SSLContext | bool:
    if place.ca_file is None and place.client_cert is None:
        return True
    authorities = str(place.ca_file) if place.ca_file else None
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:  # ssl's own errors are such, too
        raise ConfigError(f"ca_file {authorities}: {error}") from error
    if place.client_cert is not None:
        try:
            context.load_cert_chain(place.client_cert, place.client_key)
        except OSError as error:
            raise ConfigError(f"client_cert {place.client_cert}: {error}") from error
    return context


def _unavailable(answer: httpx.Response) -> bool:
    # Connect's words where the leader of its group does not answer it in time
    timed_out = answer.status_code == 500 and "request timed out" in answer.text.lower()
    return timed_out or answer.status_code in _UNAVAILABLE


def _unsent(error: httpx.HTTPError) -> bool:
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _for_good(error: httpx.HTTPError) -> bool:
    """Whether no patience helps: a certificate, an unknown name, an address that is none."""
    if not isinstance(error, httpx.TransportError) or isinstance(error, httpx.UnsupportedProtocol):
        return True
    return any(
        isinstance(cause, ssl.SSLError)
        or (isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
