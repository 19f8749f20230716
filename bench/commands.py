"""The commands that a server calls for WAL, side by side: one segment, and many that wait."""

import os
import shutil
from collections.abc import Callable
from functools import partial

from bench.contest import Contest
from bench.measure import interleaved, table, timed
from pipeline.postgres.wal import archiving

WAITING = 16
"""Segments that a server has to hand over at once."""


class Commands:
    """What is measured of archive_command and restore_command."""

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._number = 0
        self._folder = contest.bench.path("commands")
        self._segment = max((contest.ours.repository / "wal").glob("?" * 24))

    def one(self) -> str:
        """One segment, many times, each under a name of its own: nearly all of it is the start."""
        self._contest.say("archive and restore commands")
        bench, folder = self._contest.bench, self._folder
        contestants: dict[str, Callable[[], float]] = {
            "cp, not synced": partial(self._handed_over, [f'cp "$1" {folder}/cp'], 1)
        }
        for peer in self._contest.peers:
            contestants[f"push: {peer.name}"] = partial(self._handed_over, peer.archive_lines(), 1)
        for name, words in self._gets().items():
            contestants[f"get: {name}"] = partial(timed, partial(bench.run, *words))
        found = interleaved(contestants, max(10, self._contest.rounds), lambda _: None)
        self._contest.record("commands", found)
        note = (
            "Barman's push is the copy into its incoming folder, which does not sync. pgBackRest "
            "compresses in its push, and unpacks in its get."
        )
        return table("one segment of 16 MB", found, "cp, not synced", note)

    def many(self) -> str:
        """A server that could not archive for a while: a call for each segment all the same."""
        self._contest.say("segments that wait")
        contestants = {
            peer.name: partial(self._handed_over, peer.archive_lines(), WAITING)
            for peer in self._contest.peers
        }
        found = interleaved(contestants, self._contest.rounds, self._contest.say)
        self._contest.record("segments that wait", found)
        note = (
            "A process for each segment, as the server starts them. pgBackRest is asked to archive "
            "in the foreground."
        )
        first = next(iter(found))
        return table(f"{WAITING} segments that wait for the archive", found, first, note)

    def _handed_over(self, lines: list[str], count: int) -> float:
        """Seconds for so many segments."""
        bench, pg_wal = self._contest.bench, self._folder / "pg_wal"
        pg_wal.mkdir()
        paths = []
        for _ in range(count):
            self._number += 1
            paths.append(pg_wal / f"00000001000000FF{self._number:08X}")
            shutil.copyfile(self._segment, paths[-1])
        bench.tools.own(pg_wal)
        os.sync()
        script = "set -e\n" + "\n".join(lines)
        seconds = timed(
            lambda: [bench.run("/bin/sh", "-c", script, "push", path) for path in paths]
        )
        shutil.rmtree(pg_wal)
        return seconds

    def _gets(self) -> dict[str, list[str]]:
        """The commands that fetch a segment, by contestant."""
        into, name = str(self._folder / "got"), self._segment.name
        ours, pgbackrest, barman = (
            self._contest.ours,
            self._contest.pgbackrest,
            self._contest.barman,
        )
        get = archiving.get_command(self._contest.bench.config, self._segment.parent)
        return {
            "cp": ["cp", str(self._segment), into],
            ours.name: ["/bin/sh", "-c", get.replace("%f", name).replace("%p", into)],
            pgbackrest.name: [*pgbackrest.words("archive-get"), name, into],
            barman.name: [*barman.words("get-wal"), "-o", str(self._folder), name],
        }
