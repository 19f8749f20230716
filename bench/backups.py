"""Base backups side by side, what hashing them costs, and looking at them afterwards."""

import os
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from bench.contest import Contest
from bench.measure import Series, cold, interleaved, table, timed
from bench.peers import Peer
from pipeline.postgres import base_backup
from pipeline.repository import Repository
from pipeline.store import FolderStore, StoredObject
from pipeline.verification.verify import verify


class Unhashed(FolderStore):
    """The repository's store without its digest: what the hashing is measured against."""

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            size = sum(stream.write(chunk) for chunk in chunks)
            stream.flush()
            os.fsync(stream.fileno())
        return StoredObject(key, size, "")


class Backups:
    """What is measured of backups."""

    def __init__(self, contest: Contest) -> None:
        self._contest = contest

    def taken(self) -> str:
        self._contest.say("base backups")
        found = interleaved(
            {
                "pg_basebackup plain": lambda: self._core("--format=plain", "--wal-method=fetch"),
                "pg_basebackup tar, server zstd:1": lambda: self._core(
                    *("--format=tar", "--wal-method=fetch", "--compress=server-zstd:1")
                ),
                self._contest.ours.name: lambda: self._once(self._contest.ours),
                self._contest.pgbackrest.name: lambda: self._once(self._contest.pgbackrest),
                self._contest.barman.name: lambda: self._once(self._contest.barman),
            },
            self._contest.rounds,
            self._contest.say,
        )
        self._contest.keep("backup", found)
        note = (
            "All of them SHA-256 or SHA-1 for each file, fsync, fast checkpoint. This suite: one "
            "stream, zstd level 1; pgBackRest: two processes, zstd level 1; Barman and plain: not "
            "compressed. The time of this suite has the start of Python in it."
        )
        return table("base backup", found, "pg_basebackup plain", note)

    def _core(self, *options: str) -> float:
        bench, into = self._contest.bench, self._contest.bench.folder / "core"
        shutil.rmtree(into, ignore_errors=True)
        cold(bench.data)
        words = ("--checkpoint=fast", "--manifest-checksums=SHA256", f"--pgdata={into}", *options)
        where = (f"--host={bench.folder}", f"--port={bench.config.postgres.port}", "-Upostgres")
        program = bench.programs.postgres / "pg_basebackup"
        return timed(lambda: bench.run(program, *words, *where))

    def _once(self, peer: Peer) -> float:
        cold(self._contest.bench.data)
        seconds = timed(peer.back_up)
        if peer is self._contest.ours:
            for label in Repository(FolderStore(peer.repository)).labels()[:-1]:
                shutil.rmtree(peer.repository / "sets" / "base" / label)
        elif peer is self._contest.barman:
            folders = sorted((peer.repository / "main/base").iterdir())
            for folder in folders[:-1]:
                self._contest.bench.run(
                    *self._contest.barman.words("delete", folder.name), check=False
                )
        return seconds

    def hashing(self) -> str:
        """The same backup in this process, its object hashed on the way and not."""
        self._contest.say("hashing in the stream")
        where = self._contest.bench.path("hashing")

        def taken(store: FolderStore) -> float:
            shutil.rmtree(where / "sets", ignore_errors=True)
            cold(self._contest.bench.data)
            return timed(lambda: base_backup.take(self._contest.bench.config, Repository(store)))

        found = interleaved(
            {
                "not hashed": lambda: taken(Unhashed(where)),
                "hashed": lambda: taken(FolderStore(where)),
            },
            self._contest.rounds,
            self._contest.say,
        )
        shutil.rmtree(where)
        self._contest.keep("hashing", found)
        return table("this suite's base backup", found, "not hashed")

    def verification(self) -> str:
        """First, second, and the next night of ours; the others twice: they keep nothing."""
        self._contest.say("verification of repositories that nobody changed")
        root, begun = self._contest.ours.repository, datetime.now(UTC)
        record = root / "verified.jsonl"

        def first() -> float:
            record.unlink(missing_ok=True)
            cold(root)
            return timed(lambda: self._sound(verify(root, now=begun).damaged))

        def second() -> float:
            cold(root)
            return timed(lambda: self._sound(verify(root, now=begun).damaged))

        def next_night() -> float:
            cold(root)
            tomorrow = begun + timedelta(days=1)
            return timed(lambda: self._sound(verify(root, now=tomorrow).damaged))

        def command() -> float:
            cold(root)
            return timed(self._contest.ours.verify)

        def peer(each: Peer) -> Callable[[], float]:
            def run() -> float:
                cold(each.repository)
                return timed(each.verify)

            return run

        contestants = {
            "this suite, first": first,
            "this suite, second that night": second,
            "this suite, second, with the start of its command": command,
            "this suite, the next night (its share, 1/7)": next_night,
            "pgBackRest verify, first": peer(self._contest.pgbackrest),
            "pgBackRest verify, second": peer(self._contest.pgbackrest),
            "Barman verify-backup and check-backup": peer(self._contest.barman),
        }
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(self._contest.rounds):  # in this order: a second one needs its first
            for name, action in contestants.items():
                taken[name].append(action())
            self._contest.say(
                f"  round {number + 1}: " + ", ".join(f"{s[-1]:.2f} s" for s in taken.values())
            )
        found = {name: Series(name, tuple(seconds)) for name, seconds in taken.items()}
        self._contest.keep("verification", found)
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        note = (
            f"{size / 1e6:,.0f} MB in this suite's repository; every repository cold. pgBackRest "
            "and Barman read everything again each time. Barman reads no WAL. This suite stores "
            "WAL as it is, pgBackRest compressed."
        )
        return table("verification", found, "this suite, first", note)

    def _sound(self, damaged: object) -> None:
        if damaged:
            raise RuntimeError(f"an intact repository was called damaged: {damaged}")
