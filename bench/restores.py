"""Restores side by side, and the commands that hand WAL over and fetch it."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from bench.contest import Contest
from bench.measure import Series, cold, interleaved, table, timed
from bench.peers import Peer
from pipeline.postgres import archiving


class Restores:
    """What is measured of restores."""

    def __init__(self, contest: Contest) -> None:
        self._contest = contest

    def promoted(self) -> list[str]:
        self._contest.say("restore to promoted")
        replays: dict[str, list[float]] = {peer.name: [] for peer in self._contest.peers}
        phases: list[tuple[float, float, float]] = []

        def restore(peer: Peer) -> float:
            into = self._contest.bench.folder / "restored"
            shutil.rmtree(into, ignore_errors=True)
            cold(peer.repository)
            begun = time.monotonic()
            if peer is self._contest.ours:
                steps = self._contest.ours.steps(into)
                planned = timed(steps.make_plan)
                unpacked = timed(steps.restore)
                fetched = time.monotonic()
                steps.replay()
                ended = time.monotonic()
                phases.append((planned, unpacked, ended - fetched))
            else:
                peer.restore(into)
                fetched = time.monotonic()
                with self._contest.bench.restored(into) as conninfo:
                    self._contest.bench.promoted(conninfo)
                    ended = time.monotonic()
            replays[peer.name].append(ended - fetched)
            self._complete(into)
            return ended - begun

        found = interleaved(
            {peer.name: (lambda peer=peer: restore(peer)) for peer in self._contest.peers},  # type: ignore[misc]
            self._contest.rounds,
            self._contest.say,
        )
        replayed = {name: Series(name, tuple(seconds)) for name, seconds in replays.items()}
        self._contest.keep("restore", found)
        self._contest.keep("replay", replayed)
        self._contest.facts["this suite: plan, unpack, replay"] = phases
        note = (
            "pgBackRest: two processes, asynchronous archive-get. Barman: without get-wal, its "
            "fastest way. The time of this suite has in it what the others do not do: reading all "
            "WAL to prove where it will end, comparing every file, asking the server for the end."
        )
        reference = self._contest.pgbackrest.name
        return [
            table("empty folder to promoted at the end of the archive", found, reference, note),
            table("of that: start of the server to promoted", replayed, reference),
        ]

    def _complete(self, data: Path) -> None:
        """Look whether the rows are all there: a contestant that lost some was not fast."""
        with self._contest.bench.restored(data) as conninfo:
            self._contest.bench.promoted(conninfo)
            with psycopg.connect(**conninfo) as connection:
                row = connection.execute("select count(*) from pgbench_history").fetchone()
        if row != (self._contest.facts["rows"],):
            raise RuntimeError(f"{data}: {row} rows, expected {self._contest.facts['rows']}")

    def commands(self) -> str:
        """One segment, many times, each under a name of its own: nearly all of it is the start."""
        self._contest.say("archive and restore commands")
        bench, number = self._contest.bench, 0
        segment = max((self._contest.ours.repository / "wal").glob("?" * 24))
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
            self._contest.ours.name: self._our_get(segment.name, into),
            self._contest.pgbackrest.name: [
                *self._contest.pgbackrest.words("archive-get"),
                segment.name,
                str(into),
            ],
            self._contest.barman.name: [
                *self._contest.barman.words("get-wal"),
                "-o",
                str(folder),
                segment.name,
            ],
        }
        rounds = max(10, self._contest.rounds)
        contestants: dict[str, Callable[[], float]] = {
            "cp, not synced": lambda: pushed([f'cp "$1" {folder}/cp'])
        }
        for peer in self._contest.peers:
            contestants[f"push: {peer.name}"] = lambda peer=peer: pushed(peer.archive_lines())  # type: ignore[misc]
        for name, words in got.items():
            contestants[f"get: {name}"] = lambda words=words: timed(lambda: bench.run(*words))  # type: ignore[misc]
        found = interleaved(contestants, rounds, lambda _: None)
        self._contest.keep("commands", found)
        note = "Barman's push is the copy into its incoming folder, which does not sync."
        return table("one segment of 16 MB", found, "cp, not synced", note)

    def _our_get(self, name: str, into: Path) -> list[str]:
        view = self._contest.ours.repository / "wal"
        command = archiving.get_command(self._contest.bench.config, view)
        return ["/bin/sh", "-c", command.replace("%f", name).replace("%p", str(into))]
