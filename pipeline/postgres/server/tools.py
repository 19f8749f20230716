"""PostgreSQL's own programs, run as the user who owns the server."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.config import PostgresConfig
from pipeline.errors import ConfigError, ToolError
from pipeline.repository.store import chunks_of

Output = IO[bytes] | int | None


@dataclass(frozen=True)
class Tools:
    """Programs in `bin`, or PATH. `run_as` applies only when we are root: PostgreSQL refuses it."""

    bin: Path | None = None
    run_as: str | None = None

    @classmethod
    def of(cls, config: PostgresConfig) -> "Tools":
        """Take folder and user from a configuration."""
        return cls(config.bin, config.run_as)

    def path(self, program: str) -> str:
        """Full path of a program; ConfigError when it is not there."""
        found = shutil.which(program, path=str(self.bin) if self.bin else None)
        if found is None:
            raise ConfigError(
                f"{program} is not in {self.bin or 'PATH'}: set postgres.bin to the folder of "
                "PostgreSQL's programs, of the server's major version"
            )
        return found

    def identity(self) -> dict[str, Any]:
        """Keywords of subprocess that drop root for the server's owner; empty when not root."""
        if os.geteuid() != 0:
            return {}
        entry = owner(self.run_as)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def run(
        self,
        program: str,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run to the end and return standard output; ToolError carries both outputs."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self._command(program, arguments),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env=_environment(env),
            cwd=cwd or "/",
            **self.identity(),
        )
        if done.returncode != 0:
            raise ToolError(program, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def popen(
        self,
        program: str,
        *arguments: str | Path,
        stdout: Output = subprocess.PIPE,
        stderr: Output = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start and return; the caller reads, waits and judges the exit code."""
        return subprocess.Popen(
            self._command(program, arguments),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=_environment(env),
            cwd=cwd or "/",
            **self.identity(),
        )

    def stream(
        self,
        program: str,
        *arguments: str | Path,
        messages: IO[bytes],
        env: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """Blocks of a program's output, its words into `messages`.

        Ends with ToolError unless the program ended well: a stream that was cut is no stream.
        """
        with self.popen(program, *arguments, stderr=messages, env=env) as process:
            try:
                yield from chunks_of(process.stdout) if process.stdout else ()
                if code := process.wait():
                    messages.seek(0)
                    raise ToolError(program, code, messages.read().decode(errors="replace"))
            finally:
                process.kill()  # only a consumer that gave up leaves it running

    def _command(self, program: str, arguments: Sequence[str | Path]) -> list[str]:
        return [self.path(program), *map(str, arguments)]

    def own(self, path: Path) -> None:
        """Give a file or a whole folder to the server's owner, when we are root."""
        if os.geteuid() != 0:
            return
        entry = owner(self.run_as)
        os.chown(path, entry.pw_uid, entry.pw_gid)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def owner(run_as: str | None) -> pwd.struct_passwd:
    """Find the account that owns servers: as configured, else `postgres`, else `nobody`."""
    for name in (run_as,) if run_as else ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigError(
        f"postgres.run_as: no account {run_as!r}, and PostgreSQL refuses to run as root"
    )


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    # PG* variables of the caller would redirect a tool to another server; C makes output parsable
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"} | dict(extra or {})


def address(config: PostgresConfig) -> tuple[str, ...]:
    """Options of a program that connects; the password is in its environment."""
    where = f"--host={config.host}", f"--port={config.port}"
    return (*where, f"--username={config.user}", "--no-password")
