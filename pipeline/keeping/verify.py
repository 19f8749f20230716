"""Verification of a repository: every object against its digest, each within so many days.

Existence and size of everything are compared every time. What is read in full is what was never
read, was written to since, was found damaged, or was read too long ago; and of the rest the
oldest, until one night has read its share.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

from pipeline.errors import ObjectMissing, StoreError
from pipeline.keeping.readings import Reading, Readings, open_readings
from pipeline.keeping.survey import Damage, Subject, Survey, survey
from pipeline.repository.store import FolderStore
from pipeline.tally import Tally

SHARE = Fraction(1, 7)
DAY, NIGHT = timedelta(days=1), timedelta(hours=12)  # read within a night: counts for its share
_BLOCK = 1 << 20


@dataclass
class Verification:
    """What one run saw. `read` is what it read in full itself, sound or not."""

    survey: Survey
    due: list[Subject]
    note: str | None
    read: list[Reading] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    seconds: float = 0.0
    oldest: Reading | None = None

    @property
    def size(self) -> int:
        """Bytes that were read."""
        return sum(reading.size for reading in self.read)


def verify(
    root: Path,
    *,
    full: bool = False,
    share: Fraction = SHARE,
    jobs: int | None = None,
    now: datetime | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Verify the repository in this folder and record what was read.

    An object stays unread for `1 / share` days at most, when this runs every night. Raises
    StoreError where the repository cannot be listed, or the readings cannot be kept.
    """
    moment = now or datetime.now(UTC)
    with open_readings(root) as readings:
        if not readings.kept:
            progress(f"{root} cannot be written: what is read now is noted nowhere")
        found = survey(root, readings)
        due = found.subjects if full else list(_due(found, readings, share, moment))
        run = Verification(found, due, readings.note, damaged=list(found.damaged))
        progress(
            f"{found.sets} backup sets, {len(found.subjects)} objects of {found.size:,} bytes; "
            f"to read now: {len(due)} of {sum(each.size for each in due):,} bytes"
        )
        jobs = jobs or min(4, os.cpu_count() or 1)
        _read_all(root, run, readings, now=moment, jobs=jobs, progress=progress)
        keys = {subject.key for subject in found.subjects}
        readings.keep(keys | {damage.key for damage in run.damaged})
        run.oldest = min((r for r in readings if r.key in keys), key=lambda r: r.read, default=None)
    return run


def _due(found: Survey, readings: Readings, share: Fraction, now: datetime) -> Iterator[Subject]:
    """Choose what is read now: what must be, then the oldest until the share is full."""
    rested: list[tuple[datetime, Subject]] = []
    limit, tonight = now - DAY * share.denominator / share.numerator, 0
    for subject in found.subjects:
        last = readings.get(subject.key)
        if last is None or _must(subject, last, limit, now):
            tonight += subject.size
            yield subject
        elif last.read > now - NIGHT:
            tonight += subject.size
        else:
            rested.append((last.read, subject))
    for _, subject in sorted(rested, key=lambda each: (each[0], each[1].key)):
        if tonight >= found.size * share:
            return
        tonight += subject.size
        yield subject


def _must(subject: Subject, last: Reading, limit: datetime, now: datetime) -> bool:
    return (
        not last.sound
        or last.changed != subject.changed
        or not limit < last.read <= now  # a clock that was set back proves nothing
    )


def _read_all(
    root: Path,
    run: Verification,
    readings: Readings,
    *,
    now: datetime,
    jobs: int,
    progress: Callable[[str], None],
) -> None:
    """Read in parallel; each object is recorded as soon as it was read to its end."""
    store, stopped, begun = FolderStore(root), threading.Event(), time.monotonic()
    tally = Tally("read", sum(each.size for each in run.due), progress)
    with ThreadPoolExecutor(jobs) as pool:
        # hashlib lets go of the interpreter, so that threads hash on all cores
        futures = {pool.submit(_digest, store, each, tally, stopped): each for each in run.due}
        try:
            for future in as_completed(futures):
                _judge(futures[future], future, run, readings, now)
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    run.seconds = time.monotonic() - begun


def _judge(
    subject: Subject,
    future: "Future[tuple[str, int]]",
    run: Verification,
    readings: Readings,
    now: datetime,
) -> None:
    key = subject.key
    try:
        found, size = future.result()
    except ObjectMissing:
        run.survey.gone.append(f"{key}, while this ran")  # the next run judges what is left
        return
    except (StoreError, OSError) as error:
        run.unreadable.append(f"{key}: {error}")
        return
    expected = subject.sha256 or found
    sound = (found, size) == (expected, subject.size)
    if not sound:
        stated = f"{subject.size} bytes with sha256 {expected}"
        run.damaged.append(Damage(key, stated, f"{size} bytes with {found}"))
    reading = Reading(key, subject.size, expected, now, subject.changed, sound)
    run.read.append(reading)
    readings.add(reading)


def _digest(
    store: FolderStore, subject: Subject, tally: Tally, stopped: threading.Event
) -> tuple[str, int]:
    """Read from the medium: pages that the system still remembers would prove memory, not disk."""
    digest, size = hashlib.sha256(), 0
    with store.open(subject.key) as stream:
        descriptor = stream.fileno()
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        block = memoryview(bytearray(_BLOCK))
        while not stopped.is_set() and (count := os.readv(descriptor, [block])):
            digest.update(block[:count])
            size += count
            tally.add(count)
        with contextlib.suppress(OSError):  # what a server on this machine remembers is dearer
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest(), size
