"""Nothing counts as read that was not, whatever became of the file that says so."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.keeping.readings import DAMAGED, FILE
from tests.verification.kept import NOW, Kept, recorded


@contextmanager
def lines_of_three() -> Iterator[tuple[Kept, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(Path(folder))
        kept.commit(NOW)
        kept.verify()
        yield kept, (kept.root / FILE).read_bytes()


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_readings_never_claim_what_was_not_read(data: st.DataObject) -> None:
    with lines_of_three() as (kept, sound):
        truth, content = recorded(kept), bytearray(sound)
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(sound))) :]
        else:
            content[data.draw(st.integers(0, len(sound) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (kept.root / FILE).write_bytes(content)
        assert recorded(kept) <= truth


def test_damaged_readings_are_told_kept_and_everything_is_read_again(kept: Kept) -> None:
    kept.verify()
    lines = (kept.root / FILE).read_bytes().splitlines(keepends=True)
    (kept.root / FILE).write_bytes(b"".join([*lines[:2], *lines[3:]]))
    run = kept.verify()
    assert len(run.read) == 11
    assert run.note is not None
    assert "line 3 does not follow" in run.note
    assert (kept.root / DAMAGED).exists()
    assert (kept.verify().note, kept.verify().damaged) == (None, [])
