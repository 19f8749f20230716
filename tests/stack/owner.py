"""A run of its own, for tests that end its owner: prints its folder and waits."""

import signal
import subprocess
import sys

from fixtures.stacks import training
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component

if __name__ == "__main__":
    # a run started in the background has it ignored, and would hand that on to us
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pair = NativeStack.launch(
        artifacts=training.prepared(), components=(Component.POSTGRES, Component.KAFKA)
    )
    with (
        pair,
        subprocess.Popen(["/bin/sleep", "600"], cwd=pair.folder / "scratch") as started_by_a_drill,
    ):
        try:
            print(pair.folder, flush=True)  # noqa: T201 - the test reads it
            sys.stdin.read()
        finally:
            started_by_a_drill.kill()
