"""A check is one rule that yields observations, and the faults that prove it can go red."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Literal

from fixtures.scratch import Fault, S
from pipeline.errors import PipelineError

Severity = Literal["blocker", "critical", "normal", "minor"]


class Outcome(StrEnum):
    """Worst first."""

    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"
    NOT_RUN = "NOT RUN"
    PASS = "PASS"  # noqa: S105 - an outcome


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """What is composed of several is as bad as the worst of them; of none, UNKNOWN."""
    found = set(outcomes)
    return next((outcome for outcome in Outcome if outcome in found), Outcome.UNKNOWN)


class NotRun(Exception):
    """A check cannot run as things are configured; the message says what it lacks."""


class CouldNotLook(PipelineError):
    """What a check examines is not there to be looked at; `advice` says what to do about that."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


class CatalogueError(Exception):
    """A check as written must not exist: nothing is collected."""


@dataclass(frozen=True)
class Observation:
    """One thing examined; sound when it has no problem."""

    subject: str
    problem: str | None


@dataclass(frozen=True)
class Examination:
    """What one run of a check saw, and what kept it from seeing more."""

    observations: tuple[Observation, ...]
    trouble: str | None = None
    unable: bool = False
    advice: str | None = None
    """What to do about the trouble, where the check's own advice says nothing of it."""

    @property
    def problems(self) -> tuple[Observation, ...]:
        return tuple(seen for seen in self.observations if seen.problem is not None)

    @property
    def outcome(self) -> Outcome:
        """A problem outweighs the trouble that followed it."""
        if self.problems:
            return Outcome.FAIL
        if self.unable:
            return Outcome.NOT_RUN
        return Outcome.UNKNOWN if self.trouble or not self.observations else Outcome.PASS


@dataclass(frozen=True)
class Check(Generic[S]):
    """A rule about one kind of subject. `advice` says what to do when it does not hold.

    `chained` names the faults that need a newest base backup that is incremental.
    """

    id: str
    on: type[S]
    examine: Callable[[S], Iterable[Observation]]
    advice: str
    severity: Severity
    faults: dict[str, Fault[S]] = field(default_factory=dict)
    chained: set[str] = field(default_factory=set)

    @property
    def component(self) -> str:
        return self.id.partition(".")[0]

    @property
    def title(self) -> str:
        """The rule as a sentence."""
        return (self.examine.__doc__ or "").strip().partition("\n")[0]

    def detects(self, fault: Fault[S]) -> Fault[S]:
        """Add a fault that must turn this check red; used as a decorator beneath it."""
        name = getattr(fault, "__name__", repr(fault))
        if name in self.faults:
            raise CatalogueError(f"{self.id}: two faults are called {name!r}")
        self.faults[name] = fault
        return fault

    def detects_in_a_chain(self, fault: Fault[S]) -> Fault[S]:
        """Add a fault that befalls a full base backup and the incremental ones on it."""
        self.chained.add(getattr(fault, "__name__", repr(fault)))
        return self.detects(fault)

    def run(self, open_subject: Callable[[], S]) -> Examination:
        """Examine to the end; whatever went wrong, the rule was not verified then."""
        seen: list[Observation] = []
        try:
            for observation in self.examine(open_subject()):
                seen.append(observation)  # noqa: PERF402 - what was seen before an error counts
        except NotRun as reason:
            return Examination(tuple(seen), str(reason), unable=True)
        except CouldNotLook as reason:
            return Examination(tuple(seen), str(reason), advice=reason.advice)
        except Exception as error:  # noqa: BLE001 - any exception at all is UNKNOWN, never PASS
            return Examination(tuple(seen), f"{type(error).__name__}: {error}")
        return Examination(tuple(seen), None if seen else "nothing was examined")


class Catalogue:
    """All checks by id, in the order in which they were written."""

    def __init__(self) -> None:
        self._checks: dict[str, Check[Any]] = {}

    def check(
        self, check_id: str, *, on: type[S], advice: str, severity: Severity = "critical"
    ) -> Callable[[Callable[[S], Iterable[Observation]]], Check[S]]:
        """Make a check of the decorated function; its docstring is the rule as a sentence."""

        def made(examine: Callable[[S], Iterable[Observation]]) -> Check[S]:
            if check_id in self._checks:
                raise CatalogueError(f"two checks are called {check_id!r}")
            new = Check(check_id, on, examine, advice, severity)
            self._checks[check_id] = new
            return new

        return made

    def __iter__(self) -> Iterator[Check[Any]]:
        return iter(self._checks.values())

    def __getitem__(self, check_id: str) -> Check[Any]:
        return self._checks[check_id]

    def on(self, kind: type[S]) -> Iterator[Check[S]]:
        """Checks of one kind of subject."""
        return (check for check in self if check.on is kind)

    def proven(self) -> "Catalogue":
        """Itself, once every check carries a fault; CatalogueError names those without."""
        if unproven := [check.id for check in self if not check.faults]:
            raise CatalogueError(f"without a fault that proves them: {', '.join(unproven)}")
        return self


CATALOGUE = Catalogue()
check = CATALOGUE.check
