"""How commands end that write a journal and can be resumed from it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.cli.shared import say
from pipeline.errors import BeginAgain, ConfigError, LossNotAccepted, RecoveryRefused
from pipeline.repository.journal import Journal
from pipeline.runbooks.runbook import Runbook


@contextmanager
def resumable(journal: Journal, first: str, *told: str) -> Iterator[None]:
    """Name the journal at the end; say how to go on where it breaks off after the step `first`.

    Before that step is done nothing was touched: there is nothing to go on with. Nor is there where
    the error says that another recovery must begin, or that this one is refused as it was typed.
    """
    try:
        yield
    except BaseException as error:
        no_use = isinstance(error, (BeginAgain, RecoveryRefused))
        if not no_use and journal.path.exists() and first in journal.done():
            on, *others = told
            say(f"{on} {error.option}" if isinstance(error, LossNotAccepted) else on)
            for line in others:
                say(line)
        raise
    say(f"journal: {journal.path}")


def refuse_said_again(options: Mapping[str, object]) -> None:
    """Refuse beside --resume what only a new recovery can be told: it would not be followed."""
    if given := ", ".join(name for name, value in options.items() if value):
        raise ConfigError(f"--resume knows from its journal what was asked for: leave {given} out")


def finished(journal: Journal, last: str) -> bool:
    """Say of a recovery that came to its step `last` that nothing is left to go on with."""
    if (done := journal.done().get(last)) is None:
        return False
    say(f"{journal.recovery} came to its end at {done['utc']}: nothing is left to do")
    return True


def refuse_as_things_stand(runbook: Runbook) -> None:
    """Raise RecoveryRefused with all that stands in the way; a plan ends by it."""
    if told := list(runbook.refusals()):
        raise RecoveryRefused("as things stand:\n" + "\n".join(f"  {one}" for one in told))
