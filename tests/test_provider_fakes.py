"""The scripts of the other dialects: what our readers make of them, and that they look like what the providers send."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.dialects import anthropic, gemini, openai_responses
from proxy.events import ChatEvent, Failed, Finished, ReasoningDelta, ReasoningSealed, TextDelta, ToolCallDelta, Usage
from proxy.provider import Reader
from proxy.sse import SseDecoder
from tests.fake_anthropic import anthropic_error, anthropic_stream
from tests.fake_google import google_error, google_stream
from tests.fake_responses import responses_stream
from tests.fakes import END_OF_CHUNKS, Pause, ScriptedToolCall, SendChunk, Step, open_fake_upstream
from tests.proxy.exchanges import read_exchanges
from tests.test_fakes import talk

Script = list[Step]
CALLS = (ScriptedToolCall("call_1", "weather", ['{"town":', '"Oslo"}']), ScriptedToolCall("call_2", "time", ["{}"]))
KINDS = ("anthropic", "google", "responses")
RICH: dict[str, Script] = {
    "anthropic": anthropic_stream(
        ["Hel", "lo"], usage=(7, 5), cache_read_tokens=3, cache_write_tokens=2, thinking=["Hm", "m"], tool_calls=CALLS
    ),
    "google": google_stream(
        ["Hel", "lo"], usage=(10, 5), cached_tokens=3, thought_tokens=4, thoughts=["Hm", "m"], tool_calls=CALLS
    ),
    "responses": responses_stream(
        ["Hel", "lo"], usage=(10, 9), cached_tokens=3, reasoning_tokens=4, reasoning=["Hm", "m"], tool_calls=CALLS
    ),
}
PLAIN: dict[str, Callable[..., Script]] = {
    "anthropic": anthropic_stream,
    "google": google_stream,
    "responses": responses_stream,
}
ERRORS: dict[str, Script] = {
    "anthropic": anthropic_stream(["Hel"], error=("overloaded_error", "Overloaded")),
    "google": google_stream(["Hel"], error=(503, "UNAVAILABLE", "The model is overloaded.")),
    "responses": responses_stream(["Hel"], error=("server_error", "The server had an error.")),
}


def open_reader(kind: str) -> Reader:
    media_type = "text/event-stream"
    if kind == "anthropic":
        return anthropic.open_reader(kind, media_type)
    if kind == "google":
        return gemini.open_reader(kind, media_type)
    return openai_responses.open_reader("openai", "openai-responses-v1", media_type)


def body_of(script: Iterable[Step]) -> bytes:
    return b"".join(step.data for step in script if isinstance(step, SendChunk))


def read(kind: str, script: Script) -> list[ChatEvent]:
    reader = open_reader(kind)
    return [*reader.feed(body_of(script)), *reader.finish()]


def text_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def last_usage(events: list[ChatEvent]) -> Usage:
    return [event for event in events if isinstance(event, Usage)][-1]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_come_piece_by_piece(kind: str) -> None:
    events = read(kind, PLAIN[kind](["Hel", "lo", " there"]))
    assert [event.text for event in events if isinstance(event, TextDelta) and event.text] == ["Hel", "lo", " there"]
    assert Finished("stop") in events


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_says_all_that_its_arguments_say(kind: str) -> None:
    events = read(kind, RICH[kind])
    assert text_of(events) == "Hello"
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "Hmm"
    assert Finished("tool_calls") in events
    calls: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            call = calls.setdefault(event.index, ["", "", ""])
            for place, value in enumerate((event.id, event.name, event.arguments)):
                call[place] += value or ""
    read_calls = [(id_, name, json.loads(arguments)) for id_, name, arguments in calls.values()]
    assert read_calls == [("call_1", "weather", {"town": "Oslo"}), ("call_2", "time", {})]


@pytest.mark.parametrize("kind", KINDS)
def test_thoughts_are_sealed(kind: str) -> None:
    """Google seals the call that followed from them."""
    events = read(kind, RICH[kind])
    seals = [event.signature or event.encrypted for event in events if isinstance(event, ReasoningSealed)]
    seals += [event.signature for event in events if isinstance(event, ToolCallDelta) and event.signature]
    assert len(seals) == 1


def test_usage_is_counted_as_each_provider_does() -> None:
    assert last_usage(read("anthropic", RICH["anthropic"])) == Usage(7, 3, 2, 5)
    assert last_usage(read("google", RICH["google"])) == Usage(7, 3, 0, 5, 4)
    assert last_usage(read("responses", RICH["responses"])) == Usage(7, 3, 0, 5, 4)


def test_google_may_report_nothing() -> None:
    assert not any(isinstance(event, Usage) for event in read("google", google_stream(["a"], usage=None)))


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("anthropic", anthropic_stream(["a"], stop_reason="max_tokens")),
        ("google", google_stream(["a"], finish_reason="MAX_TOKENS")),
        ("responses", responses_stream(["a"], incomplete_reason="max_output_tokens")),
    ],
)
def test_an_answer_may_be_cut_by_its_limit(kind: str, script: Script) -> None:
    assert Finished("length") in read(kind, script)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_may_end_in_an_error(kind: str) -> None:
    events = read(kind, ERRORS[kind])
    assert text_of(events) == "Hel"
    assert isinstance(events[-1], Failed)
    assert events[-1].code in {"provider_unavailable", "provider_internal_error"}


async def test_refusals_have_each_providers_shape() -> None:
    script = anthropic_error(529, "overloaded_error", "Overloaded", headers={"Retry-After": "3"})
    async with open_fake_upstream(script) as upstream:
        status, body = await talk(upstream)
    assert (status, json.loads(body)["error"]) == (529, {"type": "overloaded_error", "message": "Overloaded"})
    async with open_fake_upstream(google_error(429, "RESOURCE_EXHAUSTED", "Quota", retry_seconds=48.5)) as upstream:
        status, body = await talk(upstream)
    error = json.loads(body)["error"]
    assert (status, error["code"], error["status"]) == (429, 429, "RESOURCE_EXHAUSTED")
    assert error["details"][0]["retryDelay"] == "48.5s"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_goes_out_over_a_socket_is_the_same(kind: str) -> None:
    with trio.fail_after(5):
        async with open_fake_upstream(RICH[kind]) as upstream:
            assert await talk(upstream) == (200, body_of(RICH[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pause_comes_before_every_piece(kind: str) -> None:
    script = PLAIN[kind](["a", "b", "c"], pause_seconds=2)
    assert script.count(Pause(2)) == 3
    for place, step in enumerate(script):
        if step == Pause(2):
            after = script[place + 1]
            assert isinstance(after, SendChunk)
            assert text_of(read(kind, [after])) in {"a", "b", "c"}
    assert script[-1] == END_OF_CHUNKS


def test_only_google_ends_its_lines_with_crlf() -> None:
    assert body_of(RICH["google"]).count(b"\n") == body_of(RICH["google"]).count(b"\r\n")
    assert b"\r" not in body_of(RICH["anthropic"]) + body_of(RICH["responses"])


@pytest.mark.parametrize(
    ("kind", "folder", "endpoint"),
    [
        ("anthropic", "anthropic", "messages"),
        ("google", "google", "streamGenerateContent"),
        ("responses", "openai-responses", "responses"),
    ],
)
def test_every_field_of_a_script_is_one_that_the_provider_sends(
    kind: str, folder: str, endpoint: str, recordings: Path
) -> None:
    """And of every event the fields that it always has."""
    recorded: dict[str, list[set[str]]] = {}
    for exchange in read_exchanges(recordings, folder, endpoint):
        if exchange.is_stream and exchange.status == 200:
            for name, fields in described(exchange.body):
                recorded.setdefault(name, []).append(fields)
    for name, fields in [*described(body_of(RICH[kind])), *described(body_of(PLAIN[kind](["a"])))]:
        assert fields <= set().union(*recorded[name]), name
        assert {field for field in set.intersection(*recorded[name]) if "." not in field} <= fields, name


def described(body: bytes) -> Iterator[tuple[str, set[str]]]:
    """The type of each event, and the paths of its fields."""
    decoder = SseDecoder()
    for event in [*decoder.feed(body), *decoder.finish()]:
        value = json.loads(event.data)
        yield str(value.get("type", "")), set(paths(value))


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """Of a field in a thing that says its type, with that type; what a schema or a metadata holds is none of them."""
    if isinstance(value, list):
        for item in value:
            yield from paths(item, prefix)
    elif isinstance(value, dict):
        place = f"{prefix}({value['type']})." if prefix and "type" in value else prefix and f"{prefix}."
        for name, inner in value.items():
            yield f"{place}{name}"
            if name not in {"args", "input", "parameters"}:
                yield from paths(inner, f"{place}{name}")
