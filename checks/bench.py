"""Where checks and proofs run: on the pipeline of a configuration, or on generated material."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Protocol, Self, runtime_checkable

from checks.check import Catalogue, Check, Examination
from checks.proof import Closing, Injection, Proof, opened, prove
from fixtures.scratch import Material, Scratch, Subject
from pipeline.config import PipelineConfig


@runtime_checkable
class Shared(Protocol):
    """A subject that is expensive to read: all workers of a session read it once."""

    def shared_in(self, notes: Path) -> Self:
        """The same subject, which writes into `notes` what it read."""


class Bench:
    """One worker's subjects. Faults go into copies of `material`, never into a pipeline."""

    def __init__(
        self,
        material: Callable[[], Material],
        *,
        config: PipelineConfig | None,
        notes: Path,
        seed: int,
    ) -> None:
        self._material = material  # made on first use: a detector only examines
        self._config = config
        self._notes = notes
        self._seed = seed
        self._subjects: dict[type[Subject], Subject] = {}
        self._scratches: list[Scratch[Any]] = []
        self._copies = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._copies.close()

    def examine(self, check: Check[Any]) -> Examination:
        """Run a check on what it is about."""
        for scratch in self._scratches:
            scratch.keep_up()
        return check.run(lambda: self._subject(check.on))

    def prove(self, injection: Injection[Any], catalogue: Catalogue) -> Proof:
        """Prove a check, with randomness that is the same in any order and on any worker."""
        rng = Random(f"{self._seed} {injection.id}")
        return prove(injection, catalogue, self._material(), rng)

    def _subject(self, kind: type[Subject]) -> Subject:
        """Open once: what one check has read serves the others."""
        if kind not in self._subjects:
            self._subjects[kind] = self._open(kind)
        return self._subjects[kind]

    def _open(self, kind: type[Subject]) -> Subject:
        if self._config is None:
            scratch = self._copies.enter_context(self._material().scratch(kind))
            self._scratches.append(scratch)
            return self._copies.enter_context(opened(scratch))()
        subject = kind.of(self._config)
        if isinstance(subject, Closing):
            self._copies.callback(subject.close)
        return subject.shared_in(self._notes) if isinstance(subject, Shared) else subject
