"""An archive at rest, read whole: every offset is there, unchanged and in its place, or named."""

import hashlib
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

import zstandard
from pydantic import ValidationError

from pipeline.errors import BackupError, StoreError
from pipeline.kafka import segments
from pipeline.kafka.account import Account
from pipeline.kafka.batches import walk as walk_batches
from pipeline.kafka.gaps import Reason, totals
from pipeline.kafka.segments import Index, Segment
from pipeline.repository import MANIFEST, BackupSet
from pipeline.store import HashedStream, Store, read

BLOCK = 8 << 20


class Proof(NamedTuple):
    """One thing that was looked at, and what is wrong with it."""

    subject: str
    problem: str | None


def walk(backup: BackupSet) -> Iterator[Proof]:
    """Prove every partition from its bytes: hashes, chain, CRCs, tiling, gaps, counts."""
    told = backup.manifest.facts.get("topics", {})
    listed = {entry.key: entry.sha256 for entry in backup.manifest.objects}
    strangers = set(backup.store.list(backup.prefix)) - set(listed) - {backup.prefix + MANIFEST}
    for topic, facts in told.items():
        for partition, extent in facts["partitions"].items():
            key = f"{backup.prefix}{topic}/{partition}/{segments.INDEX}"
            problems = _partition(backup.store, key, listed, extent)
            yield from _proofs(f"{topic}[{partition}]", problems)
    left = [f"not in the manifest: {key}" for key in sorted(strangers)]
    left += [f"belongs to no partition: {key}" for key in sorted(listed)]
    yield from _proofs(backup.label, left)


def _proofs(subject: str, problems: list[str]) -> Iterator[Proof]:
    if not problems:
        yield Proof(subject, None)
    for problem in problems:
        yield Proof(subject, problem)


def _partition(
    store: Store, key: str, listed: dict[str, str], extent: dict[str, object]
) -> list[str]:
    """Problems of one partition; the objects that it accounts for leave `listed`."""
    try:
        content, expected = read(store, key), listed.pop(key, None)
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            return [f"{key}: sha256 is {found}, the manifest says {expected}"]
        index = Index.model_validate_json(content)
    except (StoreError, ValidationError) as error:
        return [f"no index: {error}"]
    problems = [
        f"{name} is {found} in the index, {extent[name]} in the manifest"
        for name in ("start", "end", "head")
        if (found := getattr(index, name)) != extent[name]
    ]
    account = Account(
        index.place,
        index.start,
        compacted=index.content.compacted,
        aborted=index.content.aborted,
    )
    problems += [
        f"offsets {gap.first} to {gap.end - 1} are LOST"
        for gap in index.content.gaps
        if gap.reason is Reason.LOST
    ]
    return problems + list(_segments(store, index, listed, account))


def _segments(
    store: Store, index: Index, listed: dict[str, str], account: Account
) -> Iterator[str]:
    head, position = segments.anchor(index.place, index.start), index.start
    deleted = {(gap.first, gap.end) for gap in index.content.gaps if gap.reason is Reason.DELETED}
    for segment in index.segments:
        if (position, segment.first) in deleted:
            account.deleted_until(segment.first)
        elif segment.first != position:
            yield f"{segment.key} begins at {segment.first}, expected {position}"
        head = segments.link(head, segment.sha256, segment.first, segment.end)
        if head != segment.link:
            yield f"{segment.key} does not follow what is before it: the hash chain is broken"
        head, position = segment.link, segment.end
        if (expected := listed.pop(segment.key, None)) != segment.sha256:
            yield f"{segment.key}: sha256 {segment.sha256} in the index, {expected} in the manifest"
        try:
            _read(store, segment, account)
        except (BackupError, StoreError, zstandard.ZstdError) as error:
            yield f"{segment.key}: {error}"
            return  # what follows cannot be counted any more
        if account.position < segment.end:
            yield f"{segment.key} ends at {account.position}, expected {segment.end}"
    found = account.close(index.end)
    if found != index.content:
        changed = [n for n, v in found if v != getattr(index.content, n)]
        yield f"the batches differ from the index in {', '.join(changed)}: {totals(found.gaps)}"


def _read(store: Store, segment: Segment, account: Account) -> None:
    """Account for every batch of a segment; BackupError unless it is what was stored."""
    with store.open(segment.key) as stored:
        hashed = HashedStream(stored)
        batches, left = segments.unpacked(cast("IO[bytes]", hashed), segment.key), b""
        while block := batches.read(BLOCK):
            data = left + block
            whole = sum(batch.size for batch, _ in walk_batches(data, segment.key, cut=True))
            account.take(data[:whole])
            left = data[whole:]
        if left:
            raise BackupError(f"{len(left)} bytes of a cut batch at its end")
        if (found := hashed.hexdigest()) != segment.sha256:
            raise BackupError(f"sha256 is {found}, expected {segment.sha256}")
