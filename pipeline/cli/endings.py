"""How a command ends that cannot go on: one line for the person, the traceback into a file."""

import os
import signal
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import without_logins

_INTERRUPTED = 128 + signal.SIGINT


def one_line(error: BaseException) -> str:
    """What an error of another package says, without its line breaks, and of which kind it is."""
    told = " ".join(str(error).split())
    kind = type(error).__name__
    return without_logins(f"{kind}: {told}" if told else kind)


def keep_traceback(error: BaseException) -> str:
    """Write the traceback where only this user reads it, and say where that is."""
    text = without_logins("".join(traceback.format_exception(error)))
    name = f"error-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
    for folder in (_state(), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(file, "w", encoding="utf-8") as out:  # noqa: PTH123 - it is open already
                out.write(text)
        except OSError:
            continue  # a home that cannot be written to, or a full disk: the next one
        return f"the traceback is in {folder / name}"
    return "no file could be written for the traceback"


def _state() -> Path:
    # https://specifications.freedesktop.org/basedir-spec/latest/
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(os.path.expanduser(base), "pipeline")  # noqa: PTH111 - without a home it stays as it is


def end_in_order_on_sigterm() -> None:
    """Let what is under way clean up behind itself, as after an error."""

    def end(*_signal: object) -> None:
        sys.exit("error: ended by SIGTERM")  # no Exception: nobody takes it for a failure to retry

    signal.signal(signal.SIGTERM, end)


def say(line: str) -> None:
    """Tell what is waited for; a command's own words go to standard output."""
    sys.stderr.write(without_logins(" ".join(line.split())) + "\n")


def tell_interrupt(ended: SystemExit) -> None:
    """Say that it was Ctrl-C, which the framework turns into its exit code without a word."""
    if ended.code == _INTERRUPTED:
        sys.stderr.write("interrupted\n")
