"""What is not what it was is named, on the night it shows."""

import os
from collections.abc import Callable
from random import Random

import pytest

from pipeline.keeping.readings import FILE
from tests.verification.kept import OBJECT, SEGMENT, Kept, damaged

Mutation = Callable[[Kept, Random], str]


def flipped_bit(kept: Kept, rng: Random) -> str:
    kept.flip(kept.first(), rng)
    return kept.first()


def cut(kept: Kept, rng: Random) -> str:
    os.truncate(kept.root / kept.first(), rng.randrange(OBJECT))
    return kept.first()


def grown(kept: Kept, _rng: Random) -> str:
    with (kept.root / kept.first()).open("ab") as stream:
        stream.write(b"\0")
    return kept.first()


def object_lost(kept: Kept, _rng: Random) -> str:
    key = kept.first()
    kept.repository.store.delete(key)
    return key


def manifest_lost(kept: Kept, _rng: Random) -> str:
    key = kept.manifest()
    kept.repository.store.delete(key)
    return key


def manifest_flipped(kept: Kept, rng: Random) -> str:
    kept.flip(kept.manifest(), rng)
    return kept.manifest()


def manifest_cut(kept: Kept, rng: Random) -> str:
    path = kept.root / kept.manifest()
    os.truncate(path, rng.randrange(path.stat().st_size))
    return kept.manifest()


def manifest_sealed_anew_around_other_content(kept: Kept, rng: Random) -> str:
    """Class 13 of the catalogue: object and digest agree, and neither is what was written."""
    key, manifest = kept.first(), kept.manifest()
    kept.flip(key, rng)
    sealed = kept.repository.get(kept.repository.labels()[0]).manifest
    content = (kept.root / key).read_bytes()
    kept.repository.store.delete(key)
    stored = kept.repository.store.put(key, [content])
    kept.repository.store.delete(manifest)
    other = sealed.model_copy(update={"objects": (stored, *sealed.objects[1:])})
    kept.repository.store.put(manifest, [other.sealed()])
    return key


def wal_flipped(kept: Kept, rng: Random) -> str:
    key = rng.choice(kept.segments())
    kept.flip(key, rng)
    return key


def wal_cut(kept: Kept, rng: Random) -> str:
    key = rng.choice(kept.segments())
    os.truncate(kept.root / key, rng.randrange(SEGMENT))
    return key


def wal_of_the_middle_lost(kept: Kept, rng: Random) -> str:
    key = rng.choice(kept.segments()[1:])
    kept.repository.store.delete(key)
    return key


MUTATIONS: list[Mutation] = [
    flipped_bit,
    cut,
    grown,
    object_lost,
    manifest_lost,
    manifest_flipped,
    manifest_cut,
    manifest_sealed_anew_around_other_content,
    wal_flipped,
    wal_cut,
    wal_of_the_middle_lost,
]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_damage_that_shows_is_named_at_once_and_until_it_is_mended(
    kept: Kept, mutation: Mutation, rng: Random
) -> None:
    kept.verify()
    before = {key: (kept.root / key).read_bytes() for key in kept.repository.store.list()}
    key = mutation(kept, rng)
    for night in (0, 1, 2):
        assert key in damaged(kept.verify(night))
    for name, content in before.items():
        if name != FILE:
            (kept.root / name).write_bytes(content)
    assert kept.verify(3).damaged == []


@pytest.mark.parametrize("mutation", [flipped_bit, cut, object_lost, manifest_flipped, wal_cut])
def test_what_can_be_known_without_a_first_reading_is(
    kept: Kept, mutation: Mutation, rng: Random
) -> None:
    key = mutation(kept, rng)
    assert damaged(kept.verify()) == [key]


@pytest.mark.parametrize("mutation", [flipped_bit, wal_flipped])
def test_rot_that_leaves_no_trace_is_seen_on_its_turn(
    kept: Kept, mutation: Mutation, rng: Random
) -> None:
    kept.verify()
    key = mutation(kept, rng)
    kept.forget_that_it_was_written(key)
    assert damaged(kept.verify()) == []  # size and times are as they were: --help says so
    assert key in {found for night in range(1, 8) for found in damaged(kept.verify(night))}


@pytest.mark.parametrize("mutation", [flipped_bit, wal_flipped])
def test_full_sees_rot_at_once(kept: Kept, mutation: Mutation, rng: Random) -> None:
    kept.verify()
    key = mutation(kept, rng)
    kept.forget_that_it_was_written(key)
    assert damaged(kept.verify(full=True)) == [key]
