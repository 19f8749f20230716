"""What a recovery of CDC decides from a reading: laws that hold for every position."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cdc.needs import Need, of_offset, of_source, strangers, wanted
from pipeline.cdc.state.connect import Connector, StoredOffset
from pipeline.cdc.state.reading import DatabasePublication, Reading, SeenSlot, Server
from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.postgres.replication.publications import (
    OPERATIONS,
    Publication,
    PublishedTable,
    differences,
)
from pipeline.postgres.wal.lsn import Lsn

CONFIG = PipelineConfig.model_validate(
    {"repository": RepositoryConfig(path="/nowhere"), "postgres": {"dbname": "shop"}}
)
PREFIX = {"server": CONFIG.cdc.topic_prefix}
HERE, ELSEWHERE = ("1", 2), ("1", 1)
positions = st.integers(1, 1 << 40)


def slot(confirmed: int, **changes: object) -> SeenSlot:
    facts = {"plugin": "pgoutput", "database": "shop", "active": False, "wal_status": "reserved"}
    lsn = str(Lsn(confirmed))
    return SeenSlot.of(
        {
            **facts,
            "slot_type": "logical",
            "name": CONFIG.cdc.slot,
            "restart_lsn": lsn,
            "confirmed_flush_lsn": lsn,
        }
        | changes
    )


def connector(offset: Mapping[str, object] | None, history: tuple[str, int] | None) -> Connector:
    stored = () if offset is None else (StoredOffset(partition=PREFIX, offset=dict(offset)),)
    config = {
        "topic.prefix": CONFIG.cdc.topic_prefix,
        "slot.name": CONFIG.cdc.slot,
        "database.dbname": "shop",
    }
    return Connector(name="c", own=True, config=config, offsets=stored, history=history)


def reading(slots: tuple[SeenSlot, ...], flush: int, *publications: Publication) -> Reading:
    server = Server(
        system_identifier="1", timeline=2, version=180000, database="shop", flush_lsn=Lsn(flush)
    )
    told = tuple(DatabasePublication(database="shop", publication=one) for one in publications)
    return Reading(taken=datetime.now(UTC), server=server, slots=slots, publications=told)


def needs(
    confirmed: int, offset: int, flush: int, history: tuple[str, int] | None = HERE
) -> list[Need]:
    now = reading((slot(confirmed),), flush)
    return list(of_offset(CONFIG, now, connector({"lsn": offset}, history)))


@given(st.lists(positions, min_size=3, max_size=3))
def test_an_offset_between_its_slot_and_the_end_of_the_wal_goes_on(found: list[int]) -> None:
    confirmed, offset, flush = sorted(found)
    assert needs(confirmed, offset, flush) == []


@given(positions, positions, positions)
def test_any_other_one_is_read_again(confirmed: int, offset: int, flush: int) -> None:
    told = needs(confirmed, offset, flush)
    assert bool(told) is not (confirmed <= offset <= flush)
    assert all(need.reread for need in told)


@given(positions, positions, positions, positions)
def test_an_offset_that_is_moved_back_never_heals_a_loss(
    confirmed: int, offset: int, flush: int, back: int
) -> None:
    """Unless it was ahead of the server, where no position tells how far events are."""
    if needs(confirmed, offset, flush) and offset <= flush:
        assert needs(confirmed, min(offset, back), flush)


@given(positions, positions, positions)
def test_an_offset_of_another_history_is_never_gone_on_from(
    confirmed: int, offset: int, flush: int
) -> None:
    assert any(need.reread for need in needs(confirmed, offset, flush, ELSEWHERE))


def test_what_is_not_there_is_read_again() -> None:
    for offset in (None, {"lsn": 5, "snapshot": True}):
        now = reading((slot(1),), 9)
        assert all(need.reread for need in of_offset(CONFIG, now, connector(offset, HERE)))
        assert list(of_offset(CONFIG, now, connector(offset, HERE)))


tables = st.dictionaries(
    st.sampled_from("abc"),
    st.tuples(
        st.sampled_from([None, ("id",), ("id", "note")]),
        st.sampled_from([None, "id > 0", "id > 1"]),
    ),
)
published = st.builds(
    lambda names, publish, every: Publication(
        name=CONFIG.cdc.publication,
        owner="owner",
        all_tables=every,
        publish=tuple(one for one in OPERATIONS if one in publish),
        via_root=True,
        generated_columns="none",
        schemas=(),
        tables=()
        if every
        else tuple(
            PublishedTable("public", name, *narrow) for name, narrow in sorted(names.items())
        ),
    ),
    tables,
    st.frozensets(st.sampled_from(OPERATIONS), min_size=1),
    st.booleans(),
)


@given(published, published)
def test_a_publication_becomes_what_it_was_and_never_less_than_it_is(
    then: Publication, now: Publication
) -> None:
    wish = wanted(CONFIG, reading((), 9, now), reading((), 9, then)).publication
    assert wish is not None
    for one in (then, now):
        lacking = [told for told in differences(one, wish) if "is not published" in told]
        assert lacking == [] or wish.all_tables
        assert set(one.publish) <= set(wish.publish)
    whole = {t for t in (*then.tables, *now.tables) if t.columns is None and t.rows is None}
    assert wish.all_tables or whole <= set(wish.tables)
    again = wanted(CONFIG, reading((), 9, wish), reading((), 9, then))
    assert again.publication == wish
    assert not list(of_source(CONFIG, reading((slot(1),), 9, wish), again))


@given(published, published)
def test_one_that_was_changed_on_purpose_is_kept(then: Publication, now: Publication) -> None:
    before, here = reading((), 9, then), reading((), 9, now)
    assert wanted(CONFIG, here, before, keep_publication=True).publication == now


def test_a_table_that_was_dropped_since_is_not_asked_for() -> None:
    then = Publication(
        CONFIG.cdc.publication,
        "owner",
        all_tables=False,
        publish=OPERATIONS,
        via_root=False,
        generated_columns="none",
        schemas=(),
        tables=(PublishedTable("public", "kept"), PublishedTable("public", "dropped")),
    )
    here = reading((), 9).model_copy(update={"tables": {"shop": ("public.kept",)}})
    wish = wanted(CONFIG, here, reading((), 9, then)).publication
    assert wish is not None
    assert [str(table) for table in wish.tables] == ["public.kept"]


def test_flags_and_places_of_slots() -> None:
    known = reading((slot(1, failover=True, two_phase=True),), 9)
    gone = wanted(CONFIG, reading((), 9), known)
    assert (gone.failover, gone.two_phase, gone.publication) == (True, True, None)
    lost = slot(1, invalidation_reason="wal_removed")
    told = list(of_source(CONFIG, reading((lost,), 9), gone))
    assert [need.new_slot for need in told] == [True, True]
    unborn = reading((slot(1, confirmed_flush_lsn=None),), 9)
    assert "its creation did not end" in str(list(of_source(CONFIG, unborn, gone))[-1])
    for other in ({"database": "other"}, {"plugin": "test_decoding"}, {"slot_type": "physical"}):
        assert list(strangers(CONFIG, reading((slot(1, **other),), 9)))
    assert not list(strangers(CONFIG, reading((slot(1),), 9)))


def _published(*tables: PublishedTable, schemas: tuple[str, ...] = ()) -> Publication:
    return Publication(
        CONFIG.cdc.publication,
        "owner",
        all_tables=False,
        publish=OPERATIONS,
        via_root=False,
        generated_columns="none",
        schemas=schemas,
        tables=tables,
    )


NARROW, WIDE = PublishedTable("public", "a", ("id",)), PublishedTable("public", "a")


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (_published(NARROW), _published(schemas=("public",))),
        (_published(schemas=("public",)), _published(NARROW)),
        (_published(NARROW), _published(WIDE, schemas=("public",))),
    ],
)
def test_a_list_of_columns_never_stands_beside_its_whole_schema(
    then: Publication, now: Publication
) -> None:
    """The server refuses such a publication, and would do so with the connectors stopped."""
    wish = wanted(CONFIG, reading((), 9, now), reading((), 9, then)).publication
    assert wish is not None
    assert wish.schemas == ("public",)
    assert all(table.columns is None for table in wish.tables)
    if now.schemas:
        assert differences(wish, now) == []


def test_a_set_of_an_older_version_asks_for_nothing_that_the_server_has_besides() -> None:
    """Before PostgreSQL 18 no generated column was published, and no setting said so."""
    now = _published(WIDE)
    then = Publication.of(now.facts() | {"generated_columns": None})
    wish = wanted(CONFIG, reading((slot(1),), 9, now), reading((), 9, then))
    assert not list(of_source(CONFIG, reading((slot(1),), 9, now), wish))
    gone = wanted(CONFIG, reading((), 9), reading((), 9, then)).publication
    assert gone is not None
    assert differences(gone, now) == []
