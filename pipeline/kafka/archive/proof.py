"""An archive at rest, read whole: every offset is there, unchanged and in its place, or named."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from pipeline.errors import BackupError, StoreError
from pipeline.kafka.archive import segments
from pipeline.kafka.archive.reading import digests, inventory, proven, read_index
from pipeline.kafka.archive.segments import Index
from pipeline.kafka.log.gaps import Gap, Reason
from pipeline.repository.sets import MANIFEST, BackupSet
from pipeline.repository.store import Store


class Proof(NamedTuple):
    """One thing that was looked at, and what is wrong with it."""

    subject: str
    problem: str | None


def walk(backup: BackupSet, beside: Collection[str] = ()) -> Iterator[Proof]:
    """Prove every partition from its bytes: hashes, chain, CRCs, tiling, gaps, counts.

    Objects called as one of `beside` belong to the set and to none of its partitions.
    """
    told, listed = backup.manifest.facts.get("topics", {}), digests(backup)
    unnamed = set(listed) - {backup.prefix + name for name in beside}
    strangers = set(backup.store.list(backup.prefix)) - set(listed) - {backup.prefix + MANIFEST}
    for topic, facts in told.items():
        for partition in facts["partitions"]:
            subject, number = f"{topic}[{partition}]", int(partition)
            unnamed.discard(segments.index_key(backup.prefix, topic, number, listed))
            try:
                index = read_index(backup, topic, number, listed)
            except (BackupError, StoreError) as error:
                yield Proof(subject, f"no index: {error}")
                continue
            unnamed -= {key for each in index.segments for key in (each.key, each.inventory_key)}
            yield from _proofs(subject, _partition(backup.store, index, listed))
    left = [f"not in the manifest: {key}" for key in sorted(strangers)]
    left += [f"belongs to no partition: {key}" for key in sorted(unnamed)]
    yield from _proofs(backup.label, iter(left))


def _proofs(subject: str, problems: Iterator[str]) -> Iterator[Proof]:
    sound = True
    for problem in problems:
        sound = False
        yield Proof(subject, problem)
    if sound:
        yield Proof(subject, None)


def _partition(store: Store, index: Index, listed: dict[str, str]) -> Iterator[str]:
    yield from index.problems()
    for segment in index.segments:
        for key, stated in (
            (segment.key, segment.sha256),
            (segment.inventory_key, segment.inventory),
        ):
            if (expected := listed.get(key)) != stated:
                yield f"{key}: sha256 {stated} in the index, {expected} in the manifest"
        try:
            content = inventory(store, index, segment).content
            for _ in proven(store, index, segment, content):
                pass
        except (BackupError, StoreError) as error:
            yield str(error)
        else:
            yield from _lost(content.gaps)


def _lost(gaps: tuple[Gap, ...]) -> Iterator[str]:
    for gap in gaps:
        if gap.reason is Reason.LOST:
            yield f"offsets {gap.first} to {gap.end - 1} are LOST"
