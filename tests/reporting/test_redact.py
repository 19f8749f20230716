"""Secrets: gone in every form in which they travel, and nothing else with them."""

import base64
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.reporting.redact import MARK, redact, redact_all

SECRET = "p&ss word/7Qz?~>Ω"  # noqa: S105 - made up


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        quote_plus(SECRET),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_form_is_redacted(text: str) -> None:
    told = redact(f"before {text} after", [SECRET])
    assert told.startswith(f"before {MARK}")
    assert text not in told
    assert told.endswith(" after")


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_base64_is_redacted_whatever_stands_around(before: bytes, after: bytes) -> None:
    """A basic-auth header is the base64 of user:password: the secret sits at any alignment."""
    encoded = base64.b64encode(before + SECRET.encode() + after).decode()
    assert MARK in redact(encoded, [SECRET])


def test_carriers_are_redacted_even_where_nobody_named_the_secret() -> None:
    told = redact("psql postgres://u:hush@h/d password=hush, sslpassword = hush", [])
    assert "hush" not in told
    assert "postgres://u:" in told


def test_other_text_and_numbers_stay() -> None:
    value = {"rows": 17, "told": "17 rows of shop.orders", "nested": [SECRET, 1.5, None]}
    clean = {"rows": 17, "told": "17 rows of shop.orders", "nested": [MARK, 1.5, None]}
    assert redact_all(value, [SECRET, ""]) == clean
