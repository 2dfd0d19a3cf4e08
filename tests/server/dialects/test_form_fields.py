"""The text fields of a form, as clients write them."""

import math

import pytest

from server.dialects.form_fields import check_no_control, read_flag, read_list, read_number, read_one, read_temperature
from server.errors import ArgumentInvalid, RequestInvalid


def test_a_field_is_trimmed_and_one_that_is_blank_is_absent() -> None:
    fields = {"said": ["  Hello "], "blank": [" \n"]}
    assert (read_one(fields, "said"), read_one(fields, "blank"), read_one(fields, "absent")) == ("Hello", None, None)


def test_a_field_that_comes_twice_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="model: once"):
        read_one({"model": ["a", "b"]}, "model")


def test_a_list_comes_under_either_of_its_names() -> None:
    assert read_list({"word[]": ["a", " "], "word": ["b "]}, "word") == ["b", "a"]
    with pytest.raises(ArgumentInvalid, match="word: at most 2"):
        read_list({"word[]": ["a", "b", "c"]}, "word", 2)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-inf", "1e999", "0x10", "1,5", "one", "1_000"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(ArgumentInvalid, match="count: a number"):
        read_number({"count": [text]}, "count")


def test_a_number_may_be_written_in_any_way_that_json_knows() -> None:
    found = [read_number({"count": [text]}, "count") for text in ("5", "-0.5", "1e3", "")]
    assert found[:3] == [5, -0.5, 1000]
    assert found[3] is None
    assert all(isinstance(one, float) and math.isfinite(one) for one in found[:3])


def test_a_temperature_has_three_decimals_and_a_bound() -> None:
    assert read_temperature({"temperature": ["0.12345"]}, 1) == 0.123
    with pytest.raises(ArgumentInvalid, match="from 0 to 2"):
        read_temperature({"temperature": ["2.001"]}, 2)


def test_a_flag_is_a_word() -> None:
    assert [read_flag({"stream": [text]}, "stream") for text in ("true", "TRUE", "1")] == [True] * 3
    assert [read_flag({"stream": [text]}, "stream") for text in ("false", "0", "")] == [False] * 3


def test_any_other_word_is_no_flag() -> None:
    with pytest.raises(ArgumentInvalid, match="stream: true or false"):
        read_flag({"stream": ["perhaps"]}, "stream")


def test_control_characters_are_refused_and_line_ends_are_not() -> None:
    assert check_no_control("a\tb\r\nc", "prompt") == "a\tb\r\nc"
    with pytest.raises(RequestInvalid, match="prompt"):
        check_no_control("a\x07", "prompt")
