"""Which answers of Kafka pass by themselves, and for how long they are asked for again.

The one place that decides it, for librdkafka and for raw requests alike: their codes from 0 on are
those of https://kafka.apache.org/protocol#protocol_error_codes.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from kafka.errors import KafkaError as RawError
from kafka.errors import for_code

from pipeline.errors import ServerError
from pipeline.kafka.cluster.wire import Disconnected
from pipeline.wait import wait_until

PATIENCE = timedelta(seconds=60)
"""How long the same is asked for again: a leader is elected, a broker starts."""
SETTLING = timedelta(seconds=5)
"""How long a topic may be unknown: brokers hear of a new one a little after it was made."""
EVERY = timedelta(milliseconds=200)
SECONDS = 30.0
"""How long one request of librdkafka may take, which connects again meanwhile."""

UNKNOWN = frozenset({3, 100, 103})
"""Unknown topic or partition, unknown topic id, another topic id: of one made a moment ago."""
_ALSO = frozenset({8})  # BROKER_NOT_AVAILABLE, which kafka-python takes for lasting
_NOBODY = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001 - its public names begin so
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    }
)
_OF_LIBRDKAFKA = _NOBODY | {
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._WAIT_COORD,  # noqa: SLF001
}
_NEVER = timedelta(seconds=1)  # the condition itself ends the wait, before it is over
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def passes(code: int) -> bool:
    """Whether the same request may succeed later, whoever made the topic."""
    if code < 0:
        return code in _OF_LIBRDKAFKA
    return code not in UNKNOWN and (code in _ALSO or bool(getattr(for_code(code), "retriable", 0)))


def name(code: int) -> str:
    """Kafka's name for it."""
    return str(for_code(code).__name__)


def code_of(error: BaseException) -> int | None:
    """Return the code of Kafka's that an exception carries, None for one of another kind."""
    if isinstance(error, KafkaException):
        return int(error.args[0].code())
    return getattr(error, "errno", None) if isinstance(error, RawError) else None


def momentary(error: BaseException) -> bool:
    """Whether it passes: a leader moves, a coordinator loads, a connection comes back."""
    if isinstance(error, RawError) and code_of(error) is None:
        return bool(error.retriable)  # kafka-python's own: the connection broke
    code = code_of(error)
    return isinstance(error, OSError | Disconnected) if code is None else passes(code)


def ask_again(what: str, ask: Callable[[], T]) -> T:
    """Return what `ask` returns; while its error passes by itself, ask again within PATIENCE.

    A topic may be unknown for SETTLING. Raises ServerError with the last answer.
    """
    found, failed = ask_each(what, [what], lambda _: {what: ask()})
    if failed:
        raise ServerError(f"{what}: {reason(failed[what])}") from failed[what]
    return found[what]


def ask_each(
    what: str, wanted: Iterable[K], ask: Callable[[Sequence[K]], Mapping[K, T | Exception]]
) -> tuple[dict[K, T], dict[K, Exception]]:
    """Ask for several things together, and again for those whose error passes by itself.

    What is still refused when PATIENCE is over, or was refused for good, comes second: one that
    does not answer must not stop the others.
    """
    found, failed, left = dict[K, T](), dict[K, Exception](), list(wanted)
    first = time.monotonic()

    def refused() -> str | None:
        began = time.monotonic()
        for key, told in _answers(left, ask).items():
            if isinstance(told, Exception):
                failed[key] = told
            else:
                found[key] = told
                failed.pop(key, None)
        left[:] = [key for key in failed if _may_pass(failed[key], first, began)]
        over = time.monotonic() - first >= PATIENCE.total_seconds()
        return f"{left[0]}: {reason(failed[left[0]])}" if left and not over else None

    wait_until(what, refused, within=PATIENCE + _NEVER, every=EVERY)
    return found, failed


def _answers(
    left: Sequence[K], ask: Callable[[Sequence[K]], Mapping[K, T | Exception]]
) -> Mapping[K, T | Exception]:
    try:
        return ask(left) if left else {}
    except (KafkaException, RawError, OSError, Disconnected) as error:
        return dict.fromkeys(left, error)


def _may_pass(error: Exception, first: float, began: float) -> bool:
    """Whether to ask again: not where librdkafka has found nobody for as long as it may try."""
    now, code = time.monotonic(), code_of(error)
    if code in UNKNOWN:
        return now - first < SETTLING.total_seconds()
    return momentary(error) and (code not in _NOBODY or now - began < SECONDS)


def reason(error: Exception) -> str:
    """What it says, in one line."""
    return str(error) if isinstance(error, KafkaException | ServerError) else repr(error)
