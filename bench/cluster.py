"""One source server that archives each segment for every contestant, and servers restored of it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from bench.packages import Programs
from fixtures.stacks.artifacts import shell_python
from fixtures.stacks.ports import Ports
from fixtures.stacks.reaper import kill_inside
from pipeline.config import PipelineConfig, PostgresConfig, RepositoryConfig
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools, owner
from pipeline.postgres.wal import wal_command
from pipeline.repository import marker
from pipeline.wait import wait_until

SOON, LONG = timedelta(seconds=60), timedelta(minutes=10)
SETTINGS = {
    "shared_buffers": "256MB",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: nothing is left of a killed server
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "wal_level": "logical",
    "archive_mode": "on",
    "autovacuum": "off",  # what is measured must not depend on when it came
    "listen_addresses": "127.0.0.1",
    "jit": "off",
}


@dataclass(frozen=True)
class Bench:
    """A folder, its source server, and the programs."""

    folder: Path
    programs: Programs
    config: PipelineConfig
    ports: Ports
    initdb: Sequence[str] = ()

    @property
    def tools(self) -> Tools:
        return Tools.of(self.config.postgres)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def source(self) -> LocalServer:
        return LocalServer(self.data, self.tools, self.folder / "source.log")

    @property
    def account(self) -> str:
        """The account of this system that runs everything."""
        identity = self.config.postgres.run_as
        return identity or Path("~").expanduser().owner()

    @property
    def where(self) -> tuple[str, ...]:
        """The source server, as PostgreSQL's own programs are told of it."""
        postgres = self.config.postgres
        words = {"host": self.folder, "port": postgres.port, "username": postgres.user}
        return tuple(f"--{name}={value}" for name, value in words.items())

    def path(self, name: str) -> Path:
        """A folder of the servers' owner."""
        made = self.folder / name
        made.mkdir(parents=True, exist_ok=True)
        made.chmod(0o700)
        self.tools.own(made)
        return made

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program as the servers' owner; its words on failure are the error."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(word) for word in words],
            env=dict(self.programs.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.folder,
            **self.tools.identity(),
        )
        if check and done.returncode:
            raise RuntimeError(f"{words} ended with {done.returncode}:\n{done.stdout}")
        return done

    def connect(self, **changes: str | int) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.config.postgres.conninfo(**changes), autocommit=True)

    def sql(self, *statements: str) -> Any:  # noqa: ANN401 - whatever the last one answers
        with self.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def create(
        self, archive: Sequence[str], more: Mapping[str, str] = {}, *, checksums: bool = True
    ) -> None:
        """Make the source server; `archive` are the shell lines that take a segment `$1`."""
        account = ("--auth=trust", f"--username={self.config.postgres.user}", "--no-sync")
        pages = ("--data-checksums",) if checksums else ()
        locale = ("--encoding=UTF8", "--locale=C")
        self.tools.run("initdb", *locale, *pages, *account, *self.initdb, f"--pgdata={self.data}")
        script = self.folder / "for-pgbackrest-too.sh"  # it asks for its name
        script.write_text("set -e\n" + "\n".join(archive) + "\n")
        settings = {
            **SETTINGS,
            "port": str(self.config.postgres.port),
            "unix_socket_directories": str(self.folder),
            "archive_command": f"sh {script} %p",
            **more,
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.source.start()

    def archive_all(self) -> str:
        """Switch segments and wait until the last one was taken."""
        self.sql("select pg_logical_emit_message(false, 'bench', 'switch')")
        name = str(self.sql("select pg_walfile_name(pg_switch_wal())"))

        def waiting() -> str | None:
            last = self.sql("select last_archived_wal from pg_stat_archiver") or ""
            return None if last[:24] >= name else f"archived to {last}, expected {name}"

        wait_until(f"archiving of {name}", waiting, within=LONG)
        return name

    @contextmanager
    def restored(self, data: Path, more: Mapping[str, str] = {}) -> Iterator[dict[str, Any]]:
        """Start a restored folder with the settings that all contestants get, and stop it."""
        port = self.ports.take()
        server = LocalServer(data, self.tools, data.with_suffix(".log"))
        server.start(
            {
                "port": str(port),
                "listen_addresses": "",
                "unix_socket_directories": str(self.folder),
                "archive_mode": "off",
                **more,
            }
        )
        try:
            yield self.config.postgres.conninfo(host=str(self.folder), port=port)
        finally:
            server.stop()

    def promoted(self, conninfo: Mapping[str, Any], within: timedelta = LONG) -> None:
        """Wait until a restored server has left recovery and says so."""

        def waiting() -> str | None:
            try:
                with psycopg.connect(**conninfo) as connection:
                    row = connection.execute("select pg_is_in_recovery()").fetchone()
            except psycopg.OperationalError as error:
                return str(error)
            return None if row == (False,) else "in recovery"

        wait_until("promotion", waiting, within=within, every=timedelta(milliseconds=20))


@contextmanager
def bench(
    programs: Programs,
    initdb: Sequence[str] = (),
    *,
    within: str = "/var/tmp",  # noqa: S108 - mkdtemp below it
) -> Iterator[Bench]:
    """Make the folder, and leave neither a process nor a file behind."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=within))
    folder.chmod(0o755)
    ports = Ports()
    run_as = owner(None).pw_name if os.geteuid() == 0 else None
    postgres = PostgresConfig(
        port=ports.take(), bin=programs.postgres, run_as=run_as, data=folder / "data"
    )
    words = f"{shell_python(run_as)} -S -E {Path(wal_command.__file__).resolve()}"
    config = PipelineConfig.model_construct(
        postgres=postgres,
        repository=RepositoryConfig(path=folder / "ours", wal_command=words),
    )
    made = Bench(folder, programs, config, ports, initdb)
    marker.make(str(config.repository.path))
    made.tools.own(folder)
    try:
        yield made
    finally:
        kill_inside(folder)
        ports.close()
        shutil.rmtree(folder, ignore_errors=True)
