"""Conformance suite of the Store protocol; a new store joins by one line in STORES."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import ObjectExists, ObjectMissing, StoreError
from pipeline.repository.store import FolderStore, Store, read

ROOT = Path(__file__).resolve().parents[1]
STORES: dict[str, Callable[[Path], Store]] = {"folder": FolderStore}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path / "repository")


def test_what_was_put_is_read_back_with_its_digest(store: Store) -> None:
    stored = store.put("sets/base/a/base.tar", [b"one", b"", b"two"])
    assert (stored.size, stored.sha256[:8]) == (6, "25b6746d")  # printf onetwo | sha256sum
    assert read(store, "sets/base/a/base.tar") == b"onetwo"


def test_same_content_again_is_success(store: Store) -> None:
    assert store.put("wal/1", [b"x"]) == store.put("wal/1", [b"x"])


def test_other_content_is_refused_and_nothing_changes(store: Store) -> None:
    store.put("wal/1", [b"x"])
    with pytest.raises(ObjectExists, match="other content"):
        store.put("wal/1", [b"y"])
    assert read(store, "wal/1") == b"x"


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, StoreError)):
        store.put("wal/1", broken())
    assert list(store.list()) == []
    with pytest.raises(ObjectMissing):
        store.open("wal/1")


def test_missing_is_missing(store: Store) -> None:
    with pytest.raises(ObjectMissing, match="no object 'a/b'"):
        store.open("a/b")
    with pytest.raises(ObjectMissing):
        store.delete("a/b")
    assert list(store.list("a")) == []


def test_list_is_sorted_and_by_prefix(store: Store) -> None:
    for key in ("wal/2", "wal/1", "sets/x/1", "w"):
        store.put(key, [b""])
    assert list(store.list("wal/")) == ["wal/1", "wal/2"]
    assert list(store.list("w")) == ["w", "wal/1", "wal/2"]


def test_delete_removes(store: Store) -> None:
    store.put("a/b", [b""])
    store.delete("a/b")
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/."])
def test_a_key_never_leaves_the_store(store: Store, key: str) -> None:
    with pytest.raises(StoreError):
        store.put(key, [b""])


@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_system_without_nameless_files_keeps_the_same_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, nameless: bool
) -> None:
    """NFS has none: there the unfinished file has a name, which nothing lists."""
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # EISDIR, as old kernels answer
    store, seen = FolderStore(tmp_path / "repository"), list[str]()

    def chunks() -> Iterator[bytes]:
        yield b"half"
        seen.extend(path.name for path in store.root.rglob("*"))
        yield b"whole"

    store.put("wal/1", chunks())
    assert len(seen) == (0 if nameless else 1)
    assert sorted(path.name for path in store.root.rglob("*")) == ["1", "wal"]
    with pytest.raises(ObjectExists):
        store.put("wal/1", [b"other"])
    assert read(store, "wal/1") == b"halfwhole"
    assert sorted(path.name for path in store.root.rglob("*")) == ["1", "wal"]


def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    """Not even the folder of a backup set that it never finished."""
    writer = f"""
from pathlib import Path
from pipeline.repository.store import FolderStore
def chunks():
    yield b"half"
    print("writing", flush=True)
    input()
FolderStore(Path({str(tmp_path)!r})).put("sets/base/a/base.tar", chunks())
"""
    command = [sys.executable, "-c", writer]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.kill()
    assert list(tmp_path.rglob("*")) == []


def test_a_removal_that_cannot_be_made_durable_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    store.put("a/b", [b"content"])

    def failing(*_: str) -> None:
        raise OSError("I/O error")

    monkeypatch.setattr("pipeline.repository.store.sync_folders", failing)
    with pytest.raises(StoreError, match=r"cannot delete 'a/b' .*I/O error"):
        store.delete("a/b")
