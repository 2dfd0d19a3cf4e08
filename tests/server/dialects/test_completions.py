"""Whole answers are of the types that describe them: no member more, and none less."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given

from proxy.events import ChatEvent, Finished, TextDelta
from server.dialects import openai, shipped
from server.dialects.completions import ChatAnswer, ChatCompletion
from server.operations import encode_answer
from tests.server.dialects.answers import COMPLETED, EVERYTHING, RICH, build_answer, collect
from tests.server.dialects.test_streamed_is_whole import answers


def check(type_: Any, body: bytes) -> None:
    """What is decoded and encoded again is what it was, so nothing was passed over and nothing added."""
    assert json.loads(encode_answer(msgspec.json.decode(body, type=type_))) == json.loads(body)


@given(answers())
@example(RICH)
@example(EVERYTHING)
@example([TextDelta("So"), Finished("error"), COMPLETED])
@example([Finished("stop")])
def test_in_openais_dialect(events: list[ChatEvent]) -> None:
    check(ChatCompletion, openai.encode_whole(build_answer(), collect(events)))


@given(answers())
@example(RICH)
@example(EVERYTHING)
@example([TextDelta("So"), Finished("error"), COMPLETED])
@example([Finished("stop")])
def test_in_the_shipped_dialect(events: list[ChatEvent]) -> None:
    check(ChatAnswer, shipped.encode_whole(build_answer(), collect(events)))


def test_the_check_sees_what_no_type_tells_of() -> None:
    answer = json.loads(shipped.encode_whole(build_answer(), collect(RICH)))
    with pytest.raises(AssertionError):
        check(ChatAnswer, json.dumps(answer | {"more": 1}).encode())
    answer["choices"][0]["message"]["annotations"][0]["url_citation"]["more"] = 1
    with pytest.raises(AssertionError):
        check(ChatAnswer, json.dumps(answer).encode())
