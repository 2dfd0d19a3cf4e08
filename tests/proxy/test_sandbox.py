"""The sandbox's answers, read by the reader that reads them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from proxy.collected import Collected
from proxy.dialects.openai_chat.answer import open_reader
from proxy.events import ChatEvent, Finished, Usage
from proxy.media_file import BodyTail
from proxy.provider import UpstreamRequest
from proxy.sandbox import SECONDS_PER_WORD, SandboxExchange, SandboxTransport, play
from proxy.transport import Exchange
from tests.sounds import FileInMemory


def answer(*messages: Any, **rest: object) -> list[ChatEvent]:
    reader = open_reader("sandbox", "text/event-stream")
    body = json.dumps({"messages": messages, **rest}).encode()
    return [event for piece in play(body) for event in reader.feed(piece)] + reader.finish()


def text_of(events: list[ChatEvent]) -> str:
    collected = Collected()
    collected.add(events)
    return collected.text


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("words", ["Hello there", "  two  spaces \n and a line\n", "", "\u2028 odd \x0b"])
def test_it_says_what_it_is_and_repeats_the_last_user(words: str) -> None:
    events = answer(user("first"), {"role": "assistant", "content": "x"}, user(words), {"role": "tool", "content": "y"})
    assert text_of(events) == f"This is Cloche's sandbox, not a model. You said: {words}"
    assert Finished("stop") in events


def test_it_reads_parts_and_skips_what_is_no_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
    assert text_of(answer(user(parts))).endswith("You said: a b")


def test_it_stops_at_the_limit() -> None:
    events = answer(user("Hello"), max_completion_tokens=3)
    assert text_of(events) == "This is Cloche's"
    assert Finished("length") in events


def test_it_reports_usage_as_a_provider_does() -> None:
    [usage] = [event for event in answer(user("Hello, world!")) if isinstance(event, Usage)]
    assert usage.prompt_tokens == 4
    assert usage.completion_tokens > 10


class ElsewhereTransport:
    """The network, which is not to be used."""

    def __init__(self) -> None:
        self.requests: list[UpstreamRequest] = []

    @asynccontextmanager
    async def open_exchange(self, request: UpstreamRequest) -> AsyncIterator[Exchange]:
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        yield SandboxExchange(iter([b"from the network"]))


async def test_it_answers_a_word_at_a_time_and_then_ends(autojump_clock: MockClock) -> None:
    network = ElsewhereTransport()
    request = UpstreamRequest("sandbox://local/chat/completions", (), json.dumps({"messages": [user("Hi")]}).encode())
    started_at = trio.current_time()
    pieces = []
    async with SandboxTransport(network).open_exchange(request) as exchange:
        assert (exchange.status, exchange.headers["content-type"]) == (200, "text/event-stream")
        while piece := await exchange.receive_some():
            pieces.append(piece)
        assert await exchange.receive_some() == b""
    assert trio.current_time() - started_at == pytest.approx((len(pieces) + 2) * SECONDS_PER_WORD)
    assert network.requests == []


async def test_it_leaves_every_other_address_to_the_network() -> None:
    network = ElsewhereTransport()
    request = UpstreamRequest("https://api.test/", (), b"")
    async with SandboxTransport(network).open_exchange(request) as exchange:
        assert await exchange.receive_all(1000) == b"from the network"
    assert network.requests == [request]


async def test_it_answers_a_recording(autojump_clock: MockClock) -> None:
    request = UpstreamRequest("sandbox://local/audio/transcriptions", (), b"", tail=BodyTail(FileInMemory(b"123"), b""))
    async with SandboxTransport(ElsewhereTransport()).open_exchange(request) as exchange:
        assert exchange.headers["content-type"] == "application/json"
        assert "3 bytes of sound" in json.loads(await exchange.receive_all(1000))["text"]
