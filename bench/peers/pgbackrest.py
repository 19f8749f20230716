"""pgBackRest, with the settings of the others: zstd level 1, two processes."""

from pathlib import Path

from bench.cluster import Bench


class PgBackRest:
    """One stanza in a repository on the same disk."""

    name = "pgBackRest"

    def __init__(self, bench: Bench, compression: str = "zst") -> None:
        self._bench = bench
        self.repository = bench.path("pgbackrest")
        work = bench.path("pgbackrest-work")
        common = [
            "[global]",
            f"repo1-path={self.repository}",
            *(f"{name}-path={work}" for name in ("log", "lock", "spool")),
            "log-level-file=off",
            "log-level-console=warn",
            "process-max=2",
            f"compress-type={compression}",
            *(["compress-level=1"] if compression == "zst" else []),
            "start-fast=y",
            "repo1-retention-full=1",
        ]
        stanza = [
            "[main]",
            f"pg1-path={bench.data}",
            f"pg1-port={bench.config.postgres.port}",
            f"pg1-socket-path={bench.folder}",
            f"pg1-user={bench.config.postgres.user}",
        ]
        self._conf, self._async = work / "pgbackrest.conf", work / "async.conf"
        self._conf.write_text("\n".join([*common, *stanza]) + "\n")
        self._async.write_text("\n".join([*common, "archive-async=y", *stanza]) + "\n")
        bench.tools.own(work)

    def words(self, command: str, *options: str, conf: Path | None = None) -> list[str]:
        program = self._bench.programs.pgbackrest
        return [program, f"--config={conf or self._conf}", "--stanza=main", *options, command]

    def archive_lines(self) -> list[str]:
        return [" ".join(self.words("archive-push")) + ' "$1"']

    def prepare(self) -> None:
        self._bench.run(*self.words("stanza-create"))

    def back_up(self) -> None:
        self._bench.run(*self.words("backup", "--type=full", "--no-expire-auto"))

    def expire(self) -> None:
        self._bench.run(*self.words("expire"))

    def verify(self) -> tuple[int, str]:
        """Run `verify`; its exit code is 0 whatever it found, so its words decide too."""
        done = self._bench.run(*self.words("verify", "--output=text", "--verbose"), check=False)
        complains = "status: error" in done.stdout or "ERROR" in done.stdout
        return done.returncode or int(complains), done.stdout

    def check(self) -> tuple[int, str]:
        done = self._bench.run(*self.words("check"), check=False)
        return done.returncode, done.stdout

    def restore(self, into: Path) -> None:
        self._bench.path(into.name)
        options = (f"--pg1-path={into}", "--archive-mode=off")
        self._bench.run(*self.words("restore", *options, conf=self._async))
