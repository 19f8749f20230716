"""Where a topic's objects lie: no name of a topic meets another's, or the manifest."""

from pathlib import Path

import pytest

from pipeline.kafka.archive import segments
from pipeline.repository.sets import MANIFEST, folder_of
from pipeline.repository.store import FolderStore

PREFIX = folder_of("topics-1")


@pytest.mark.parametrize(
    "names",
    [
        (MANIFEST, "orders"),
        ("Orders", "orders", "ORDERS"),
        ("a" * 249, "a" * 248 + "b", "A" * 249),
        ("topics", "a.b", "a_b", "a-b"),
    ],
)
def test_topics_do_not_meet(tmp_path: Path, names: tuple[str, ...]) -> None:
    store = FolderStore(tmp_path)
    keys = [segments.folder(PREFIX, name, 0) + segments.INDEX for name in names]
    for key in (*keys, PREFIX + MANIFEST):
        store.put(key, [key.encode()])
    assert len({key.lower() for key in keys}) == len(names)


def test_a_set_of_an_earlier_version_is_found_where_it_lies() -> None:
    before = f"{PREFIX}Orders/3/{segments.INDEX}"
    assert segments.index_key(PREFIX, "Orders", 3, {before}) == before
    new = segments.index_key(PREFIX, "Orders", 3, ())
    assert new.startswith(f"{PREFIX}topics/Orders~")
