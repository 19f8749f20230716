"""The recovery of a server that no connector reads, which may be cut after any step.

The steps that stop connectors and bring CDC back need Kafka Connect and are proven by the drills;
here they are replaced, and only they: all that touches PostgreSQL is the real thing.
"""

from collections.abc import Sequence

from pipeline.errors import RestoreError
from pipeline.postgres.replay.targets import Target
from pipeline.repository.journal import Journal
from pipeline.runbooks.live import answering
from pipeline.runbooks.point_in_time import PointInTimeRecovery
from pipeline.runbooks.runbook import Facts, Precondition
from tests.recovery.history import Source
from tests.recovery.interrupted import Power


class WithoutConnect(PointInTimeRecovery):
    """It dies after the step `cut_after`."""

    cut_after = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        told = self.observe

        def die(step: str, facts: Facts) -> None:
            told(step, facts)
            if step == self.cut_after:
                raise Power

        self.observe = die

    def preconditions(self) -> Sequence[Precondition]:
        return [one for one in super().preconditions() if "--without-cdc" not in one.waiver]

    def fence(self) -> Facts:
        self.stop_servers()
        return {}

    def reconnect(self) -> Facts:
        with answering(self.config.postgres) as connection:
            return {"user": connection.info.user}

    def verify(self) -> Facts:
        if problems := self.gate():
            raise RestoreError("; ".join(problems))
        return {}


def recovery(source: Source, journal: Journal, target: str) -> WithoutConnect:
    """Of the server that the backup `one` is of, which is what an operator would type."""
    identity = source.backups["one"].manifest.facts["system_identifier"]
    return WithoutConnect(source.config, Target.parse(target), journal, identity)
