"""Underscores in keys, wherever they hide; held against a reader that builds everything."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.relay.key_scan import has_underscored_key

texts = st.text(st.sampled_from('_a\\"u05fF:{ \n\u2028é'), max_size=8)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def has_one(value: Any) -> bool:
    if isinstance(value, dict):
        return any("_" in key for key in value) or any(map(has_one, value.values()))
    return isinstance(value, list) and any(map(has_one, value))


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_it_finds_what_a_whole_reader_finds(value: Any, escapes: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if escapes:
        text = text.replace("_", "\\u005f")
    assert has_underscored_key(text) == has_one(json.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        *('{"a_b":1}', '{"_":1}', '{"a_":{}}', '{"a":[{"b_c" \t\r\n : 1}]}', r'{"a\u005fb":1}', r'{"a\u005Fb":1}'),
        *(r'{"\"_":1}', r'{"\\\u005f":1}', r'{"a":"b_c","d_e":1}', '{"a":"x","b_":"\\\\"}'),
    ],
)
def test_a_key_with_an_underscore_is_found(text: str) -> None:
    json.loads(text)
    assert has_underscored_key(text)


@pytest.mark.parametrize(
    "text",
    [
        *('{"a":"b_c"}', '["_:"]', r'{"a":"\"_\":"}', r'{"a\\u005fb":1}', r'{"a\u005eb":1}', r'["\u005f"]'),
        *(r'{"a":"_\\"}', '{"a":"_","b":":"}', "{}", '"_"'),
    ],
)
def test_an_underscore_elsewhere_is_nobodys_business(text: str) -> None:
    json.loads(text)
    assert not has_underscored_key(text)


@pytest.mark.parametrize("piece", ["a_b ", r"\u005f ", r"\\u005f\" "])
def test_the_time_it_takes_grows_with_the_text_alone(piece: str) -> None:
    text = '["' + piece * 300_000 + '"]'
    began = time.process_time()
    assert not has_underscored_key(text)
    assert time.process_time() - began < 2
