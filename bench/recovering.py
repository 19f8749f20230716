"""This suite's restore in a process of its own, as an operator starts it: up to promoted.

`python -m bench.recovering pipeline.toml folder port` runs the steps of `pipeline recover` in
their order, and prints last when each was done, by the clock that all processes share.
"""

import json
import sys
import time
from pathlib import Path

from pipeline import config as configuration
from pipeline.postgres.replay.targets import Target
from pipeline.runbooks.point_in_time import PointInTimeRecovery, new_recovery
from pipeline.runbooks.runbook import Facts


def main(toml: Path, into: Path, port: int) -> None:
    """Recover into the folder; a refusal on the way is an exception."""
    config = configuration.load(toml)
    postgres = config.postgres.model_copy(update={"data": into, "port": port})
    aside = config.model_copy(update={"postgres": postgres})
    journal = new_recovery(aside)
    journal.write("bench", "started")  # makes its folder
    marks: dict[str, float] = {}

    def mark(step: str, _facts: Facts) -> None:
        marks[step] = time.monotonic()

    steps = PointInTimeRecovery(aside, Target.parse("latest"), journal, "", observe=mark)
    mark("plan", steps.make_plan())
    mark("restore", steps.restore())
    mark("replay", steps.replay())
    sys.stdout.write(f"{json.dumps(marks)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
