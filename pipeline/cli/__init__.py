"""`pipeline`: back up, look, and recover. Every command takes the same pipeline.toml."""

import logging
import sys

from pipeline.cli.lazy import Home, group
from pipeline.errors import LossNotAccepted, PipelineError, RecoveryRefused

FAILED, INTERLOCK = 1, 10

_LOOK = "pipeline.cli.look"
app = group(
    __doc__,
    {
        "backup": Home(
            "pipeline.cli.backup", "backup", "Take a backup now; what is committed is whole."
        ),
        "wal": Home("pipeline.cli.wal", "wal", "Hand over WAL, and bring it back."),
        "list": Home(_LOOK, "list_sets", "List the backup sets, oldest first."),
        "reach": Home(
            _LOOK,
            "show_reach",
            "Say which moments each base backup leads to, and what is missing; restores nothing.",
        ),
        "find": Home(
            _LOOK,
            "find",
            "List the transactions that dropped, truncated or changed much of a table.",
        ),
        "retain": Home(
            _LOOK,
            "retain",
            "Say what the backup plan lets go and why; with --yes, remove it.",
        ),
        "verify": Home(
            "pipeline.cli.verify",
            "verify",
            "Compare every object of the repository with its digest; restores nothing.",
        ),
        "recover": Home(
            "pipeline.cli.recover",
            "recover",
            "Bring the pipeline back into service, step by step, resumable.",
        ),
        "restore": Home(
            "pipeline.cli.restore", "restore", "Bring data back; each restore ends with proof."
        ),
    },
)


def _of_postgres(error: Exception) -> bool:
    """Whether the driver raised it: then it was imported."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(error, psycopg.Error)


def main() -> None:
    """Run; an error of ours is one message and an exit code, never a traceback."""
    # a rollback that fails after the server has gone is no news: the error that follows tells it
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    try:
        app()
    except (RecoveryRefused, LossNotAccepted) as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        sys.exit(INTERLOCK)
    except Exception as error:
        if not isinstance(error, PipelineError) and not _of_postgres(error):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(FAILED)
