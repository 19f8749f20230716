"""The proof that a check can go red: sound copy, fault, and the check names what was damaged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Protocol, runtime_checkable

from checks.check import Catalogue, Check, Examination, Outcome
from fixtures.scratch import (
    Chained,
    Damage,
    Fault,
    FaultRefused,
    InjectionFailed,
    Material,
    S,
    Scratch,
)


@runtime_checkable
class Closing(Protocol):
    """A subject that holds something, as a server that was started for it."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True)
class Injection(Generic[S]):
    """A check and one of the faults that it must detect."""

    check: Check[S]
    name: str

    @property
    def id(self) -> str:
        return f"{self.check.id}-{self.name}"

    @property
    def fault(self) -> Fault[S]:
        return self.check.faults[self.name]

    def chosen(self, material: Material) -> Material:
        """What the fault is injected into copies of; InjectionFailed where that is not at hand."""
        if self.name not in self.check.chained:
            return material
        if not isinstance(material, Chained):
            raise InjectionFailed(f"{self.id}: this material holds no chain of base backups")
        return material.chained


@dataclass(frozen=True)
class Proof:
    """What every check of a kind of subject said about one damaged copy."""

    injection: Injection[Any]
    control: Examination
    damage: Damage | None
    seen: dict[str, Examination]

    @property
    def also_seen_by(self) -> list[str]:
        """Other checks that went red; the same damage may break several rules."""
        own = self.injection.check.id
        return [
            other
            for other, examination in self.seen.items()
            if other != own and examination.outcome is Outcome.FAIL
        ]

    @property
    def problem(self) -> str | None:
        """Why this does not prove the check, or None."""
        if self.damage is None:
            return f"the control failed: {told(self.control)} on an undamaged copy"
        found = self.seen[self.injection.check.id]
        if found.outcome is not Outcome.FAIL:
            return f"it said {told(found)} although {self.damage.what} ({self.damage.subject})"
        reasons: dict[str, list[str]] = {}
        for problem in found.problems:
            reasons.setdefault(problem.subject, []).append(problem.problem or "")
        return _misses(self.damage, reasons)


def _misses(damage: Damage, reasons: dict[str, list[str]]) -> str | None:
    """What a red check does not say of the damage: the damaged thing, or the reason."""
    if damage.subject not in reasons:
        return f"{damage.what} in {damage.subject!r}, but it named {list(reasons)}"
    if not damage.says:
        return f"{damage.what} in {damage.subject!r}, and the fault does not say by which reason"
    told = reasons[damage.subject]
    if not any(damage.says in reason for reason in told):
        return f"{damage.what} in {damage.subject!r}, expected {damage.says!r}, but it said {told}"
    return None


def prove(injection: Injection[S], catalogue: Catalogue, material: Material, rng: Random) -> Proof:
    """Run the check on a copy, damage the copy, and run every check of its kind again."""
    with injection.chosen(material).scratch(injection.check.on) as scratch:
        with opened(scratch) as copy:
            control = injection.check.run(copy)
        if control.outcome is not Outcome.PASS:
            return Proof(injection, control, None, {})
        damage = inject(injection, scratch, rng)
        with opened(scratch) as copy:  # what one check read of it serves the others
            seen = {other.id: other.run(copy) for other in catalogue.on(injection.check.on)}
        return Proof(injection, control, damage, seen)


@contextmanager
def opened(scratch: Scratch[S]) -> Iterator[Callable[[], S]]:
    """Give a function that opens the copy once, for several checks; it is closed at the end."""
    subjects: list[S] = []

    def once() -> S:
        if not subjects:
            subjects.append(scratch.copy)
        return subjects[0]

    try:
        yield once
    finally:
        for subject in subjects:
            if isinstance(subject, Closing):
                subject.close()


def inject(injection: Injection[S], scratch: Scratch[S], rng: Random) -> Damage:
    """Damage the copy, and read back that it is another one now."""
    before = scratch.fingerprint()
    try:
        damage = injection.fault(scratch, rng)
    except FaultRefused:
        raise
    except Exception as error:  # whatever a fault raises, it has not been injected
        raise InjectionFailed(f"{injection.id}: {type(error).__name__}: {error}") from error
    if scratch.fingerprint() == before:
        raise InjectionFailed(
            f"{injection.id} says that {damage.what} ({damage.subject}), "
            "but nothing in the copy differs from before"
        )
    return damage


def told(examination: Examination) -> str:
    """An examination in one line."""
    if examination.outcome is Outcome.FAIL:
        first, *more = examination.problems
        return f"FAIL ({first.subject}: {first.problem}{f', {len(more)} more' if more else ''})"
    return f"{examination.outcome}{f' ({examination.trouble})' if examination.trouble else ''}"
