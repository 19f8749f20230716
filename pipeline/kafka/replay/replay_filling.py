"""How offsets without a record are filled: with transaction markers, so that nobody sees them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Protocol

from kafka.errors import KafkaError

from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.cluster.raw_produce import MARKERS, Producer, RawWriter, Refused, passing
from pipeline.kafka.log.place import Place
from pipeline.kafka.replay.empty_transactions import EmptyTransactions
from pipeline.kafka.replay.replay_plan import By
from pipeline.wait import wait_until

WITHIN, PAUSE = timedelta(seconds=120), timedelta(milliseconds=200)


class Filling(Protocol):
    """Appends what no consumer sees; `right` is what brokers must grant for it."""

    right: str

    def mark(self, place: Place, at: int, count: int) -> int:
        """Fill offsets of a log that ends at `at`, at most `count`; tells where it ends then."""


class Markers:
    """Markers of transactions that never were, thousands in a request."""

    right = "A marker takes the right to ALTER the cluster"

    def __init__(self, writer: RawWriter, producer: Producer) -> None:
        self._writer, self._producer = writer, producer

    def mark(self, place: Place, at: int, count: int) -> int:
        """Raises Refused; after an error that passes, the log tells how many arrived."""
        count = min(count, MARKERS)
        try:
            self._writer.mark(place, self._producer, count)
        except Refused:
            raise
        except (KafkaError, OSError) as error:
            if not passing(error):
                raise ServerError(f"{place}: marker: {error!r}") from error
            return settled_end(self._writer, place)
        return at + count


@contextmanager
def means_to_fill(
    kafka: KafkaConfig, writers: Sequence[RawWriter], by: By, markers: Producer, name: str
) -> Iterator[Mapping[RawWriter, Filling]]:
    """What fills gaps, for each connection; look up the ends of logs only when it is there.

    `name` is the replay's: transactions that an earlier run of it left open end here.
    """
    if by is By.MARKERS:
        yield {writer: Markers(writer, markers) for writer in writers}
        return
    with ExitStack() as open_:
        found = {}
        for number, writer in enumerate(writers):
            found[writer] = EmptyTransactions(kafka, writer, f"{name}-{number}")
            open_.callback(found[writer].close)
        yield found


def settled_end(writer: RawWriter, place: Place) -> int:
    """End of the log once it rests: a request whose sender is gone may still be on its way."""
    seen: list[int] = []

    def moving() -> str | None:
        seen.append(writer.bounds(place)[1])
        rested = len(seen) > 10 and len(set(seen[-10:])) == 1  # two seconds
        return None if rested else f"its end is {seen[-1]}"

    wait_until(f"{place} at rest", moving, within=WITHIN, every=PAUSE)
    return seen[-1]
