"""Barman by its `postgres` method: pg_basebackup into its catalogue, WAL handed over by a copy."""

from pathlib import Path

from bench.cluster import Bench


class Barman:
    """One server in a Barman home on the same disk."""

    name = "Barman"

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.repository = bench.path("barman")
        self._conf = bench.folder / "barman.conf"
        postgres = bench.config.postgres
        conninfo = f"host={bench.folder} port={postgres.port} user={postgres.user} dbname=postgres"
        self._conf.write_text(
            "\n".join(
                [
                    "[barman]",
                    f"barman_home={self.repository}",
                    f"barman_user={bench.account}",
                    f"log_file={self.repository}/barman.log",
                    "log_level=WARNING",
                    "[main]",
                    "description=main",
                    f"conninfo={conninfo}",
                    f"streaming_conninfo={conninfo}",
                    "backup_method=postgres",
                    "archiver=on",
                    "streaming_archiver=off",
                    "parallel_jobs=2",
                    f"path_prefix={bench.programs.postgres}",
                ]
            )
            + "\n"
        )
        bench.path("barman/main/incoming")

    def words(self, command: str, *options: str | Path) -> list[str]:
        program = str(self._bench.programs.barman / "barman")
        return [program, "-c", str(self._conf), command, "main", *map(str, options)]

    def archive_lines(self) -> list[str]:
        incoming = self.repository / "main/incoming"
        return [f'cp "$1" "{incoming}/.$$"', f'mv "{incoming}/.$$" "{incoming}/$(basename "$1")"']

    def prepare(self) -> None:
        self._bench.tools.own(self.repository)
        self._bench.run(*self.words("switch-wal", "--force", "--archive"))

    def take_wal(self) -> None:
        """Move what came in into the catalogue, as its cron job does every minute."""
        self._bench.run(*self.words("archive-wal"))

    def back_up(self) -> None:
        self._bench.run(*self.words("backup", "--immediate-checkpoint"))

    @property
    def folders(self) -> list[Path]:
        """The backups, oldest first."""
        return sorted((self.repository / "main/base").iterdir())

    def expire(self) -> None:
        for folder in self.folders[:-1]:
            self._bench.run(*self.words("delete", folder.name))

    def verify(self) -> tuple[int, str]:
        """Run `verify-backup`, which is pg_verifybackup without WAL, and `check-backup`."""
        first = self._bench.run(*self.words("verify-backup", "latest"), check=False)
        second = self._bench.run(*self.words("check-backup", "latest"), check=False)
        return first.returncode or second.returncode, first.stdout + second.stdout

    def restore(self, into: Path) -> None:
        self._bench.run(*self.words("recover", "latest", into))
