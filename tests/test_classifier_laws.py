"""Laws of the classifier: what must hold for every history of operations."""

from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from fixtures.ledger import Classification, Found, Outcome, Survivor, classify
from fixtures.ledger.judge import RPA
from tests.ledger_cases import (
    KEYS,
    TABLE,
    Op,
    States,
    acknowledged,
    final,
    histories,
    ledger_of,
    op,
    rows,
    state,
)

OK_OR_INFO = frozenset({Outcome.OK, Outcome.INFO})


def judged(history: list[Op], states: States) -> Classification:
    with ledger_of(history) as ledger:
        return classify(ledger, {"postgres": rows(states)})


def damage(found: Classification) -> dict[str, int]:
    """Keys that are not sound, by class."""
    return {name: n for name, n in found.systems["postgres"].keys.items() if n and name != "sound"}


def sent(history: list[Op], outcome: Outcome) -> list[tuple[int, str]]:
    """Operations and keys whose write had that outcome."""
    numbered = enumerate(history, start=1)
    return [(n, key) for n, each in numbered if each.outcome is outcome for key in each.writes]


@given(histories)
def test_the_exact_final_state_is_sound(history: list[Op]) -> None:
    found = judged(history, final(history))
    assert damage(found) == {}
    assert found.joint.rows == 0
    assert (found.joint.seconds_to_oldest, found.joint.seconds_to_prefix) == (0.0, 0.0)


@given(histories)
def test_an_unknown_outcome_is_admissible_either_way(history: list[Op]) -> None:
    found = judged(history, final(history, OK_OR_INFO))
    assert damage(found) == {}


@given(acknowledged, st.sampled_from(KEYS))
def test_a_dropped_key_is_lost_once(history: list[Op], key: str) -> None:
    states = final(history)
    assume(states.get(key) is not None)
    assert damage(judged(history, states | {key: None})) == {Found.LOST: 1}


@given(acknowledged, st.data())
def test_an_earlier_acknowledged_state_is_stale_or_resurrected(
    history: list[Op], data: st.DataObject
) -> None:
    states = final(history)
    earlier = [(n, k) for n, k in sent(history, Outcome.OK) if state(n, k) != states[k]]
    assume(earlier)
    number, key = data.draw(st.sampled_from(earlier))
    name = Found.RESURRECTED if states[key] is None else Found.STALE
    assert damage(judged(history, states | {key: state(number, key)})) == {name: 1}


@given(histories, st.data())
def test_the_state_of_a_failed_operation_is_a_phantom(
    history: list[Op], data: st.DataObject
) -> None:
    failed = sent(history, Outcome.FAIL)
    assume(failed)
    number, key = data.draw(st.sampled_from(failed))
    found = judged(history, final(history) | {key: state(number, key)})
    assert damage(found) == {Found.PHANTOM: 1}
    assert found.joint.rows == 0


@given(histories)
def test_a_key_that_no_intent_names_is_a_phantom(history: list[Op]) -> None:
    found = judged(history, final(history) | {"stranger": "1-stranger"})
    assert damage(found) == {Found.PHANTOM: 1}


@given(histories, st.data())
def test_a_value_that_nobody_sent_is_corrupt(history: list[Op], data: st.DataObject) -> None:
    known = sorted({change.key for n, e in enumerate(history, 1) for change in e.changes(n)})
    assume(known)
    key = data.draw(st.sampled_from(known))
    assert damage(judged(history, final(history) | {key: "bits flipped"})) == {Found.CORRUPT: 1}


@given(histories)
def test_a_key_present_twice_is_corrupt(history: list[Op]) -> None:
    held = rows(final(history))
    assume(held)
    with ledger_of(history) as ledger:
        found = classify(ledger, {"postgres": [*held, held[0]]})
    assert damage(found) == {Found.CORRUPT: 1}


survivors = st.dictionaries(
    st.sampled_from([*KEYS, "stranger"]),
    st.builds(state, st.integers(1, 15), st.sampled_from(KEYS)),
)


@given(histories, survivors, survivors, st.integers(1, 400), st.randoms(use_true_random=False))
def test_order_and_number_of_buckets_do_not_matter(
    history: list[Op],
    one: dict[str, str],
    other: dict[str, str],
    size: int,
    rng: Random,
) -> None:
    shuffled = rows(dict(one))
    rng.shuffle(shuffled)
    with ledger_of(history) as ledger:
        plain = classify(ledger, {"postgres": rows(dict(one)), "topics": rows(dict(other))})
        again = classify(
            ledger, {"postgres": shuffled, "topics": rows(dict(other))}, bucket_bytes=size
        )
    assert plain.as_json() == again.as_json()


@given(histories, survivors, survivors)
def test_joint_loss_is_the_union(
    history: list[Op], one: dict[str, str], other: dict[str, str]
) -> None:
    with ledger_of(history) as ledger:
        found = classify(ledger, {"postgres": rows(dict(one)), "topics": rows(dict(other))})
    each = [loss.rows for loss in found.systems.values()]
    assert max(each) <= found.joint.rows <= sum(each)
    for loss in (*found.systems.values(), found.joint):
        assert (loss.rows == 0) <= (loss.seconds_to_oldest == loss.seconds_to_prefix == 0)
        assert loss.seconds_to_prefix >= loss.seconds_to_oldest


@given(histories, survivors)
def test_every_key_is_counted_once(history: list[Op], held: dict[str, str]) -> None:
    found = judged(history, dict(held))
    assert found.systems["postgres"].keys.total() == found.keys


@given(acknowledged, survivors, st.integers(0, 15), st.integers(0, 15))
def test_a_decision_never_hides_what_was_lost_before_the_fault(
    history: list[Op], held: dict[str, str], last_before: int, target: int
) -> None:
    """Keys whose last write was acknowledged before t0 are judged as without a decision."""
    settled = {
        key
        for key in KEYS
        if all(key not in each.writes | each.deletes for each in history[last_before:])
    }
    fault = 2.0 * last_before + 1.5
    with ledger_of(history) as ledger:
        decided = classify(
            ledger,
            {"postgres": rows(dict(held))},
            fault=fault,
            fenced=1e9,
            beyond=lambda operation: operation.number > target,
        )
        plain = classify(ledger, {"postgres": rows(dict(held))}, fault=fault, fenced=1e9)
    for name in RPA:
        assert keys_of(decided, name) & settled == keys_of(plain, name) & settled


@given(acknowledged, st.integers(0, 15))
def test_what_was_discarded_by_decision_is_not_loss(history: list[Op], target: int) -> None:
    """A server stopped exactly at the target holds all that anyone may expect of it."""
    fault = 2.0 * target + 1.5
    with ledger_of(history) as ledger:
        found = classify(
            ledger,
            {"postgres": rows(final(history[:target]))},
            fault=fault,
            fenced=1e9,
            beyond=lambda operation: operation.number > target,
        )
    assert damage(found) == {}
    late = history[target:]
    assert found.writes["discarded"] == sum(len(each.writes | each.deletes) for each in late)


def keys_of(found: Classification, name: Found) -> set[str]:
    return {damaged.key for damaged in found.damaged.get(name, [])}


def test_a_multi_row_transaction_is_counted_by_rows() -> None:
    found = judged([op("abc")], {})
    assert damage(found) == {Found.LOST: 3}
    assert found.acknowledged == 3
    assert found.operations["ok"] == 1


def test_survivors_of_another_table_are_phantoms() -> None:
    with ledger_of([op("a")]) as ledger:
        found = classify(
            ledger, {"postgres": [Survivor(TABLE, "a", "1-a"), Survivor("other", "a", "1-a")]}
        )
    assert damage(found) == {Found.PHANTOM: 1}
