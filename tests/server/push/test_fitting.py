"""Data cut to what a push may hold, and ids by which pushes replace each other."""

from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.push.fitting import (
    MAX_COLLAPSE_ID_BYTES,
    MAX_DEPTH,
    MIN_STRING_BYTES,
    OPENED_BY,
    build_collapse_id,
    cut_text,
    fit_strings,
    measure_json,
)

NOTIFICATION = UUID("5b0e0000-0000-4000-8000-000000000001")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=10,
)


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_fits_stays_as_it_is() -> None:
    data = {"type": "job_failed", "jobId": "j", "n": [1, {"deep": None}]}
    assert fit_strings(data, measure_json(data)) == data


def test_the_longest_strings_are_cut_and_the_short_ones_stay_whole() -> None:
    data = {"type": "job_failed", "errorMessage": "e" * 5000, "projectDirectory": "/home/" + "p" * 200}
    fitted = fit_strings(data, 1000)
    assert fitted["type"] == "job_failed"
    assert fitted["projectDirectory"] == data["projectDirectory"]
    assert fitted["errorMessage"].startswith("eee")
    assert fitted["errorMessage"].endswith("…")
    assert measure_json(fitted) == 1000


def test_several_long_strings_are_cut_to_one_length_also_deep_inside() -> None:
    fitted = fit_strings({"a": "a" * 3000, "b": [{"c": "c" * 2000}]}, 1000)
    assert len(fitted["a"]) == len(fitted["b"][0]["c"])
    assert 998 <= measure_json(fitted) <= 1000


def test_members_are_left_out_the_largest_first_if_cutting_is_not_enough() -> None:
    data = {"jobId": "j-1", "numbers": list(range(2000)), "few": list(range(300)), "text": "t" * 3000}
    fitted = fit_strings(data, 1500)
    assert list(fitted) == ["jobId", "few", "text"]
    assert 1498 <= measure_json(fitted) <= 1500
    assert list(fit_strings(data, 200)) == ["jobId", "text"]


def test_strings_that_apps_decide_by_are_never_cut() -> None:
    data = {str(number): "x" * MIN_STRING_BYTES for number in range(100)}
    assert set(fit_strings(data, 2000).values()) == {"x" * MIN_STRING_BYTES}


def test_what_is_nested_too_deep_is_left_out() -> None:
    data = {"fine": nest(MAX_DEPTH), "deep": nest(MAX_DEPTH + 1), "deeper": nest(5000)}
    assert list(fit_strings(data, 4096)) == ["fine"]


def test_nothing_fits_into_nothing() -> None:
    assert fit_strings({"a": "b"}, 2) == {}


@given(st.dictionaries(texts, values, max_size=6), st.integers(2, 600))
@settings(max_examples=60)
def test_it_always_fits_and_is_cut_the_same_each_time(data: dict[str, Any], limit_bytes: int) -> None:
    fitted = fit_strings(data, limit_bytes)
    assert measure_json(fitted) <= limit_bytes
    assert msgspec.json.decode(msgspec.json.encode(fitted)) == fitted
    assert fit_strings(data, limit_bytes) == fitted == fit_strings(fitted, limit_bytes)
    assert list(fitted) == [name for name in data if name in fitted]


@pytest.mark.parametrize(
    ("text", "max_bytes", "cut"),
    [("abcdef", 6, "abcdef"), ("abcdefg", 6, "abc…"), ("ääää", 7, "ää…"), ("😀😀", 7, "😀…"), ("😀😀", 6, "…")],
)
def test_no_character_is_cut_in_two(text: str, max_bytes: int, cut: str) -> None:
    assert cut_text(text, max_bytes) == cut


def test_a_collapse_id_is_the_kind_and_the_job() -> None:
    assert build_collapse_id("job_completed", "j-1", NOTIFICATION) == "job_completed:j-1"
    assert build_collapse_id("job_completed", "x" * 50, NOTIFICATION) == "job_completed:" + "x" * 50


def test_a_notification_of_no_job_has_a_collapse_id_of_its_own() -> None:
    assert build_collapse_id("test", None, NOTIFICATION) == f"test:{NOTIFICATION}"


@pytest.mark.parametrize("job_id", ["x" * 51, "a\r\nb", "ä", "\0", "j ", "\x7f", "😀" * 60])
def test_what_no_header_can_hold_is_told_by_a_digest(job_id: str) -> None:
    found = build_collapse_id("job_completed", job_id, NOTIFICATION)
    assert found.startswith("job_completed:")
    assert len(found.encode()) <= MAX_COLLAPSE_ID_BYTES
    assert found.isascii()
    assert found.isprintable()
    assert found != build_collapse_id("job_completed", job_id + "x", NOTIFICATION)


def test_long_ids_that_begin_alike_stay_different() -> None:
    found = {build_collapse_id("job_completed", "x" * 300 + str(number), NOTIFICATION) for number in range(50)}
    assert len(found) == 50


def test_what_is_spared_stays_whole_and_the_rest_makes_room() -> None:
    small: dict[str, Any] = {f"k{number}": number for number in range(300)}
    data = small | {"type": "job_completed", "jobId": "j" * 200, "log": "l" * 3000}
    fitted = fit_strings(data, 1000, OPENED_BY)
    assert (fitted["type"], fitted["jobId"]) == (data["type"], data["jobId"])
    assert measure_json(fitted) <= 1000


def test_what_is_spared_is_cut_as_well_if_it_does_not_fit_for_itself() -> None:
    data = {"type": "job_failed", "jobId": "j-1", "projectDirectory": "/" + "p" * 3000}
    fitted = fit_strings(data, 1000, OPENED_BY)
    assert (fitted["type"], fitted["jobId"], fitted["projectDirectory"][:3]) == ("job_failed", "j-1", "/pp")
    assert measure_json(fitted) == 1000


@given(st.dictionaries(texts | st.sampled_from(OPENED_BY), values, max_size=6), st.integers(2, 600))
@settings(max_examples=60)
def test_what_is_spared_never_makes_it_too_large(data: dict[str, Any], limit_bytes: int) -> None:
    fitted = fit_strings(data, limit_bytes, OPENED_BY)
    assert measure_json(fitted) <= limit_bytes
    assert list(fitted) == [name for name in data if name in fitted]
