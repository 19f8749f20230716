"""A backup set is what its sealed manifest says, and nothing without one is a backup set."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BackupError, ObjectMissing, StoreError
from pipeline.repository.kinds import newest
from pipeline.repository.sets import MANIFEST, BackupSet, Draft, Manifest, Repository, total_size
from pipeline.repository.store import FolderStore, StoredObject, read

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v, max_size=3)
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(FolderStore(tmp_path / "repository"))


def manifest(label: str, *objects: StoredObject, **facts: object) -> Manifest:
    return Manifest(
        kind="base",
        label=label,
        started=NOON,
        finished=NOON + timedelta(minutes=1),
        made_by="test",
        facts=facts,
        objects=objects,
    )


def committed(repository: Repository, at: datetime = NOON, **facts: object) -> BackupSet:
    label = repository.new_label("base", at)
    stored = repository.store.put(f"sets/base/{label}/base.tar", [b"whole ", b"server"])
    return repository.commit(manifest(label, stored, **facts))


def rewritten(repository: Repository, key: str, data: bytes) -> None:
    """What somebody with access to the storage could do; the store itself never replaces."""
    repository.store.delete(key)
    repository.store.put(key, [data])


def test_a_committed_set_is_read_back_as_it_was(repository: Repository) -> None:
    made = committed(repository, end_lsn="0/3000028")
    assert repository.get(made.label) == made
    assert newest(repository, "base") == made
    assert list(repository) == [made]
    assert total_size(made.manifest.objects) == 12


def test_what_was_not_committed_is_no_set(repository: Repository) -> None:
    label = repository.new_label("base", NOON)
    repository.store.put(f"sets/base/{label}/base.tar", [b"x"])
    assert repository.labels() == []
    assert list(repository) == []
    with pytest.raises(ObjectMissing):
        repository.get(label)
    with pytest.raises(ObjectMissing):
        newest(repository, "base")


def test_a_manifest_cannot_be_committed_before_its_objects(repository: Repository) -> None:
    absent = StoredObject("sets/base/base-x/base.tar", 1, "00")
    with pytest.raises(BackupError, match=r"not stored: \['sets/base/base-x/base\.tar'\]"):
        repository.commit(manifest("base-x", absent))
    assert repository.labels() == []


def puts(draft: Draft, name: str, *, fails: bool = False) -> StoredObject:
    def chunks() -> Iterator[bytes]:
        yield b"first block of " + name.encode()
        if fails:
            raise BackupError(f"{name} was cut")

    return draft.put(name, chunks())


class Full(FolderStore):
    """A store that has no room left for a manifest."""

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        if key.endswith(MANIFEST):
            raise StoreError("no space left on device")
        return super().put(key, chunks)


class FullBehindIt(FolderStore):
    """A store that says so with the manifest in place already."""

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        stored = super().put(key, chunks)
        if key.endswith(MANIFEST):
            raise StoreError("no space left on device")
        return stored


def test_a_draft_that_fails_takes_what_it_stored_with_it(repository: Repository) -> None:
    draft = repository.begin("base")
    puts(draft, "first")
    with pytest.raises(BackupError, match="second was cut"), draft:
        puts(draft, "second", fails=True)
    assert list(repository.store.list()) == []


@pytest.mark.parametrize("full", [Full, FullBehindIt])
def test_a_draft_whose_manifest_fails_is_no_set_even_where_it_was_written(
    tmp_path: Path, full: type[FolderStore]
) -> None:
    store = full(tmp_path)
    with pytest.raises(StoreError, match="no space"), Repository(store).begin("base") as draft:
        draft.commit({}, [puts(draft, "first")])
    assert list(store.list()) == []


class KeptBehindIt(FullBehindIt):
    """A store that keeps the manifest too."""

    def delete(self, key: str) -> None:
        if key.endswith(MANIFEST):
            raise StoreError("read-only file system")
        super().delete(key)


def test_a_manifest_that_cannot_be_removed_keeps_its_objects(tmp_path: Path) -> None:
    store = KeptBehindIt(tmp_path)
    with pytest.raises(StoreError, match="no space"), Repository(store).begin("base") as draft:
        draft.commit({}, [puts(draft, "first")])
    (kept,) = Repository(store)
    assert [read(store, entry.key) for entry in kept.manifest.objects] == [b"first block of first"]


def test_what_fails_behind_the_commit_takes_nothing_with_it(repository: Repository) -> None:
    draft = repository.begin("base")
    made = draft.commit({}, [puts(draft, "first")])
    with pytest.raises(BackupError, match="later"), draft:
        raise BackupError("later")
    assert list(repository) == [made]
    assert total_size(made.manifest.objects) == len("first block of first")


@given(facts=st.dictionaries(st.text(), json_values, max_size=4))
def test_a_manifest_reads_back_what_was_sealed(facts: dict[str, Any]) -> None:
    made = manifest("base-x", StoredObject("k", 1, "00"), facts=facts)
    assert Manifest.unsealed(made.sealed(), "here") == made


@given(data=st.data())
def test_a_seal_holds_against_any_cut_and_any_flipped_bit(data: st.DataObject) -> None:
    """Either it is refused by name, or what is read is exactly what was sealed (white space)."""
    made = manifest("base-x", StoredObject("k", 1, "00"), end_lsn="0/3000028")
    sealed = bytearray(made.sealed())
    if data.draw(st.booleans()):
        damaged = bytes(sealed[: data.draw(st.integers(0, len(sealed) - 1))])
    else:
        sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        damaged = bytes(sealed)
    try:
        found = Manifest.unsealed(damaged, "sets/base/base-x/manifest.json")
    except BackupError as error:
        assert "sets/base/base-x/manifest.json" in str(error)  # noqa: PT017 - or it is unchanged
    else:
        assert found == made


def test_an_edited_manifest_is_refused_with_both_digests(repository: Repository) -> None:
    made = committed(repository, end_lsn="0/3000028")
    key = made.prefix + MANIFEST
    edited = read(repository.store, key).replace(b"0/3000028", b"0/2000028")
    rewritten(repository, key, edited)
    with pytest.raises(BackupError, match=f"{key}: manifest digest is .*, its seal says"):
        repository.get(made.label)
    with pytest.raises(BackupError):
        list(repository)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"manifest": {}}', b"\xff\xfe"])
def test_what_is_no_manifest_is_refused_and_never_passes_for_none(
    repository: Repository, content: bytes
) -> None:
    made = committed(repository)
    rewritten(repository, made.prefix + MANIFEST, content)
    with pytest.raises(BackupError, match="not a manifest"):
        list(repository)


@pytest.mark.parametrize("body", [{"format": 2, "kind": "base"}, {"format": None}, [], "text"])
def test_a_newer_format_is_refused_by_its_number_and_not_by_its_fields(body: object) -> None:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    sealed = json.dumps({"manifest": body, "sha256": digest}).encode()
    with pytest.raises(BackupError, match=r"here: manifest format .*; this version reads 1"):
        Manifest.unsealed(sealed, "here")


def test_a_manifest_of_another_set_under_this_label_is_refused(repository: Repository) -> None:
    first, second = committed(repository), committed(repository)
    rewritten(repository, first.prefix + MANIFEST, second.manifest.sealed())
    with pytest.raises(BackupError, match=f"the manifest is that of '{second.label}'"):
        repository.get(first.label)


@given(moments=st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), min_size=2))  # noqa: DTZ001 - made aware below
def test_labels_sort_by_time_over_all_kinds(moments: list[datetime]) -> None:
    sixteen = 16  # microseconds that a label tells apart
    whole = sorted(
        {
            moment.replace(microsecond=moment.microsecond // sixteen * sixteen, tzinfo=UTC)
            for moment in moments
        }
    )
    repository = Repository(FolderStore(Path("/nowhere")))
    kinds = ("logical", "base")
    labels = [repository.new_label(kinds[n % 2], at) for n, at in enumerate(whole)]
    assert sorted(labels, key=lambda label: label.partition("-")[2]) == labels


def test_sets_are_listed_oldest_first_and_by_kind(repository: Repository) -> None:
    later, earlier = committed(repository, NOON), committed(repository, NOON - timedelta(days=1))
    assert repository.labels() == repository.labels("base") == [earlier.label, later.label]
    assert newest(repository, "base") == later
    assert repository.labels("logical") == []


def test_two_runs_in_one_second_do_not_meet(repository: Repository) -> None:
    made = {committed(repository, NOON).label for _ in range(20)}
    assert set(repository.labels()) == made
    assert len(made) == 20
