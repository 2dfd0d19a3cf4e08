"""What is passed on as it is has bounds."""

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialects.bounds import (
    MAX_DEPTH,
    MAX_NAME,
    MAX_VALUES,
    check_count,
    check_marks,
    check_name,
    check_passed_on,
    check_range,
    read_cache_control,
)
from server.errors import RequestInvalid


def nest(depth: int, *, lists: bool) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("lists", [True, False])
def test_nesting_has_a_bound(lists: bool) -> None:
    check_passed_on(nest(MAX_DEPTH - 1, lists=lists), "x")
    for depth in (MAX_DEPTH, 500, 5000):
        with pytest.raises(RequestInvalid, match="x: nested too deeply"):
            check_passed_on(nest(depth, lists=lists), "x")


def test_what_passes_can_be_written_again() -> None:
    msgspec.json.encode(nest(MAX_DEPTH - 1, lists=False))


@pytest.mark.parametrize("value", [[0] * MAX_VALUES, {"a": [[]] * MAX_VALUES}])
def test_the_number_of_values_has_a_bound(value: object) -> None:
    with pytest.raises(RequestInvalid, match="x: more than"):
        check_passed_on(value, "x")


@pytest.mark.parametrize("filler", [b"{},", b"[],", b"0,", b'{"a":[', b",,"])
def test_a_body_of_too_many_values_is_refused_before_they_are_made(filler: bytes) -> None:
    check_marks(filler * 10, most=30)
    with pytest.raises(RequestInvalid, match="the body: more than 30 "):
        check_marks(filler * 31, most=30)


scalars = st.none() | st.integers() | st.text()


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_ordinary_json_passes(value: object) -> None:
    check_passed_on(value, "x")


def test_names_counts_and_ranges_within_their_bounds_pass() -> None:
    assert check_name(None, "x") is None
    assert check_name("n" * MAX_NAME, "x") == "n" * MAX_NAME
    check_count([1], 1, "x")
    check_count(None, 0, "x")
    check_range(None, 1, 1, "x")
    check_range(1, 1, 1, "x")


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (check_name, ("n" * (MAX_NAME + 1),)),
        (check_count, ([1, 2], 1)),
        (check_range, (2, 1, 1)),
        (check_range, (0, 1, 1)),
    ],
)
def test_what_is_too_large_is_named(check: Callable[..., object], arguments: tuple[object, ...]) -> None:
    with pytest.raises(RequestInvalid, match=r"^here: "):
        check(*arguments, "here")


@pytest.mark.parametrize("value", [None, {}])
def test_no_mark_is_none(value: object) -> None:
    assert read_cache_control(value, "x") is None


@pytest.mark.parametrize("value", [{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}])
def test_a_mark_is_passed_on_as_it_is(value: dict[str, object]) -> None:
    assert read_cache_control(value, "x") == value


@pytest.mark.parametrize(
    "value",
    [
        "ephemeral",
        [],
        {"ttl": "1h"},
        {"type": 1},
        {"type": "ephemeral", "ttl": {"a": 1}},
        {"type": "e" * 201},
        {"type": "ephemeral", **{str(number): "x" for number in range(8)}},
    ],
    ids=json.dumps,
)
def test_another_mark_is_refused(value: object) -> None:
    with pytest.raises(RequestInvalid, match=r"x\.cache_control"):
        read_cache_control(value, "x")
