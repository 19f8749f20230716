"""Restores side by side."""

import shutil
import time
from pathlib import Path

import psycopg

from bench.contest import Contest
from bench.measure import Series, aim, cold, interleaved, series, table
from bench.peers import Peer
from pipeline.postgres.wal import archiving

Found = dict[str, Series]


class Restores:
    """What is measured of restores."""

    def __init__(self, contest: Contest) -> None:
        self._contest = contest

    def promoted(self) -> list[str]:
        """From an empty folder to promoted, and the part of it in which a server runs."""
        self._contest.say("restore to promoted")
        ours, peers = self._contest.ours.name, self._contest.peers
        replays: dict[str, list[float]] = {peer.name: [] for peer in peers}
        stops: list[float] = []
        phases: list[dict[str, float]] = []

        def once(peer: Peer) -> float:
            into = self._contest.bench.folder / "restored"
            shutil.rmtree(into, ignore_errors=True)
            cold(peer.repository)
            begun = time.monotonic()
            if peer is self._contest.ours:
                marks = self._contest.ours.recover(into)
                fetched, ended = marks["restore"], marks["promoted"]
                stops.append(marks["replay"] - begun)
                phases.append({step: at - begun for step, at in marks.items()})
            else:
                fetched, ended = self._peer(peer, into)
            replays[peer.name].append(ended - fetched)
            self._complete(into)
            return ended - begun

        contestants = {peer.name: (lambda peer=peer: once(peer)) for peer in peers}
        found = interleaved(contestants, self._contest.rounds, self._contest.say)
        replayed = series(replays)
        self._contest.record("restore", found)
        self._contest.record("replay", replayed)
        self._contest.facts["this suite: seconds until each step was done"] = phases
        return self._judged(
            found, series({f"{ours}, and its private server stopped": stops}), replayed
        )

    def _judged(self, found: Found, stopped: Found, replayed: Found) -> list[str]:
        """Beside the best of the others, whichever that is today."""
        ours = self._contest.ours.name
        best = min((s for s in found.values() if s.name != ours), key=lambda each: each.median)
        told = aim(
            f"restore to promoted, as a ratio to {best.name}, the best of the others,",
            0.8,
            found[ours].over(best),
        )
        title = "empty folder to promoted at the end of the archive"
        return [
            table(title, found | stopped, best.name, f"{self._notes()}\n\n{told}"),
            table("of that: start of the server to promoted", replayed, best.name),
        ]

    def _notes(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in self._contest.segments.items())
        return (
            f"Segments of WAL from the start of the backup on: {counts}. All are run as commands, "
            "start included, and end when the server has left recovery. pgBackRest: two "
            "processes, asynchronous archive-get. Barman: two processes, without get-wal, its "
            "fastest way: it puts all WAL into pg_wal at once, so that fetching is a part of the "
            "restore, and not of replay. The time of this suite has in it what the others do not "
            "do: reading all WAL to prove where it will end, comparing every file, asking the "
            "server for the end."
        )

    def _peer(self, peer: Peer, into: Path) -> tuple[float, float]:
        """Restore and start; answer when all was fetched, and when the server was promoted."""
        peer.restore(into)
        fetched = time.monotonic()
        with self._contest.bench.restored(into) as conninfo:
            self._contest.bench.promoted(conninfo)
            return fetched, time.monotonic()

    def _complete(self, data: Path) -> None:
        """Look whether the rows are all there: a contestant that lost some was not fast."""
        with self._contest.bench.restored(data) as conninfo:
            self._contest.bench.promoted(conninfo)
            with psycopg.connect(**conninfo) as connection:
                row = connection.execute("select count(*) from pgbench_history").fetchone()
        if row != (self._contest.rows,):
            raise RuntimeError(f"{data}: {row} rows, expected {self._contest.rows}")

    def replays(self) -> str:
        """One base backup and one archive; only the command that fetches a segment differs."""
        self._contest.say("replay by restore_command")
        bench, wal = self._contest.bench, self._contest.ours.repository / "wal"
        get = archiving.get_command(bench.config, wal)
        ours = f"{self._contest.ours.name}'s get"

        def once(command: str, **more: str) -> float:
            into = bench.folder / "replayed"
            shutil.rmtree(into, ignore_errors=True)
            self._contest.pgbackrest.restore(into)
            cold(wal)
            begun = time.monotonic()
            with bench.restored(into, {"restore_command": command, **more}) as conninfo:
                bench.promoted(conninfo)
                ended = time.monotonic()
            self._complete(into)
            return ended - begun

        contestants = {
            "cp": lambda: once(f"cp {wal}/%f %p"),
            ours: lambda: once(get),
            f"{ours}, fsync=off": lambda: once(get, fsync="off"),
        }
        found = interleaved(contestants, self._contest.rounds, self._contest.say)
        self._contest.record("replay by restore_command", found)
        count = self._contest.segments[self._contest.pgbackrest.name]
        note = (
            "From the start of the server to promoted, all after pgBackRest's restore. The archive "
            "is cold. fsync=off leaves out the sync of each segment that was fetched, and that of "
            "the data at the end too."
        )
        return table(f"replay of {count} segments by restore_command", found, "cp", note)
