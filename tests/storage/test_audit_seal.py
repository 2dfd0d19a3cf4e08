"""What is sealed: no two rows have the same bytes, and PostgreSQL gives back what was sealed."""

import hashlib
import hmac
import itertools
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.audit_seal import (
    FIRST_SEAL,
    MAX_DETAILS_BYTES,
    MAX_TEXT,
    DetailsForeign,
    clean_details,
    clean_text,
    encode_details,
    read_details,
    seal_row,
)

SECRET = "only-for-tests-0123456789abcdef-0123456789"
KEYS = st.text(st.characters(), max_size=9)
"""Surrogates among them."""
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, ANYTHING, max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_postgresql_gives_back_what_was_sealed(owner_database_url: str, details: dict[str, Any]) -> None:
    cleaned = clean_details(details)
    with psycopg.connect(owner_database_url) as connection:
        (stored,) = connection.execute("SELECT %s::jsonb::text", [encode_details(cleaned)]).fetchone() or ("",)
    assert encode_details(read_details(stored)) == encode_details(cleaned)


def test_no_two_rows_have_the_same_seal() -> None:
    rows: list[list[object]] = [
        ["ab", "c"], ["a", "bc"], ["abc", ""], ["", "abc"], ["abc"], ["abc", None], ["abc", "null"], ['a","b', "c"],
        ["a", "b", "c"], ["a", 1], ["a", "1"], ["a", True], ["a", {"b": 1}], ["a", '{"b":1}'], ["a", ["b", 1]],
        ["a\\", "b"], ["é", "c"], ["\u00c3\u00a9", "c"],
    ]  # fmt: skip
    seals = [seal_row(SECRET, FIRST_SEAL, row) for row in rows]
    assert [(one, other) for one, other in itertools.combinations(seals, 2) if one == other] == []


def test_a_seal_depends_on_the_secret_and_on_the_seal_before() -> None:
    row = ["a"]
    seals = {seal_row(SECRET, FIRST_SEAL, row), seal_row("x", FIRST_SEAL, row), seal_row(SECRET, bytes(31) + b"x", row)}
    assert len(seals) == 3


def test_rows_are_sealed_as_they_always_were() -> None:
    """Whoever changes how they are written makes every log that exists unverifiable: a new VERSION is needed."""
    row: list[object] = ["eu", 1, "1795418418.783434", "sign_in", "success", 'user:"5"', None, "", "", "::1", "é", "r"]
    text = (
        '["cloche-audit-1","eu",1,"1795418418.783434","sign_in","success","user:\\"5\\"",null,"","","::1","é","r",'
        '{"a":"x","b":[1,true]}]'
    )
    expected = hmac.new(SECRET.encode(), bytes(32) + text.encode(), hashlib.sha256).digest()
    assert seal_row(SECRET, FIRST_SEAL, [*row, {"b": [1, True], "a": "x"}]) == expected


def test_the_order_of_keys_makes_no_difference() -> None:
    one, other = {"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}
    assert seal_row(SECRET, FIRST_SEAL, [one]) == seal_row(SECRET, FIRST_SEAL, [other])


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain é 😀", "plain é 😀"),
        ("a\x00b", "a\ufffdb"),
        ("a\ud800", "a\ufffd"),
        ("\udc80\udcff", "\ufffd\ufffd"),
        ("x" * (MAX_TEXT + 1), "x" * (MAX_TEXT - 1) + "…"),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
    ],
)
def test_text_is_made_storable_and_bounded(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        (True, True),
        (-(2**63), -(2**63)),
        (2**63, str(2**63)),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), str(UUID(int=1))),
        ((1, 2), [1, 2]),
        ({1: 2}, {"1": 2}),
    ],
)
def test_values_become_plain(value: object, cleaned: object) -> None:
    assert clean_details({"a": value}) == {"a": cleaned}


def test_details_are_bounded() -> None:
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    assert len(encode_details(clean_details({"a": deep}))) < MAX_DETAILS_BYTES
    assert len(clean_details({str(number): 1 for number in range(1000)})) == 50
    assert clean_details({str(number): "x" * 400 for number in range(40)}) == {"omitted_bytes": 16311}


@pytest.mark.parametrize("text", ["", "{", "1.0", '{"a": 1e400}', '{"a": [0.5]}', "[" * 9999 + "]" * 9999], ids=len)
def test_what_cannot_be_ours_is_refused(text: str) -> None:
    with pytest.raises(DetailsForeign):
        read_details(text)
