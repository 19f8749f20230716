"""What goes wrong with a topic or a partition while others are archived."""

from collections.abc import Callable, Iterator, Mapping

from pipeline.errors import BackupError, PipelineError, ServerError
from pipeline.kafka.cluster.raw import NobodyAnswers
from pipeline.kafka.log.place import Place

_NAMED = 3
"""Partitions of a topic that are named in one reason; the rest is counted."""


class Trouble:
    """Collects what cannot be archived; a strict run ends with the first of it."""

    def __init__(self, say: Callable[[str], None], *, strict: bool) -> None:
        self.found: dict[str, list[str]] = {}
        self._say, self._strict = say, strict

    def of_topics(self, missing: Mapping[str, str]) -> None:
        for topic, why in missing.items():
            self._note(topic, why, ServerError(f"{topic}: {why}"))

    def of_partitions(self, missing: Mapping[Place, str]) -> None:
        for place, why in missing.items():
            self._note(place.topic, f"[{place.partition}] {why}", ServerError(f"{place}: {why}"))

    def of_partition(self, place: Place, error: BackupError | ServerError) -> None:
        """Raise it where no other partition would fare better."""
        if isinstance(error, NobodyAnswers):
            raise error
        self._note(place.topic, f"[{place.partition}] {error}", error)

    def _note(self, topic: str, why: str, error: PipelineError) -> None:
        if self._strict:
            raise error
        self.found.setdefault(topic, []).append(why)
        self._say(f"{topic}: not archived whole: {why}")

    @property
    def told(self) -> dict[str, str]:
        """Say for each topic in one line why it is not whole."""
        return {topic: "; ".join(_some(reasons)) for topic, reasons in sorted(self.found.items())}

    def lines(self) -> Iterator[str]:
        for topic, why in self.told.items():
            yield f"{topic}: {why}"


def _some(reasons: list[str]) -> Iterator[str]:
    yield from reasons[:_NAMED]
    if len(reasons) > _NAMED:
        yield f"and {len(reasons) - _NAMED} partitions more"
