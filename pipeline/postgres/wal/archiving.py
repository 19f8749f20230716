"""How the source server hands over its WAL."""

import shlex
import sys
from pathlib import Path

from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError
from pipeline.postgres.wal import wal_command
from pipeline.postgres.wal.timelines import history_name


def command(config: PipelineConfig) -> str:
    """Shell words by which the server's owner calls `pipeline-wal`."""
    if config.repository.wal_command:
        return config.repository.wal_command
    script = Path(wal_command.__file__).resolve()
    return shlex.join([sys.executable, "-S", "-E", str(script)])


def push_command(config: PipelineConfig) -> str:
    """Return archive_command's value."""
    return f"{command(config)} push {shlex.quote(str(config.repository.path))} %p"


def get_command(config: PipelineConfig, view: Path) -> str:
    """Return restore_command's value for one recovery's view of the archive.

    A Python whose script is missing, or is no Python, ends with 2 or 1, and the server would
    promote: so 1 passes for "there is no such file" only where the shell sees no such file either.
    """
    folder = shlex.quote(str(view))
    nothing = f"test ! -e {folder}/%f && test ! -L {folder}/%f"  # a dangling link is something
    absent = f"test $? -eq 1 && test -d {folder} && {nothing} && exit 1"
    get = f"{command(config)} get {folder} %f %p"
    return f"{get} || {{ {absent}; exit {wal_command.FAILED}; }}"


def settings(config: PipelineConfig) -> dict[str, str]:
    """Return what a source server needs in postgresql.conf, so that its WAL can be archived."""
    return {
        "wal_level": "logical",
        "archive_mode": "on",
        "archive_command": push_command(config),
        "archive_timeout": "60s",  # an idle server still hands over within a minute
    }


def hand_over_history(config: PipelineConfig, data: Path, timeline: int) -> None:
    """Archive the history of a timeline that began while archiving was off.

    The server marks the file for its archiver only when archiving is on at promotion; without it
    nobody can later tell where the timeline branched off, and the next recovery could take its
    number again.
    """
    history = data / "pg_wal" / history_name(timeline)
    if timeline > 1 and wal_command.push(config.repository.path, history) != wal_command.DONE:
        raise RestoreError(f"{history} could not be archived in {config.repository.path}")
