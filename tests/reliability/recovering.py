"""A process to be killed: the steps of a recovery that touch data, in a folder beside the server.

python -m tests.reliability.recovering CONFIGURATION DATA NAME
"""

import sys
from pathlib import Path

from pipeline import config as configuration
from pipeline.errors import PipelineError
from pipeline.postgres.replay.replay import private_server
from pipeline.postgres.replay.targets import Target
from pipeline.repository.journal import Journal
from pipeline.runbooks.plan import Plan
from pipeline.runbooks.point_in_time import PointInTimeRecovery


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(path: str, data: str, name: str) -> None:
    """Go on after the last step that was done; say the timeline, and what the server holds."""
    loaded = configuration.load(Path(path))
    postgres = loaded.postgres.model_copy(update={"data": Path(data)})
    config = loaded.model_copy(update={"postgres": postgres})
    journal = Journal(config.repository.path / "recoveries" / name)
    recovery = PointInTimeRecovery(config, Target.parse("latest"), journal, "", progress=say)
    done = journal.done() if journal.path.exists() else {}
    if "plan" in done:
        recovery.plan = Plan.of_facts(done["plan"])
    for step in (recovery.make_plan, recovery.restore, recovery.replay):
        step_name = step.__name__.removeprefix("make_")
        if step_name not in done:
            journal.run(step_name, step)
            recovery.tools.own(journal.folder)
    with (
        private_server(recovery.server, user="postgres", port=5432, settings={}) as connect,
        connect() as connection,
    ):
        row = connection.execute("select count(*) from notes").fetchone()
    say(f"{journal.done()['replay']['timeline']} {row[0] if row else None}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PipelineError as refusal:
        sys.exit(f"error: {refusal}")
