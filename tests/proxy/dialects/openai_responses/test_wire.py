"""The shapes of the Responses API, as servers of many kinds write them."""

import msgspec
import pytest

from proxy.dialects.openai_responses.wire import decode_error, decode_event, decode_item, decode_response, decode_usage


def test_an_event_has_what_it_has() -> None:
    event = decode_event(b'{"type":"x","output_index":2,"item":{"a":1},"obfuscation":"zz","sequence_number":9}')
    assert (event.type, event.output_index, event.content_index) == ("x", 2, None)
    assert bytes(event.item) == b'{"a":1}'
    assert not event.part
    assert not event.error


def test_numbers_may_be_written_as_strings_or_with_a_point() -> None:
    usage = decode_usage(b'{"input_tokens":"7","output_tokens":8.0}')
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (7, 8)


def test_the_items_of_an_answer_wait_until_they_are_needed() -> None:
    response = decode_response(b'{"status":"completed","output":[{"type":7},null]}')
    assert [bytes(item) for item in response.output or ()] == [b'{"type":7}', b"null"]


def test_arguments_may_be_json_or_a_text() -> None:
    for written in (b'{"a":1}', b'"{}"', b"null"):
        assert bytes(decode_item(b'{"type":"function_call","arguments":' + written + b"}").arguments) == written


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"x","code":5}}', "x", 5),
        (b'{"error":"x","code":"c"}', "x", "c"),
        (b'{"message":"x","code":"c"}', "x", "c"),
    ],
)
def test_an_error_is_told_in_three_ways(body: bytes, message: str, code: str | int) -> None:
    told = decode_error(body)
    if isinstance(told.error, msgspec.Struct):
        assert (told.error.message, told.error.code) == (message, code)
    else:
        assert (told.error or told.message, told.code) == (message, code)
