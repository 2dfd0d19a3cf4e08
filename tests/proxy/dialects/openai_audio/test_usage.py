"""Usage by tokens and by seconds, and what is none."""

import pytest

from proxy.dialects.openai_audio.usage import read_usage
from proxy.events import Usage
from proxy.tokens import DEFAULT, count_tokens

TEXT = "Hello, this is a test."


def read(reported: object) -> Usage | None:
    return read_usage(reported, TEXT, 10, DEFAULT)


def test_tokens_of_sound_and_of_text_are_told_apart() -> None:
    details = {"audio_tokens": 21, "text_tokens": 5}
    usage = {"type": "tokens", "input_tokens": 26, "output_tokens": 5, "input_token_details": details}
    assert read(usage) == Usage(input_tokens=5, output_tokens=5, input_audio_tokens=21)


def test_more_sound_than_there_is_input_is_cut_off() -> None:
    usage = {"input_tokens": 3, "output_tokens": 1, "input_token_details": {"audio_tokens": 100}}
    assert read(usage) == Usage(output_tokens=1, input_audio_tokens=3)


@pytest.mark.parametrize(("seconds", "tokens"), [(7, 70), (6.01, 70), (0.2, 10)])
def test_seconds_that_have_begun_are_tokens_and_the_text_is_counted(seconds: float, tokens: int) -> None:
    assert read({"type": "duration", "seconds": seconds}) == Usage(tokens, output_tokens=count_tokens(TEXT))


@pytest.mark.parametrize(
    "reported",
    [
        None,
        "7",
        [],
        {},
        {"type": "duration"},
        {"type": "duration", "seconds": 0},
        {"type": "duration", "seconds": -3},
        {"type": "duration", "seconds": 1e300},
        {"type": "duration", "seconds": "long"},
        {"input_tokens": -1, "output_tokens": -2},
        {"input_tokens": 10**15},
        {"input_tokens": {"a": 1}},
    ],
)
def test_what_is_no_usage_is_none(reported: object) -> None:
    assert read(reported) is None
