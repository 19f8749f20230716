"""Processes that are killed at the nth step of what they do, each step in its turn."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline.postgres.server.tools import Tools


def dying(strike: int) -> Callable[..., Any]:
    """Count what changes names in a file system, and kill the process at one of them."""
    counted = itertools.count(1)

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - passed on
            if next(counted) == strike:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return counting

    return wrap


def ends_by_dying(strike: int, run: Callable[[], object]) -> bool:
    """Run in a child that dies at its nth step; tell whether it did."""
    if (child := os.fork()) == 0:
        wrap = dying(strike)
        for name in ("mkdir", "rename", "rmdir", "symlink_to", "unlink", "write_text"):
            setattr(Path, name, wrap(getattr(Path, name)))
        Tools.run = wrap(Tools.run)  # type: ignore[method-assign]  # in this child only
        try:
            run()
        except BaseException:  # noqa: BLE001 - the parent sees that it did not end well
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def crash_everywhere(
    strikes: Iterable[int],
    into: Path,
    run: Callable[[], object],
    places: Iterable[Path] = (),
) -> int:
    """Kill the restore at each of those steps; only at the last ones may the result be there.

    Then the operator removes all of it, tablespaces included, before the next try.
    """
    for strike in strikes:
        if not ends_by_dying(strike, run):
            return strike
        if into.exists():
            assert (into / "PG_VERSION").exists()
            assert list(into.rglob("INCREMENTAL.*")) == []
            for whole in (into, *places):
                shutil.rmtree(whole)
    return 0
