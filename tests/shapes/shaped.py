"""A running server of a shape, its configuration as a file, and the commands on both."""

import os
import pwd
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from checks.bench import Bench
from checks.check import Check, Outcome
from checks.proof import told
from checks.rules import CATALOGUE
from fixtures import cache
from fixtures.scratch import Material
from fixtures.stacks.artifacts import installed
from fixtures.stacks.artifacts_postgres import major_of
from fixtures.stacks.layout import lend_wal_command, lent_wal_command
from fixtures.stacks.ports import Ports
from fixtures.stacks.runs import Run
from pipeline.config import PipelineConfig, PostgresConfig, RepositoryConfig, ScratchConfig
from pipeline.errors import ObjectMissing
from pipeline.postgres.server.control import system_identifier
from pipeline.postgres.server.server import LocalServer, private_socket
from pipeline.postgres.server.session import connect, environment
from pipeline.postgres.server.tools import Tools, owner
from pipeline.postgres.wal import archiving
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.wait import wait_until
from tests.recovery.history import SOON
from tests.shapes.shapes import Shape

ROOT = Path(__file__).parents[2]
_SETTINGS = {
    "autovacuum": "off",
    "dynamic_shared_memory_type": "mmap",  # in /dev/shm segments outlive a kill
    "fsync": "off",  # servers are killed here, machines are not
    "max_replication_slots": "20",
    "shared_buffers": "32MB",
}
_MAIN = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")
_IN_DUMPS_ONLY = re.compile(r"(?m)^\\(un)?restrict .*$")


@dataclass(frozen=True)
class Shaped:
    """One server; `folder` is all that it has on this machine, but for its socket."""

    shape: Shape
    folder: Path
    config: PipelineConfig

    @property
    def tools(self) -> Tools:
        return Tools.of(self.config.postgres)

    @property
    def server(self) -> LocalServer:
        data = self.config.postgres.data
        assert data is not None
        return LocalServer(data.resolve(), self.tools, self.folder / "postgres.log")

    @property
    def major(self) -> int:
        assert self.config.postgres.bin is not None
        return major_of(self.config.postgres.bin.parent)

    @property
    def toml(self) -> Path:
        return self.folder / "pipeline.toml"

    def pipeline(self, *arguments: str) -> str:
        """Run a command as a person would, and return what it said; it must end well."""
        command = self._started(*arguments)
        said, errors = command.communicate()
        assert (command.returncode, errors) == (0, ""), f"{arguments}: {said}{errors}"
        return said

    @contextmanager
    def receiver(self) -> Iterator[None]:
        """Stream the WAL meanwhile; at the end the repository has all that was written."""
        command = self._started("wal", "receive")
        try:
            yield
            end = Lsn.parse(self.run("select pg_current_wal_flush_lsn()::text"))

            def received() -> str | None:
                try:
                    at = ExpectedEnd.read(self.config.repository.path).lsn
                except ObjectMissing as missing:
                    return str(missing)
                return None if at >= end else f"received to {at}"

            wait_until(f"receiving of WAL to {end}", received, within=SOON)
        finally:
            command.terminate()
            command.communicate()

    def _started(self, *arguments: str) -> "subprocess.Popen[str]":
        kept = {name: told for name, told in os.environ.items() if not name.startswith("PIPELINE_")}
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments, f"--config={self.toml}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=kept | {"PYTHONPATH": str(ROOT)},
        )

    def run(self, *statements: str, dbname: str | None = None) -> Any:  # noqa: ANN401 - the last answer
        postgres = self.config.postgres
        with connect(postgres, dbname=dbname or postgres.dbname, autocommit=True) as connection:
            for statement in statements:
                answer = connection.execute(statement.encode())
            row = answer.fetchone() if answer.description else None
        return row[0] if row and len(row) == 1 else row

    def identity(self) -> str:
        return system_identifier(self.server.data, self.tools)

    def archive(self) -> None:
        """Hand over all WAL that was written."""
        self.run("select pg_logical_emit_message(false, 'pipeline', 'switch')")
        name = self.run("select pg_walfile_name(pg_switch_wal())")
        archived = self.config.repository.path / "wal" / str(name)
        wait_until(
            f"archived {name}", lambda: None if archived.exists() else "not yet", within=SOON
        )

    def everything(self) -> dict[str, str]:
        """What each database holds."""
        names = self.run("select array_agg(datname order by 1) from pg_database where datallowconn")
        return {name: self.dump(name) for name in names}

    def dump(self, dbname: str | None = None) -> str:
        """Everything that pg_dump has to say of a database, but for rows that no WAL has."""
        postgres = self.config.postgres
        told = self.tools.run(
            "pg_dump",
            *(f"--host={postgres.host}", f"--port={postgres.port}", f"--username={postgres.user}"),
            f"--encoding={self.run('show server_encoding', dbname=dbname)}",
            "--no-unlogged-table-data",
            dbname or postgres.dbname,
            env=environment(postgres),
        )
        return _IN_DUMPS_ONLY.sub("", told)

    def alarms(self, notes: Path) -> dict[str, str]:
        """What the checks of a database and its backups say, of those that are not content."""
        with Bench(_no_material, config=self.config, notes=notes, seed=0) as bench:
            seen = {check.id: bench.examine(check) for check in CATALOGUE if _of_database(check)}
        return {name: told(one) for name, one in seen.items() if one.outcome is not Outcome.PASS}


@contextmanager
def launched(shape: Shape) -> Iterator[Shaped]:
    """Make the server and start it; nothing is left of it at the end."""
    run, ports = Run.begin(cache.folder() / "runs"), Ports()
    try:
        user = owner(None).pw_name if os.geteuid() == 0 else None
        with private_socket(Tools(run_as=user)) as socket:
            made = Shaped(shape, run.folder, _configured(shape, run.folder, ports, socket, user))
            _initialised(made, socket)
            made.server.start(_started_by(made))
            _filled(made)
            yield made
    finally:
        run.end()
        ports.close()


def _configured(
    shape: Shape, folder: Path, ports: Ports, socket: Path, user: str | None
) -> PipelineConfig:
    """Write pipeline.toml as an operator would; the password is in a file, where there is one."""
    config = PipelineConfig.model_construct(
        postgres=PostgresConfig(
            host=str(socket) if shape.arranged else "127.0.0.1",
            password_file=None if shape.arranged else _password(folder),
            port=ports.take(),
            bin=shape.programs or installed().postgres / "bin",
            data=folder / ("main" if shape.arranged else "data"),
            run_as=user,
        ),
        repository=RepositoryConfig(
            path=folder / "repository", wal_command=lent_wal_command(folder, user)
        ),
        scratch=ScratchConfig(path=folder / "scratch"),
    )
    lend_wal_command(folder)
    for name in ("repository", "scratch"):
        (folder / name).mkdir(mode=0o750)
        Tools(run_as=user).own(folder / name)
    given = config.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    (folder / "pipeline.toml").write_text(tomli_w.dumps(given))
    return config


def _no_material() -> Material:
    raise AssertionError("a check only examines")


def _of_database(check: Check[Any]) -> bool:
    return check.id.partition(".")[0] in {"backup", "base", "logical", "postgres", "restore", "wal"}


def _password(folder: Path) -> Path:
    file = folder / "password"
    file.write_text(secrets.token_urlsafe(24))
    file.chmod(0o644)  # initdb reads it as the server's owner
    return file


def _filled(made: Shaped) -> None:
    for name in made.shape.tablespaces:
        place = made.folder / "volume" / name
        place.mkdir()
        made.tools.own(place)
        made.run(f"create tablespace \"{name}\" location '{place}'")
    for name, schema in made.shape.databases.items():
        made.run(f"create database \"{name}\" encoding 'SQL_ASCII' locale 'C' template template0")
        made.run(f"select 1; {schema}", dbname=name)
    made.run(made.shape.schema)


def _initialised(made: Shaped, socket: Path) -> None:
    postgres, data = made.config.postgres, made.folder / "volume" / "data"
    data.parent.mkdir()
    made.tools.own(data.parent)
    assert postgres.data is not None
    postgres.data.symlink_to(data)  # its volume is mounted elsewhere
    account = [f"--username={postgres.user}", "--no-sync"]
    if postgres.password_file is not None:
        account += ["--auth=scram-sha-256", f"--pwfile={postgres.password_file}"]
    if made.shape.checksums:
        account += ["--data-checksums"]
    elif made.major >= 18:  # before, they are off unless asked for
        account += ["--no-data-checksums"]
    made.tools.run("initdb", *account, *made.shape.initdb, f"--pgdata={data}")
    settings = {
        **archiving.settings(made.config),
        **_SETTINGS,
        "port": str(postgres.port),
        "unix_socket_directories": str(socket) if made.shape.arranged else "",
        **made.shape.settings,
    }
    with (data / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    if made.shape.arranged:
        _arrange(made, data)


def _arrange(made: Shaped, data: Path) -> None:
    """Move the configuration out, as Debian lays it, and let in by a socket whom the map names."""
    etc = _etc(made)
    (etc / "conf.d").mkdir(parents=True)
    for name in _MAIN:
        (data / name).rename(etc / name)
    with (etc / "postgresql.conf").open("a") as conf:
        conf.write(f"data_directory = '{made.config.postgres.data}'\n")
        conf.write(f"hba_file = '{etc}/pg_hba.conf'\nident_file = '{etc}/pg_ident.conf'\n")
        conf.write(f"external_pid_file = '{made.folder}/volume/main.pid'\n")
        conf.write("include_dir = 'conf.d'\n")
    (etc / "conf.d" / "memory.conf").write_text("work_mem = '5MB'\n")
    (etc / "pg_hba.conf").write_text(
        "local all,replication postgres peer map=admins\nlocal all all peer\n"
        "host all all 127.0.0.1/32 scram-sha-256\n"
    )
    ourselves = {pwd.getpwuid(os.geteuid()).pw_name, made.config.postgres.run_as} - {None}
    (etc / "pg_ident.conf").write_text("".join(f"admins {one} postgres\n" for one in ourselves))
    made.tools.own(made.folder / "etc")


def _etc(made: Shaped) -> Path:
    return made.folder / "etc" / "postgresql" / "main"


def _started_by(made: Shaped) -> dict[str, str]:
    return {"config_file": f"{_etc(made)}/postgresql.conf"} if made.shape.arranged else {}
