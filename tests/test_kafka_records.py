"""How the checks read a record: Kafka's own hash of keys, and every part where it belongs."""

import pytest

from checks.kafka_records import Fields, fields, fingerprint, murmur2
from checks.kafka_replays import fold
from fixtures.faults.kafka_live import body
from pipeline.kafka.log.records import Record

# org.apache.kafka.common.utils.UtilsTest#testMurmur2
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", VECTORS)
def test_murmur2_is_that_of_kafka(key: bytes) -> None:
    assert murmur2(key) == VECTORS[key] & 0x7FFFFFFF


def test_every_part_of_a_record_is_told_from_its_neighbours() -> None:
    """Null is not empty, and one header's end is not another's beginning."""
    records = [
        Fields(b"k", b"v", ()),
        Fields(None, b"kv", ()),
        Fields(b"", b"kv", ()),
        Fields(b"k", None, ()),
        Fields(b"k", b"", ()),
        Fields(b"k", b"v", ((b"a", b"1"), (b"a", b"2"))),
        Fields(b"k", b"v", ((b"a", b"2"), (b"a", b"1"))),
        Fields(b"k", b"v", ((b"a", None),)),
        Fields(b"k", b"v", ((b"a", b""),)),
        Fields(b"k" * 300, b"v" * 70_000, ()),
    ]
    bodies = [body(*record) for record in records]
    assert [fields(each) for each in bodies] == records
    assert len({fingerprint(each) for each in bodies}) == len(records)


def test_a_fold_keeps_the_newest_and_forgets_the_deleted() -> None:
    told = [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b""), (None, b"x")]
    records = [Record(n, 0, body(key, value, ())) for n, (key, value) in enumerate(told)]
    assert fold(iter(records)) == {b"a": body(b"a", b"2", ()), b"c": body(b"c", b"", ())}
