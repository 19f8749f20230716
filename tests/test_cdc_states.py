"""Each state of CDC that a reading can show is named, and nothing is sound that was not read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from checks.rules.cdc_state import compared_with
from checks.subjects import BackupRepository
from fixtures import cdc_states as made
from pipeline.cdc.needs import of_offset
from pipeline.cdc.state import kept, told
from pipeline.cdc.state.classify import SOUND, UNKNOWN, Classification, classify
from pipeline.cdc.state.connect import StoredOffset, Task
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import Asked, Reading, SeenSlot, ServiceTable, TopicRead, Unread
from pipeline.cdc.state.states import STATES, WORST_FIRST, Gravity
from pipeline.config import PipelineConfig
from pipeline.errors import NoBackup
from pipeline.postgres.replication.publications import PublishedTable as Member
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.journal import Journal

CONFIG = PipelineConfig.model_validate(
    {"repository": {"path": "/nowhere"}, "postgres": {"dbname": "shop"}}
)


def ids(found: Classification) -> list[str]:
    """Every state that was named, the worst first."""
    return [one.state.id for verdict in found.verdicts for one in verdict.findings]


def test_there_are_45_states_each_with_a_rank_of_its_own() -> None:
    assert sorted(STATES) == [f"S{number:02}" for number in range(1, 46)] == sorted(WORST_FIRST)
    for state in STATES.values():
        assert state.recognised.endswith("."), state.id
        assert state.rule or state.elsewhere


def test_a_sound_state_is_sound() -> None:
    found = classify(made.SOUND, made.BEFORE)
    states = {verdict.name: verdict.state for verdict in found.verdicts}
    assert states == {"server": SOUND, "shop": SOUND, "Kafka Connect": SOUND}
    assert (found.loses, found.unknown) == (False, False)


@pytest.mark.parametrize("state", sorted(made.MADE))
def test_each_state_is_named(state: str) -> None:
    """By its id, with its gravity, and by a command without a place left open."""
    now, before = made.MADE[state]()
    found = classify(now, before)
    assert state in ids(found), told.facts(found)
    [finding] = [f for v in found.verdicts for f in v.findings if f.state.id == state]
    assert finding.said
    assert "{" not in finding.command
    assert found.loses or finding.gravity is Gravity.NOTE
    assert any(state in line for line in told.lines(found))
    assert json.dumps(told.facts(found))


def test_every_state_that_a_reading_can_show_is_made_here() -> None:
    assert set(made.MADE) == {state.id for state in STATES.values() if state.rule}


@pytest.mark.parametrize(
    ("state", "now"),
    [
        ("S16", made.slot(wal_status="lost", restart_lsn=None)),
        ("S16", made.slot(invalidation_reason="of a later version")),
        ("S17", made.slot(safe_wal_size=0)),
        ("S20", made.slot(invalidation_reason="rows_removed")),
        (
            "S22",
            made.with_(
                connectors=(
                    made.CONNECTOR,
                    made.CONNECTOR.model_copy(update={"name": "copy", "own": False}),
                )
            ),
        ),
        ("S23", made.slot(slot_type="physical", plugin="", database="")),
        ("S23", made.slot(database="other")),
        ("S23", made.slot(temporary=True)),
        (
            "S31",
            made.slot(
                made.server(timeline=2), restart_lsn=Lsn(900), confirmed_flush_lsn=Lsn(1_900)
            ),
        ),
        (
            "S32",
            made.connector(
                tasks=(
                    Task(
                        id=0, state="FAILED", cause='publication "dbz_publication" does not exist'
                    ),
                )
            ),
        ),
        ("S33", made.published(made.SOUND, publish=("insert",))),
        (
            "S33",
            made.published(
                made.SOUND,
                tables=(
                    Member("shop", "customers"),
                    Member("shop", "orders", rows="(id > 5)"),
                ),
            ),
        ),
        (
            "S33",
            made.published(
                made.SOUND,
                tables=(
                    Member("shop", "customers"),
                    Member("shop", "orders", columns=("id",)),
                ),
            ),
        ),
        ("S36", made.with_(service_tables=(ServiceTable(**made.BEATS, present=True),))),
        (
            "S36",
            made.with_(
                service_tables=(
                    ServiceTable(
                        **made.BEATS, present=True, published=True, lacks=("insert",), role="dbz"
                    ),
                )
            ),
        ),
        ("S37", made.with_(connectors=(), asked=Asked(connectors=("shop",)))),
        ("S39", made.connector(tasks=())),
        ("S39", made.connector(state="STOPPED", tasks=())),
        (
            "S40",
            made.with_(
                internal_topics=(
                    *made.SOUND.internal_topics[:1],
                    TopicRead(
                        name="connect-offsets", topic_id="c", policy="delete", ends={0: 5, 1: 0}
                    ),
                )
            ),
        ),
        ("S41", made.with_(topics=())),
    ],
)
def test_other_faces_of_a_state_are_named_too(state: str, now: Reading) -> None:
    assert state in ids(classify(now, made.BEFORE))


def test_a_table_that_was_dropped_is_not_left_out_of_the_publication() -> None:
    now = made.published(made.SOUND, tables=(Member("shop", "customers"),))
    now = made.with_(now, tables={"shop": ("shop.customers",)})
    assert "S33" not in ids(classify(now, made.BEFORE))


def test_the_worst_comes_first() -> None:
    """A lost slot of a stopped connector on a new timeline: the history is told first."""
    now = made.connector(made.with_(made.server(timeline=2), slots=()), state="STOPPED", tasks=())
    [verdict, *_] = classify(now, made.BEFORE).verdicts
    assert [one.state.id for one in verdict.findings] == ["S07", "S01", "S39"]


def test_a_slot_that_no_connector_reads_is_named_and_is_not_ours() -> None:
    orphan = SeenSlot(**{**vars(made.SLOT), "name": "reports", "active": False})
    found = classify(made.with_(slots=(made.SLOT, orphan)), made.BEFORE)
    assert ids(found) == ["S25"]
    assert any("not this pipeline's" in line for line in told.lines(found))
    ours = made.with_(made.SOUND, slots=(made.SLOT, orphan), asked=Asked(slot="reports"))
    assert all(verdict.own for verdict in classify(ours, made.BEFORE).verdicts)


def test_a_connector_of_another_server_is_not_judged() -> None:
    there = made.CONNECTOR.config | {"database.hostname": "elsewhere", "slot.name": "other"}
    other = made.CONNECTOR.model_copy(update={"name": "far", "own": False, "config": there})
    found = classify(made.with_(connectors=(made.CONNECTOR, other)), made.BEFORE)
    assert (ids(found), found.elsewhere) == ([], ("far",))


@pytest.mark.parametrize("part", list(Part))
def test_nothing_is_sound_that_was_not_read(part: Part) -> None:
    """Each part by itself: without it something is UNKNOWN, and no state is made up."""
    fields: dict[Part, dict[str, object]] = {
        Part.SERVER: {"server": None},
        Part.SLOTS: {"slots": ()},
        Part.PUBLICATIONS: {"publications": ()},
        Part.CONNECTORS: {"connectors": ()},
        Part.OFFSETS: {},
        Part.PLUGINS: {"worker": None},
        Part.TOPICS: {"topics": ()},
        Part.INTERNAL_TOPICS: {"internal_topics": ()},
    }
    changes = fields.get(part, {}) | {"unread": (Unread(part=part, why="no right"),)}
    now = made.SOUND.model_copy(update=changes)
    if part is Part.OFFSETS:
        now = made.connector(now, offsets=())
    found = classify(now, made.BEFORE)
    assert found.unknown
    assert UNKNOWN in [verdict.state for verdict in found.verdicts]
    assert not found.loses, told.facts(found)


def test_without_an_earlier_set_no_history_is_known() -> None:
    now = kept.with_histories(made.SOUND, None)
    found = classify(now, None)
    [verdict] = [verdict for verdict in found.verdicts if verdict.name == "shop"]
    assert verdict.state == UNKNOWN
    assert not found.loses


LSNS = st.integers(1, 20).map(Lsn)  # few, so that equal ones are met
HISTORIES = st.tuples(st.sampled_from(["7", "8"]), st.integers(1, 2))
SLOTS = st.builds(
    lambda **told: SeenSlot(**{**vars(made.SLOT), **told}),
    plugin=st.sampled_from(["pgoutput", "test_decoding"]),
    database=st.sampled_from(["shop", "other"]),
    active=st.booleans(),
    restart_lsn=st.none() | LSNS,
    confirmed_flush_lsn=st.none() | LSNS,
    wal_status=st.sampled_from(["reserved", "extended", "unreserved", "lost", None]),
    invalidation_reason=st.sampled_from([None, "wal_removed", "idle_timeout", "new"]),
    conflicting=st.sampled_from([None, False, True]),
)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    """A state with a slot, an offset and a server that may stand anyhow to each other."""
    system, timeline = draw(HISTORIES)
    now = made.server(system_identifier=system, timeline=timeline, flush_lsn=draw(LSNS))
    now = made.with_(now, slots=draw(st.lists(SLOTS, max_size=1).map(tuple)))
    told = draw(st.none() | st.fixed_dictionaries({"lsn_commit": LSNS.map(int)}))
    stored = (StoredOffset(partition={"server": "shop"}, offset=told),) if told else ()
    now = made.connector(now, offsets=stored, history=draw(HISTORIES) if stored else None)
    if draw(st.booleans()):
        now = made.connector(now, state="STOPPED", tasks=())
    unread = draw(st.lists(st.sampled_from(list(Part)), max_size=1))
    return made.with_(now, unread=tuple(Unread(part=part, why="why") for part in unread))


@given(readings(), st.none() | readings())
def test_whatever_is_read_has_one_answer(now: Reading, before: Reading | None) -> None:
    """Total and deterministic: an answer for everything, and the same through JSON."""
    found = classify(now, before)
    again = Reading.model_validate_json(now.model_dump_json())
    assert told.facts(classify(again, before)) == told.facts(found)
    assert list(told.lines(found))
    if now.unread and not found.loses:
        assert found.unknown


@st.composite
def sound_pairs(draw: st.DrawFn) -> Reading:
    """Only the positions vary, in their order: slot, offset, end of the WAL."""
    restart, confirmed, delivered, end = sorted(draw(st.tuples(LSNS, LSNS, LSNS, LSNS)))
    now = made.slot(restart_lsn=restart, confirmed_flush_lsn=confirmed, active=draw(st.booleans()))
    return made.offset(made.server(now, flush_lsn=end), lsn_commit=int(delivered))


@given(readings())
def test_a_pair_is_resumable_only_when_nothing_is_lost_foreign_or_unknown(now: Reading) -> None:
    """The definition of safe, written a second time as one condition."""
    [connector], server = now.connectors, now.server
    assume(not now.unread and server is not None)
    slot, delivered = next(iter(now.slots), None), connector.lsn
    safe = (
        slot is not None
        and server is not None
        and delivered is not None
        and connector.history == server.history
        and (slot.database, slot.plugin) == ("shop", "pgoutput")
        and slot.lost is None
        and slot.restart_lsn is not None
        and slot.confirmed_flush_lsn is not None
        and max(slot.restart_lsn, slot.confirmed_flush_lsn) <= delivered <= server.flush_lsn
    )
    assert _resumable(now, now) == safe


@given(readings())
def test_what_a_recovery_reads_again_for_is_no_sound_state(now: Reading) -> None:
    """What it decides by positions, and what the states say of them, is one judgement."""
    [connector] = now.connectors
    found = [need for need in of_offset(CONFIG, now, connector) if need.reread]
    [verdict] = [one for one in classify(now, now).verdicts if one.name == connector.name]
    named = verdict.findings or verdict.unknown
    assert named or not found, (found, told.facts(classify(now, now)))


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ({"lsn": 9, "lsn_commit": 7, "lsn_proc": 8}, 7),
        ({"lsn": 9, "lsn_proc": 8}, 8),
        ({"lsn": 9}, 9),
        ({"lsn": 9, "snapshot": "INITIAL"}, None),
        ({"lsn": 9, "snapshot": "INITIAL", "snapshot_completed": False}, None),
        ({"lsn": 9, "snapshot": "INITIAL", "snapshot_completed": True}, 9),
        ({"lsn": "9"}, 9),
        ({}, None),
    ],
)
def test_an_offset_counts_up_to_its_last_whole_transaction(
    offset: dict[str, object], expected: int | None
) -> None:
    assert StoredOffset(partition={}, offset=offset).lsn == expected


@given(sound_pairs(), HISTORIES)
def test_another_history_is_never_resumable(sound: Reading, other: tuple[str, int]) -> None:
    """Another timeline, another system identifier: however the LSNs compare."""
    assert _resumable(sound, sound)
    now = made.server(sound, system_identifier=other[0], timeline=other[1])
    assert _resumable(now, sound) == (other == made.HISTORY)


@given(sound_pairs(), LSNS)
def test_moving_an_offset_back_never_turns_sound_into_loss(sound: Reading, back: Lsn) -> None:
    """What an earlier set knows as delivered stays delivered; it can only come a second time."""
    assume(back <= (sound.connectors[0].lsn or 0))
    moved = made.offset(sound, lsn_commit=int(back))
    found = classify(moved, sound)
    lost = [f for v in found.verdicts for f in v.findings if f.gravity is Gravity.LOSES]
    assert not lost, told.facts(found)


@given(sound_pairs(), LSNS)
def test_moving_an_offset_forwards_over_the_server_is_always_loss(
    sound: Reading, further: Lsn
) -> None:
    assert sound.server is not None
    moved = made.offset(sound, lsn_commit=sound.server.flush_lsn + further)
    assert "S06" in ids(classify(moved, sound))


@given(readings(), LSNS)
def test_a_slot_further_ahead_never_mends_anything(now: Reading, further: Lsn) -> None:
    """Advancing a slot can only lose events."""
    if not now.slots or (now.slots[0].confirmed_flush_lsn or 0) > further:
        return
    if now.slots[0].confirmed_flush_lsn is None:
        return
    ahead = made.with_(now, slots=(replace(now.slots[0], confirmed_flush_lsn=further),))
    if _resumable(ahead, None):
        assert _resumable(now, None)


@given(readings(), readings(), st.sampled_from([(), ("shop",)]))
def test_a_history_is_handed_on_until_somebody_says_that_all_was_read_anew(
    now: Reading, before: Reading, reread: tuple[str, ...]
) -> None:
    [then], [late] = before.connectors, now.connectors
    assert now.server is not None
    [found] = kept.with_histories(now, before, reread=reread).connectors
    if not late.offsets:
        assert found.history is None
    elif then.offsets and not reread:
        assert found.history == then.history
    else:
        assert found.history == now.server.history


def _resumable(now: Reading, before: Reading | None) -> bool:
    """Whether streaming may go on from the offset, as far as positions tell."""
    pair = {"S01", "S02", "S03", "S04", "S06", "S07", "S08", "S13", "S16", "S18", "S19", "S20"}
    pair |= {"S21", "S22", "S23", "S24", "S31"}
    found = classify(now, before)
    [verdict] = [verdict for verdict in found.verdicts if verdict.name == "shop"]
    stored = now.connectors[0].lsn is not None
    return stored and not pair & {one.state.id for one in verdict.findings}


def test_a_set_of_before_a_recovery_is_compared_with_nothing(tmp_path: Path) -> None:
    """Topics and offsets that it tells of are no more; it must not pass for none either."""
    repository = BackupRepository(tmp_path)
    with pytest.raises(NoBackup, match="pipeline backup cdc"):
        compared_with(repository)
    kept.seal(repository.sets, made.SOUND)
    assert compared_with(repository) == made.SOUND
    Journal.new(tmp_path, "cdc").write("look", "done")
    with pytest.raises(NoBackup, match=r"since cdc-.* --reread CONNECTOR"):
        compared_with(repository)


def test_a_set_that_cannot_be_read_is_said_and_passed_over(tmp_path: Path) -> None:
    """Else no backup would ever follow it, for each hands on what the one before it noted."""
    repository = BackupRepository(tmp_path).sets
    kept.seal(repository, made.SOUND)
    other = kept.seal(repository, made.server(made.SOUND, timeline=5))
    (tmp_path / other.manifest.objects[0].key).write_bytes(b"{}")
    partly = Unread(part=Part.OFFSETS, name="shop", why="a time-out")
    kept.seal(repository, made.with_(made.SOUND, unread=(partly,)))
    said: list[str] = []
    assert kept.earlier(repository, said.append) == made.SOUND
    assert len(said) == 2
    assert other.label in said[1]
