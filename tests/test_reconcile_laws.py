"""Laws of what is pure in the CDC package: pairs, keys, publications, facts."""

import json
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from checks.pairing import History, Pair, ServerPosition, StoredOffset, classify_pair
from pipeline.postgres.replication.publications import Publication, PublishedTable, differences
from pipeline.postgres.replication.slots import Slot
from pipeline.postgres.wal.lsn import Lsn

LSNS = st.integers(1, 20).map(Lsn)  # few, so that equal ones are met
HISTORIES = st.builds(History, st.sampled_from(["7", "8"]), st.integers(1, 2))
SLOTS = st.builds(
    Slot,
    name=st.just("debezium"),
    plugin=st.sampled_from(["pgoutput", "test_decoding"]),
    database=st.sampled_from(["shop", "other"]),
    active=st.booleans(),
    restart_lsn=st.none() | LSNS,
    confirmed_flush_lsn=st.none() | LSNS,
    wal_status=st.sampled_from(["reserved", "extended", "unreserved", "lost", None]),
    invalidation_reason=st.sampled_from([None, "wal_removed"]),
    conflicting=st.sampled_from([None, False, True]),
)
OFFSETS = st.builds(StoredOffset, LSNS, st.none() | HISTORIES)
SERVERS = st.builds(ServerPosition, st.just("shop"), HISTORIES, LSNS)


@given(SLOTS, OFFSETS, SERVERS)
def test_a_pair_is_resumable_only_when_nothing_is_lost_foreign_or_unknown(
    slot: Slot, offset: StoredOffset, server: ServerPosition
) -> None:
    """The definition of safe, written a second time as one condition."""
    confirmed = slot.confirmed_flush_lsn
    safe = (
        offset.history == server.history
        and (slot.database, slot.plugin) == (server.database, "pgoutput")
        and slot.wal_status != "lost"
        and slot.restart_lsn is not None
        and not slot.invalidation_reason
        and not slot.conflicting
        and confirmed is not None
        and confirmed <= offset.lsn <= server.lsn
    )
    assert classify_pair(slot, offset, server).resumable == safe


@given(st.none() | SLOTS, st.none() | OFFSETS, SERVERS)
def test_what_is_not_there_is_never_resumable(
    slot: Slot | None, offset: StoredOffset | None, server: ServerPosition
) -> None:
    """Without a slot, an offset or its history there is nothing to prove that all was delivered."""
    assume(slot is None or offset is None or offset.history is None)
    assert not classify_pair(slot, offset, server).resumable


@given(SLOTS, OFFSETS, SERVERS, HISTORIES)
def test_every_offset_is_foreign_after_a_point_in_time_recovery(
    slot: Slot, offset: StoredOffset, server: ServerPosition, before: History
) -> None:
    """The recovery ends on a new timeline, so no LSN of an old one counts, however it compares."""
    assume(before != server.history)
    pair = classify_pair(slot, replace(offset, history=before), server)
    assert pair in {Pair.OTHER_TIMELINE, Pair.OTHER_CLUSTER}


@given(SLOTS, OFFSETS, SERVERS, LSNS)
def test_a_slot_further_ahead_never_mends_a_pair(
    slot: Slot, offset: StoredOffset, server: ServerPosition, further: Lsn
) -> None:
    """Advancing a slot can only lose events."""
    assume(slot.confirmed_flush_lsn is not None and further >= slot.confirmed_flush_lsn)
    advanced = replace(slot, confirmed_flush_lsn=further)
    if classify_pair(advanced, offset, server).resumable:
        assert classify_pair(slot, offset, server).resumable


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ({"lsn": 9, "lsn_commit": 7, "lsn_proc": 8}, 7),
        ({"lsn": 9, "lsn_proc": 8}, 8),
        ({"lsn": 9}, 9),
        ({"lsn": 9, "snapshot": "INITIAL"}, None),
        ({"lsn": "9"}, None),
        ({}, None),
    ],
)
def test_an_offset_counts_up_to_its_last_whole_transaction(
    offset: dict[str, object], expected: int | None
) -> None:
    found = StoredOffset.of(offset, None)
    assert (found and found.lsn) == expected


@given(SLOTS)
def test_a_slot_survives_its_manifest(slot: Slot) -> None:
    """Facts go through JSON and come back equal."""
    assert Slot.of(json.loads(json.dumps(slot.facts()))) == slot


NAMES = st.sampled_from(["orders", "Order lines", 'a"b', "events"])
TABLES = st.builds(
    PublishedTable,
    st.just("public"),
    NAMES,
    st.none() | st.lists(NAMES, min_size=1, unique=True).map(tuple),
    st.none() | st.just("(id > 0)"),
)
PUBLICATIONS = st.builds(
    Publication,
    name=st.just("dbz_publication"),
    owner=st.sampled_from(["postgres", "app"]),
    all_tables=st.booleans(),
    publish=st.lists(st.sampled_from(["insert", "update", "delete"]), unique=True).map(tuple),
    via_root=st.booleans(),
    generated_columns=st.sampled_from([None, "none", "stored"]),
    schemas=st.lists(NAMES, unique=True).map(tuple),
    tables=st.lists(TABLES, unique_by=str).map(lambda t: tuple(sorted(t, key=str))),
)


@given(PUBLICATIONS, PUBLICATIONS)
def test_differences_are_told_exactly_when_there_are_any(
    expected: Publication, found: Publication
) -> None:
    found = replace(found, schemas=tuple(sorted(found.schemas)))
    expected = replace(expected, schemas=tuple(sorted(expected.schemas)))
    assert (differences(expected, found) == []) == (expected == found)


@given(PUBLICATIONS)
def test_a_publication_survives_its_manifest(publication: Publication) -> None:
    assert Publication.of(json.loads(json.dumps(publication.facts()))) == publication
