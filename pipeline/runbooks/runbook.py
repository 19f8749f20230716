"""The frame of every runbook: what is asked beforehand, steps that can be repeated, one journal.

A recovery is killed, or fails, at any statement, and is resumed hours later on servers that others
have used meanwhile. So nothing is taken for true because the journal says that it was done: before
each step every earlier one is asked whether it still holds, and the first that does not is next.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from pipeline.errors import BeginAgain, PipelineError, RecoveryRefused
from pipeline.repository.journal import Journal
from pipeline.wait import telling

Facts = dict[str, Any]
Observe = Callable[[str, Facts], None]
Progress = Callable[[str], None]
REPEATS = 3
"""How often one run repeats a step that was true and is no longer."""


class Phase(StrEnum):
    """What a step is for, in the product's own words; a drill ends each with a mark."""

    PREPARE = "prepare"
    STOP = "stop"
    KEEP = "keep"
    RESTORE = "restore"
    REPLAY = "replay"
    OPEN = "open"
    RECONNECT = "reconnect"
    VERIFY = "verify"
    SERVE = "serve"


def holds(_facts: Facts) -> str | None:
    """Say of a step that nothing but itself can undo it."""
    return None


@dataclass(frozen=True)
class Step:
    """One step. `act` does it and may be repeated after a kill at any statement of it.

    `holds` gets what `act` answered and says why that is no longer true, or None. It is asked
    before every later step, so it reads and never changes anything, and is quick. Once the step
    `until` is done it is not asked any more: a fence need not hold behind the opening.
    """

    name: str
    phase: Phase
    act: Callable[[], Facts]
    holds: Callable[[Facts], str | None] = holds
    until: str = ""


@dataclass(frozen=True)
class Precondition:
    """Something without which a later step could not succeed.

    `ask` yields a sentence for each thing that stands in the way: what, where, expected and found.
    What cannot be found out stands in the way as well. `waiver` is the option by which the operator
    goes on all the same, where that can be.
    """

    name: str
    ask: Callable[[], Iterable[str]]
    advice: str
    waiver: str = ""

    def problems(self) -> list[str]:
        """Ask, and answer what stands in the way in words."""
        try:
            return list(self.ask())
        except (PipelineError, psycopg.Error, OSError) as error:
            return [f"cannot be found out: {str(error).strip()}"]

    def lines(self) -> Iterator[str]:
        """Say each with what to do about it."""
        waived = f" To go on all the same: {self.waiver}." if self.waiver else ""
        for problem in self.problems():
            yield f"{self.name}: {problem}. {self.advice}.{waived}"


class Runbook(ABC):
    """One recovery, from its preconditions to its last step. Subclasses are its lists.

    `observe` hears of each step when it is done, with what it read back; `progress` takes a line
    for people.
    """

    kind: ClassVar[str]
    """First part of the name of its journals."""
    first: ClassVar[str]
    """Name of the step that only looks: a journal without it is of a recovery that was refused."""
    last: ClassVar[str]
    """Name of the step that is done last."""
    journal: Journal
    observe: Observe
    progress: Progress

    @abstractmethod
    def identify(self) -> None:
        """Raise RecoveryRefused unless what was typed names what is there; asked on every run."""

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """List the steps in their order; the first one only looks and writes nothing."""

    def preconditions(self) -> Sequence[Precondition]:
        """List everything that decides whether a later step can succeed."""
        return ()

    @classmethod
    def unfinished(cls, repository: Path) -> Iterator[Journal]:
        """Find the recoveries of this kind that touched something and did not come to their end."""
        for journal in Journal.every(repository, cls.kind):
            if journal.unfinished(cls.first, cls.last):
                yield journal

    @property
    def done(self) -> Mapping[str, Facts]:
        """What the steps that were done answered, by step."""
        return self.journal.done() if self.journal.path.exists() else {}

    def refusals(self) -> Iterator[str]:
        """Ask every precondition, and yield a line for each thing that stands in the way."""
        for one in self.preconditions():
            yield from one.lines()

    def run(self) -> None:
        """Do what is not yet true, step by step.

        Raises RecoveryRefused before anything was touched when the identity does not fit or a
        precondition does not hold, and the step's own error after writing it into the journal.
        """
        with self.journal.only(self.kind), self.journal.alone(), telling(self.progress):
            self._identify()
            steps, again = self.steps(), dict[str, int]()
            if self.first not in self.done:
                self._refuse_unless_ready()
            while (step := self._next(steps, again)) is not None:
                self.progress(step.name.replace("_", " "))
                facts = self.journal.run(step.name, step.act, phase=step.phase)
                self.observe(step.name, facts)

    def _identify(self) -> None:
        try:
            self.identify()
        except RecoveryRefused as refusal:
            self.journal.write(self.first, "refused", problems=[str(refusal)])
            raise

    def _refuse_unless_ready(self) -> None:
        if told := list(self.refusals()):
            self.journal.write(self.first, "refused", problems=told)
            raise RecoveryRefused("nothing was touched:\n" + "\n".join(f"  {t}" for t in told))

    def _next(self, steps: Sequence[Step], again: dict[str, int]) -> Step | None:
        """Find the first step that is not true."""
        done = self.done
        for step in steps:
            if step.name not in done:
                return step
            why = None if step.until in done else step.holds(done[step.name])
            if why is None:
                continue
            again[step.name] = again.get(step.name, 0) + 1
            if again[step.name] > REPEATS:
                raise BeginAgain(
                    f"{step.name} was done {REPEATS} times more and does not hold: {why}"
                )
            self.progress(f"  {step.name} does not hold any more: {why}")
            return step
        return None
