"""Base backups side by side, what hashing them costs, and looking at them afterwards."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from bench.contest import Contest
from bench.measure import Series, aim, cold, interleaved, processor_seconds, series, table, timed
from bench.peers import Peer
from pipeline.keeping.verify import Verification, verify
from pipeline.postgres.base import base_backup
from pipeline.repository.durable import Unfinished
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore, StoredObject

PLAIN = "pg_basebackup"
DIGEST = "--manifest-checksums=SHA256"
BASE_NOTE = (
    "All with a fast checkpoint and fsync. Digest of each file: pg_basebackup and Barman "
    "CRC-32C, their default; pgBackRest SHA-1; this suite SHA-256, and once more of the "
    "object that they are in. This suite: one stream, zstd level 1; pgBackRest: two "
    "processes, zstd level 1; Barman and plain: not compressed. pgBackRest and Barman wait "
    "at their end until the WAL of the backup is archived; this suite has it in its "
    "object. Each is run as a command; removing old backups is outside of the time."
)
WITHOUT, HASHED = "not hashed", "hashed"
FIRST, SECOND = "this suite, first", "this suite, second that night"


class Unhashed(FolderStore):
    """The repository's store without its digest: what the hashing is measured against."""

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        with Unfinished(str(self.root), str(self._path(key))) as file:
            size = sum(file.write(chunk) for chunk in chunks)
            file.publish()
        return StoredObject(key, size, "")


class Backups:
    """What is measured of backups."""

    def __init__(self, contest: Contest) -> None:
        self._contest = contest

    def base(self) -> str:
        """Base backups of all; retention follows each, untimed."""
        self._contest.say("base backups")
        contestants = {
            PLAIN: lambda: self._core("--format=plain"),
            f"{PLAIN}, SHA-256": lambda: self._core("--format=plain", DIGEST),
            f"{PLAIN}, SHA-256, tar, server zstd:1": lambda: self._core(
                *("--format=tar", "--wal-method=fetch", "--compress=server-zstd:1", DIGEST)
            ),
        }
        for peer in self._contest.peers:
            contestants[peer.name] = partial(self._peer, peer)
        found = interleaved(contestants, self._contest.rounds, self._contest.say)
        self._contest.record("backup", found)
        ratio = found[self._contest.ours.name].over(found[PLAIN])
        told = aim("this suite's base backup, as a ratio to plain pg_basebackup,", 1.05, ratio)
        return table("base backup", found, PLAIN, f"{BASE_NOTE}\n\n{told}")

    def _core(self, *options: str) -> float:
        bench, into = self._contest.bench, self._contest.bench.folder / "plain"
        shutil.rmtree(into, ignore_errors=True)
        cold(bench.data)
        words = ("--checkpoint=fast", f"--pgdata={into}", *options, *bench.where)
        seconds = timed(lambda: bench.run(bench.programs.postgres / "pg_basebackup", *words))
        shutil.rmtree(into)
        return seconds

    def _peer(self, peer: Peer) -> float:
        cold(self._contest.bench.data)
        seconds = timed(peer.back_up)
        peer.expire()
        return seconds

    def hashing(self) -> str:
        """The same backup in this process, its object hashed on the way and not."""
        self._contest.say("hashing in the stream")
        where = self._contest.bench.path("hashing")
        processor: dict[str, list[float]] = {WITHOUT: [], HASHED: []}

        def once(name: str, store: FolderStore) -> float:
            shutil.rmtree(where / "sets", ignore_errors=True)
            cold(self._contest.bench.data)
            begun = processor_seconds()
            seconds = timed(lambda: base_backup.take(self._contest.bench.config, Repository(store)))
            processor[name].append(processor_seconds() - begun)
            return seconds

        found = interleaved(
            {
                WITHOUT: lambda: once(WITHOUT, Unhashed(where)),
                HASHED: lambda: once(HASHED, FolderStore(where)),
            },
            2 * self._contest.rounds,
            self._contest.say,
        )
        shutil.rmtree(where)
        used = series(processor)
        self._contest.record("hashing", found)
        self._contest.record("hashing, CPU", used)
        cpu = table("CPU of that: this process and pg_basebackup", used, WITHOUT)
        return "\n\n".join(
            [table("this suite's base backup", found, WITHOUT), cpu, _hashing_judged(found, used)]
        )

    def verification(self) -> str:
        """First, second, and the next night of ours; the others twice: they keep nothing.

        Always in this order, because a second one needs its first.
        """
        self._contest.say("verification of repositories that nobody changed")
        contestants = self._own_verifications() | {
            "pgBackRest verify, first": lambda: self._sound(self._contest.pgbackrest),
            "pgBackRest verify, second": lambda: self._sound(self._contest.pgbackrest),
            "Barman verify-backup and check-backup": lambda: self._sound(self._contest.barman),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(self._contest.rounds):
            for name, action in contestants.items():
                seconds[name].append(action())
            told = ", ".join(f"{each[-1]:.2f} s" for each in seconds.values())
            self._contest.say(f"  round {number + 1}: {told}")
        found = series(seconds)
        self._contest.record("verification", found)
        note = (
            f"Repositories: {self._sizes()}; each cold, with one backup and the WAL since. "
            "pgBackRest and Barman read everything again each time. Barman reads no WAL. This "
            "suite stores WAL as it is, pgBackRest compressed. The first of this suite and its "
            "share run in a process that has started already; the row of its command has the "
            "start in it, as the others have theirs."
        )
        ratio = found[SECOND].over(found[FIRST])
        told = aim("the second verification, as a share of the first,", 0.02, ratio)
        return table("verification", found, FIRST, f"{note}\n\n{told}")

    def _own_verifications(self) -> dict[str, Callable[[], float]]:
        root, begun = self._contest.ours.repository, datetime.now(UTC)
        record = root / "verified.jsonl"

        def run(now: datetime) -> float:
            cold(root)
            return timed(lambda: _intact(verify(root, now=now)))

        def first() -> float:
            record.unlink(missing_ok=True)
            return run(begun)

        return {
            FIRST: first,
            SECOND: lambda: run(begun),
            "this suite, second, with the start of its command": lambda: self._sound(
                self._contest.ours
            ),
            "this suite, the next night (its share, 1/7)": lambda: run(begun + timedelta(days=1)),
        }

    def _sound(self, peer: Peer) -> float:
        """Time a verification; one that failed was not fast."""
        cold(peer.repository)
        told: list[tuple[int, str]] = []
        seconds = timed(lambda: told.append(peer.verify()))
        if told[0][0]:
            raise RuntimeError(f"{peer.name} called an intact repository damaged: {told[0][1]}")
        return seconds

    def _sizes(self) -> str:
        def size(peer: Peer) -> int:
            return sum(p.stat().st_size for p in peer.repository.rglob("*") if p.is_file())

        return ", ".join(f"{p.name} {size(p) / 1e6:,.0f} MB" for p in self._contest.peers)


def _hashing_judged(found: Mapping[str, Series], used: Mapping[str, Series]) -> str:
    share = found[HASHED].over(found[WITHOUT]) - 1
    told = aim("hashing, as a share of the backup's time,", 0.05, share)
    more = used[HASHED].median - used[WITHOUT].median
    return (
        f"{told} CPU time depends less on what else the machine does: hashing took {more:.2f} s "
        f"more of it, which is {more / found[WITHOUT].median:.1%} of the time."
    )


def _intact(run: Verification) -> None:
    if run.damaged or run.unreadable:
        raise RuntimeError(
            f"an intact repository was called damaged: {run.damaged or run.unreadable}"
        )
