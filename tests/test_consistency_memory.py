"""A fold takes no more memory than it was given, however many keys its topics have."""

import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
from pipeline.cdc.last_states import KeyChange, LastStates, Side
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
keys, bound = int(sys.argv[1]), int(sys.argv[2])
with LastStates(bound) as fold:
    before = peak()
    for n in range(2 * keys):
        key, identity = (n % keys).to_bytes(18), n.to_bytes(16)
        fold.take(KeyChange(0, key, 0, Side.BEFORE, bytes(60), (n, n), identity, raw=key))
    for n in range(keys // 2):
        assert fold.meet(0, [n.to_bytes(18)]).states == (bytes(60),)
    assert sum(1 for _ in fold.unmet(0)) == keys - keys // 2
    asked = ("PRAGMA page_count", "PRAGMA page_size")
    (pages,), (size,) = (fold._kept.execute(each).fetchone() for each in asked)
    print(peak() - before, pages * size)
"""


@pytest.mark.parametrize("keys", [30_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_topic_that_is_larger_than_the_bound_is_folded_on_disk(keys: int) -> None:
    bound = 1 << 20
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(keys), str(bound)],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, folded = map(int, done.stdout.split())
    assert folded > 5 * bound
    assert grown < 4 * bound, f"{folded / 1e6:.1f} MB were folded in {grown / 1e6:.1f} MB"
