"""This suite, by its command line; a restore runs the steps of `pipeline recover` in order."""

import subprocess
import sys
from datetime import UTC
from pathlib import Path

from bench.cluster import Bench
from fixtures.stacks import toml
from pipeline.config import PipelineConfig
from pipeline.postgres import archiving
from pipeline.postgres.lsn import Lsn, as_record_end
from pipeline.postgres.receiver import ExpectedEnd
from pipeline.postgres.targets import Target
from pipeline.recovery.point_in_time import PointInTimeRecovery, new_recovery


class Ours:
    """The repository of `pipeline`."""

    name = "this suite"

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.repository = bench.path("ours")
        self.toml = bench.folder / "pipeline.toml"

    def archive_lines(self) -> list[str]:
        return [archiving.push_command(self._bench.config).replace("%p", '"$1"')]

    def prepare(self) -> None:
        self.configure(self._bench.config)

    def configure(self, config: PipelineConfig) -> None:
        """Write the file that its commands are told of."""
        password = self.toml.with_name("password")  # every connection here is trusted
        password.touch()
        toml.write(config, self.toml, password_file=password)

    def run(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *words, "--config", str(self.toml)],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def back_up(self) -> None:
        code, told = self.run("backup", "base")
        if code:
            raise RuntimeError(told)

    def expect(self) -> None:
        """Write what the receiver would: where the server has come to."""
        bench = self._bench
        with bench.connect() as connection:
            row = connection.execute(
                """
                select system_identifier::text, timeline_id, pg_current_wal_insert_lsn()::text,
                       now(), pg_size_bytes(current_setting('wal_segment_size'))
                  from pg_control_system(), pg_control_checkpoint()
                """
            ).fetchone()
        assert row is not None  # noqa: S101 - functions without arguments give one row
        end = as_record_end(Lsn.parse(row[2]), row[4])
        ExpectedEnd(row[0], row[1], end, row[3].astimezone(UTC)).write(self.repository)

    def verify(self) -> tuple[int, str]:
        return self.run("verify")

    def restore(self, into: Path) -> None:
        """Up to promoted; a refusal on the way is an exception."""
        steps = self.steps(into)
        steps.make_plan()
        steps.restore()
        steps.replay()

    def steps(self, into: Path) -> PointInTimeRecovery:
        """A recovery into this folder, whose steps the caller runs."""
        config: PipelineConfig = self._bench.config
        postgres = config.postgres.model_copy(
            update={"data": into, "port": self._bench.ports.take()}
        )
        aside = config.model_copy(update={"postgres": postgres})
        journal = new_recovery(aside)
        journal.write("bench", "started")  # makes its folder
        return PointInTimeRecovery(aside, Target.parse("latest"), journal, "")
