"""This suite, by its command line; a restore runs the steps of `pipeline recover` in order."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.cluster import Bench
from fixtures.stacks import toml
from pipeline.config import PipelineConfig
from pipeline.keeping import retention
from pipeline.postgres.wal import archiving
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.repository.store import FolderStore

NEXT_MONTH = timedelta(days=30)


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
        done = _python("-m", "pipeline", *words, "--config", str(self.toml))
        return done.returncode, done.stdout + done.stderr

    def back_up(self) -> None:
        code, told = self.run("backup", "base")
        if code:
            raise RuntimeError(told)

    def expire(self) -> None:
        """Do what `pipeline retain --yes` will a month from now: it keeps nothing below a day."""
        decision = retention.decide(self._bench.config, datetime.now(UTC) + NEXT_MONTH)
        retention.carry_out(FolderStore(self.repository), decision)

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
        self.recover(into)

    def recover(self, into: Path) -> dict[str, float]:
        """Restore; answer when each step was done, by the clock of `time.monotonic`."""
        port = str(self._bench.ports.take())
        done = _python("-m", "bench.recovering", str(self.toml), str(into), port)
        if done.returncode:
            raise RuntimeError(done.stderr)
        marks: dict[str, float] = json.loads(done.stdout)
        return marks


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
