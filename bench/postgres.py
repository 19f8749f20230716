"""PostgreSQL side by side: backup, hashing, verification, restore and replay, archive commands."""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from bench.cluster import Bench
from bench.measure import Series, cold, interleaved, table, timed
from bench.peers import Peer
from bench.peers.barman import Barman
from bench.peers.ours import Ours
from bench.peers.pgbackrest import PgBackRest
from pipeline.postgres import archiving, base_backup
from pipeline.repository import Repository
from pipeline.store import FolderStore, StoredObject
from pipeline.verification.verify import verify

Say = Callable[[str], None]


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


class PostgresBench:
    """The measures, in the order in which each leaves what the next one needs."""

    def __init__(self, bench: Bench, rounds: int, say: Say) -> None:
        self.bench, self.rounds, self.say = bench, rounds, say
        self.ours, self.pgbackrest, self.barman = Ours(bench), PgBackRest(bench), Barman(bench)
        self.peers: list[Peer] = [self.ours, self.pgbackrest, self.barman]
        self.facts: dict[str, object] = {}

    def run(self, scale: int, segments: int) -> list[str]:
        """Measure everything; answer the tables."""
        bench = self.bench
        bench.create([line for peer in self.peers for line in peer.archive_lines()])
        self.pgbackrest.prepare()
        self._load(scale)
        for peer in (self.ours, self.barman):
            peer.prepare()
        bench.archive_all()
        tables = [self._backups(), self._hashing()]
        self._write(segments)
        return [*tables, self._verification(), *self._restores(), self._commands()]

    def _load(self, scale: int) -> None:
        bench = self.bench
        self.say(f"loading pgbench at scale {scale}, a table with TOAST, and 300 small ones")
        where = ("-h", str(bench.folder), "-p", str(bench.config.postgres.port), "-U", "postgres")
        pgbench = bench.programs.postgres / "pgbench"
        bench.run(pgbench, "-i", "-I", "dtGp", "-q", "-s", str(scale), *where, "postgres")
        bench.sql(
            """
            create table documents as
              select n as id, (select string_agg(md5((n * 1000 + i)::text), '')
                                 from generate_series(1, 150) i) as body
                from generate_series(1, 15000) n
            """,
            """
            do $$ begin for n in 1..300 loop
              execute format('create table small_%s as select g as id, md5(g::text) as note
                                from generate_series(1, 200) g', n);
            end loop; end $$
            """,
            "checkpoint",
        )
        size = bench.sql("select sum(pg_database_size(oid))::bigint from pg_database")
        self.facts["database_bytes"] = size
        self.say(f"{size / 1e6:,.0f} MB of databases")

    def _write(self, segments: int) -> None:
        """Fill so many segments by inserts and scattered updates, and have them archived."""
        self.say(f"writing {segments} segments of WAL")
        bench = self.bench
        begun = bench.sql("select pg_current_wal_lsn()::text")
        written = 0
        while written < segments << 24:
            bench.sql(
                """
                update pgbench_accounts set abalance = abalance + 1
                 where aid in (select (random() * 300000)::int from generate_series(1, 4000))
                """,
                """
                insert into pgbench_history
                  select 1, 1, g, 1, now(), left(md5(g::text), 20) from generate_series(1, 20000) g
                """,
            )
            written = int(bench.sql(f"select pg_current_wal_lsn() - '{begun}'::pg_lsn"))
        self.ours.expect()
        bench.archive_all()
        self.barman.take_wal()
        self.facts["rows"] = bench.sql("select count(*) from pgbench_history")

    def _backups(self) -> str:
        self.say("base backups")
        found = interleaved(
            {
                "pg_basebackup plain": lambda: self._core("--format=plain", "--wal-method=fetch"),
                "pg_basebackup tar, server zstd:1": lambda: self._core(
                    *("--format=tar", "--wal-method=fetch", "--compress=server-zstd:1")
                ),
                self.ours.name: lambda: self._taken(self.ours),
                self.pgbackrest.name: lambda: self._taken(self.pgbackrest),
                self.barman.name: lambda: self._taken(self.barman),
            },
            self.rounds,
            self.say,
        )
        self._keep("backup", found)
        note = (
            "All of them SHA-256 or SHA-1 for each file, fsync, fast checkpoint. This suite: one "
            "stream, zstd level 1; pgBackRest: two processes, zstd level 1; Barman and plain: not "
            "compressed. The time of this suite has the start of Python in it."
        )
        return table("base backup", found, "pg_basebackup plain", note)

    def _core(self, *options: str) -> float:
        bench, into = self.bench, self.bench.folder / "core"
        shutil.rmtree(into, ignore_errors=True)
        cold(bench.data)
        words = ("--checkpoint=fast", "--manifest-checksums=SHA256", f"--pgdata={into}", *options)
        where = (f"--host={bench.folder}", f"--port={bench.config.postgres.port}", "-Upostgres")
        program = bench.programs.postgres / "pg_basebackup"
        return timed(lambda: bench.run(program, *words, *where))

    def _taken(self, peer: Peer) -> float:
        cold(self.bench.data)
        seconds = timed(peer.back_up)
        if peer is self.ours:
            for label in Repository(FolderStore(peer.repository)).labels()[:-1]:
                shutil.rmtree(peer.repository / "sets" / "base" / label)
        elif peer is self.barman:
            folders = sorted((peer.repository / "main/base").iterdir())
            for folder in folders[:-1]:
                self.bench.run(*self.barman.words("delete", folder.name), check=False)
        return seconds

    def _hashing(self) -> str:
        """The same backup in this process, its object hashed on the way and not."""
        self.say("hashing in the stream")
        where = self.bench.path("hashing")

        def taken(store: FolderStore) -> float:
            shutil.rmtree(where / "sets", ignore_errors=True)
            cold(self.bench.data)
            return timed(lambda: base_backup.take(self.bench.config, Repository(store)))

        found = interleaved(
            {
                "not hashed": lambda: taken(Unhashed(where)),
                "hashed": lambda: taken(FolderStore(where)),
            },
            self.rounds,
            self.say,
        )
        shutil.rmtree(where)
        self._keep("hashing", found)
        return table("this suite's base backup", found, "not hashed")

    def _verification(self) -> str:
        """First, second, and the next night of ours; the others twice: they keep nothing."""
        self.say("verification of repositories that nobody changed")
        root, begun = self.ours.repository, datetime.now(UTC)
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
            return timed(self.ours.verify)

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
            "pgBackRest verify, first": peer(self.pgbackrest),
            "pgBackRest verify, second": peer(self.pgbackrest),
            "Barman verify-backup and check-backup": peer(self.barman),
        }
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(self.rounds):  # in this order: a second one needs its first
            for name, action in contestants.items():
                taken[name].append(action())
            self.say(
                f"  round {number + 1}: " + ", ".join(f"{s[-1]:.2f} s" for s in taken.values())
            )
        found = {name: Series(name, tuple(seconds)) for name, seconds in taken.items()}
        self._keep("verification", found)
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

    def _restores(self) -> list[str]:
        self.say("restore to promoted")
        replays: dict[str, list[float]] = {peer.name: [] for peer in self.peers}
        phases: list[tuple[float, float, float]] = []

        def restore(peer: Peer) -> float:
            into = self.bench.folder / "restored"
            shutil.rmtree(into, ignore_errors=True)
            cold(peer.repository)
            begun = time.monotonic()
            if peer is self.ours:
                steps = self.ours.steps(into)
                planned = timed(steps.make_plan)
                unpacked = timed(steps.restore)
                fetched = time.monotonic()
                steps.replay()
                ended = time.monotonic()
                phases.append((planned, unpacked, ended - fetched))
            else:
                peer.restore(into)
                fetched = time.monotonic()
                with self.bench.restored(into) as conninfo:
                    self.bench.promoted(conninfo)
                    ended = time.monotonic()
            replays[peer.name].append(ended - fetched)
            self._complete(into)
            return ended - begun

        found = interleaved(
            {peer.name: (lambda peer=peer: restore(peer)) for peer in self.peers},  # type: ignore[misc]
            self.rounds,
            self.say,
        )
        replayed = {name: Series(name, tuple(seconds)) for name, seconds in replays.items()}
        self._keep("restore", found)
        self._keep("replay", replayed)
        self.facts["this suite: plan, unpack, replay"] = phases
        note = (
            "pgBackRest: two processes, asynchronous archive-get. Barman: without get-wal, its "
            "fastest way. The time of this suite has in it what the others do not do: reading all "
            "WAL to prove where it will end, comparing every file, asking the server for the end."
        )
        reference = self.pgbackrest.name
        return [
            table("empty folder to promoted at the end of the archive", found, reference, note),
            table("of that: start of the server to promoted", replayed, reference),
        ]

    def _complete(self, data: Path) -> None:
        """Look whether the rows are all there: a contestant that lost some was not fast."""
        with self.bench.restored(data) as conninfo:
            self.bench.promoted(conninfo)
            with psycopg.connect(**conninfo) as connection:
                row = connection.execute("select count(*) from pgbench_history").fetchone()
        if row != (self.facts["rows"],):
            raise RuntimeError(f"{data}: {row} rows, expected {self.facts['rows']}")

    def _commands(self) -> str:
        """One segment, many times, each under a name of its own: nearly all of it is the start."""
        self.say("archive and restore commands")
        bench, number = self.bench, 0
        segment = max((self.ours.repository / "wal").glob("?" * 24))
        folder = bench.path("commands")

        def pushed(lines: list[str]) -> float:
            nonlocal number
            number += 1
            path = folder / f"00000001000000FF000000{number:02X}"
            shutil.copyfile(segment, path)
            bench.tools.own(path)
            script = "set -e\n" + "\n".join(lines)
            seconds = timed(lambda: bench.run("/bin/sh", "-c", script, "push", path))
            path.unlink()
            return seconds

        into = folder / "got"
        got = {
            "cp": ["cp", str(segment), str(into)],
            self.ours.name: self._our_get(segment.name, into),
            self.pgbackrest.name: [*self.pgbackrest.words("archive-get"), segment.name, str(into)],
            self.barman.name: [*self.barman.words("get-wal"), "-o", str(folder), segment.name],
        }
        rounds = max(10, self.rounds)
        contestants: dict[str, Callable[[], float]] = {
            "cp, not synced": lambda: pushed([f'cp "$1" {folder}/cp'])
        }
        for peer in self.peers:
            contestants[f"push: {peer.name}"] = lambda peer=peer: pushed(peer.archive_lines())  # type: ignore[misc]
        for name, words in got.items():
            contestants[f"get: {name}"] = lambda words=words: timed(lambda: bench.run(*words))  # type: ignore[misc]
        found = interleaved(contestants, rounds, lambda _: None)
        self._keep("commands", found)
        note = "Barman's push is the copy into its incoming folder, which does not sync."
        return table("one segment of 16 MB", found, "cp, not synced", note)

    def _our_get(self, name: str, into: Path) -> list[str]:
        view = self.ours.repository / "wal"
        command = archiving.get_command(self.bench.config, view)
        return ["/bin/sh", "-c", command.replace("%f", name).replace("%p", str(into))]

    def _keep(self, name: str, found: dict[str, Series]) -> None:
        self.facts[name] = {each.name: each.seconds for each in found.values()}


def machine() -> str:
    """What the figures depend on, without a name."""
    return f"{len(os.sched_getaffinity(0))} cores, one disk"
