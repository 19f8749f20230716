"""Rules of one base backup, asked of every set that a restore of the newest one combines."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps

from checks.check import Observation
from checks.subjects import BaseBackup
from pipeline.errors import BackupError

Rule = Callable[[BaseBackup], Iterable[Observation]]


def of_every_link(rule: Rule) -> Callable[[BaseBackup], Iterator[Observation]]:
    """Examine the newest base backup, then what it builds on: half a chain restores nothing.

    What is said of a set below names that set. Where the chain is broken, or a set holds nothing
    to examine, an error ends it: the rest was not verified.
    """

    @wraps(rule)
    def examine(base: BaseBackup) -> Iterator[Observation]:
        for link in base.links():
            label, examined = link.manifest.label, False
            for seen in rule(link):
                examined = True
                below = Observation(named(label, seen.subject), seen.problem)
                yield seen if link is base else below
            if not examined:
                raise BackupError(f"{label}: nothing of it was examined")

    return examine


def named(label: str, subject: str) -> str:
    """Name something in a set below the newest one."""
    return f"{label}: {subject}"
