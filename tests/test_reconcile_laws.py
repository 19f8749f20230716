"""Laws of what is pure in the CDC package: keys, publications, facts."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.postgres.replication.publications import Publication, PublishedTable, differences
from pipeline.postgres.replication.slots import Slot
from pipeline.postgres.wal.lsn import Lsn

LSNS = st.integers(1, 20).map(Lsn)  # few, so that equal ones are met
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
    generated_columns=st.sampled_from(["none", "stored"]),
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
