"""What a registry holds, as values: compared, ordered, merged, and sealed in a set."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.registry.schemas import (
    Inventory,
    RegisteredSchema,
    as_json,
    canonical,
    collisions,
    differences,
    in_order,
    of_json,
    unusable,
)


def schema(name: str, *fields: str, of: str = '"long"') -> str:
    told = ",".join(f'{{"name": "{field}", "type": {of}}}' for field in fields)
    return f'{{"type": "record", "name": "{name}", "fields": [{told}]}}'


ORDERS = RegisteredSchema("orders-value", 1, 1, schema("Order", "id"), "AVRO")
WIDER = RegisteredSchema("orders-value", 2, 2, schema("Order", "id", "total"), "AVRO")
BASKET = RegisteredSchema(
    "basket-value",
    1,
    3,
    schema("Basket", "first", of='"Order"'),
    "AVRO",
    ({"name": "Order", "subject": "orders-value", "version": 1},),
)
GONE = RegisteredSchema("gone-value", 1, 4, schema("Gone"), "AVRO", deleted=True)
SHOP = Inventory("READWRITE", "BACKWARD", {"orders-value": "FULL"}, (ORDERS, WIDER, BASKET, GONE))
SHOP = replace(SHOP, highest=6, registry="a registry", version="1")


def now(*schemas: RegisteredSchema, highest: int = 6) -> Inventory:
    return replace(SHOP, schemas=schemas, highest=highest)


def told(found: Inventory) -> dict[str, str]:
    return dict(differences(SHOP, found))


def test_what_was_added_under_new_ids_is_no_difference() -> None:
    newer = RegisteredSchema("new-value", 1, 7, schema("New"), "AVRO")
    assert told(now(*SHOP.schemas, newer, highest=7)) == {}
    spelt = replace(ORDERS, schema=json.dumps(json.loads(ORDERS.schema or ""), indent=2))
    assert told(now(spelt, WIDER, BASKET, GONE)) == {}


@pytest.mark.parametrize(
    ("changed", "subject", "says"),
    [
        ((WIDER, BASKET, GONE), "orders-value version 1", "it is gone"),
        ((replace(ORDERS, id=9), WIDER, BASKET, GONE), "orders-value version 1", "its id is 9"),
        (
            (replace(ORDERS, schema=schema("Other")), WIDER, BASKET, GONE),
            "orders-value version 1",
            "id 1 is another schema",
        ),
        (
            (ORDERS, WIDER, replace(BASKET, references=()), GONE),
            "basket-value version 1",
            "id 3 is another schema",
        ),
        ((ORDERS, WIDER, BASKET, replace(GONE, deleted=False)), "gone-value version 1", "risen"),
        ((ORDERS, replace(WIDER, deleted=True), BASKET, GONE), "orders-value version 2", "deleted"),
        (
            (*SHOP.schemas, RegisteredSchema("x", 1, 5, schema("X"), "AVRO")),
            "x version 1",
            "has id 5 and was not there",
        ),
    ],
)
def test_each_difference_is_told_by_its_version(
    changed: tuple[RegisteredSchema, ...], subject: str, says: str
) -> None:
    assert says in told(now(*changed))[subject]


@pytest.mark.parametrize(
    ("changes", "subject", "says"),
    [
        ({"mode": "IMPORT"}, "global mode", "mode is IMPORT, expected READWRITE"),
        ({"compatibility": "NONE"}, "global compatibility", "is NONE, expected BACKWARD"),
        ({"subject_compatibility": {}}, "orders-value", "is none of its own, expected FULL"),
        ({"subject_modes": {"orders-value": "READONLY"}}, "orders-value", "mode is READONLY"),
    ],
)
def test_settings_are_compared(changes: dict[str, Any], subject: str, says: str) -> None:
    assert says in told(replace(SHOP, **changes))[subject]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (replace(ORDERS, subject="a", schema=schema("A")), "id 1 is orders-value version 1"),
        (replace(ORDERS, subject="a", id=9), "the schema of orders-value version 1 has id 1"),
        (replace(ORDERS, id=9, schema=schema("A")), "and 9 there"),
    ],
)
def test_what_contradicts_is_not_merged(there: RegisteredSchema, says: str) -> None:
    (found,) = {one for one in collisions(SHOP, now(there)) if says in one}
    assert "in the backup" in found
    assert list(collisions(SHOP, SHOP)) == []
    assert list(collisions(SHOP, now(RegisteredSchema("n", 1, 9, schema("N"), "AVRO")))) == []


def test_a_schema_that_cannot_be_used_is_told() -> None:
    every = SHOP.named
    assert [unusable(one, every) for one in SHOP.schemas] == [None] * 4
    dangling = {named: one for named, one in every.items() if one is not ORDERS}
    assert unusable(BASKET, dangling) == "its reference to orders-value version 1 leads nowhere"
    assert "does not parse as AVRO" in str(unusable(replace(ORDERS, schema="{"), every))
    cart = replace(BASKET, subject="cart-value", schema=schema("Cart", "a", of='"Order"'))
    both = ({"subject": "basket-value", "version": 1}, {"subject": "cart-value", "version": 1})
    text = schema("Checkout", "basket", of='["Basket", "Cart"]')
    checkout = replace(BASKET, subject="checkout-value", schema=text, references=both)
    assert unusable(checkout, every | {cart.named: cart}) is None, "one schema by two ways"
    around = replace(ORDERS, references=({"subject": "basket-value", "version": 1},))
    assert "back to itself" in str(unusable(BASKET, every | {ORDERS.named: around}))


@given(st.permutations(SHOP.schemas))
def test_what_is_referred_to_comes_first(schemas: list[RegisteredSchema]) -> None:
    found = in_order(tuple(schemas))
    assert found.index(ORDERS) < found.index(BASKET)
    assert found.index(ORDERS) < found.index(WIDER)
    assert sorted(map(str, found)) == sorted(map(str, schemas))


@given(
    st.recursive(st.text(max_size=3), lambda of: st.dictionaries(st.text(max_size=3), of)),
    st.sampled_from([None, 1, 4]),
)
def test_a_canonical_form_does_not_hang_on_how_it_was_written(body: object, indent: int) -> None:
    assert canonical("JSON", json.dumps(body, indent=indent)) == canonical("JSON", json.dumps(body))


def test_an_edited_inventory_is_refused() -> None:
    assert of_json(as_json(SHOP)) == SHOP
    edited = as_json(SHOP).replace(b"Basket", b"Casket")
    with pytest.raises(ValueError, match="basket-value version 1: its fingerprint"):
        of_json(edited)
