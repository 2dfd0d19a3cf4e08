"""One answer in all its events, for tests of the encoders."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from proxy.chat import ProviderItem
from proxy.collected import Collected
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Citation,
    Completed,
    Finished,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.pricing import Price, Rates
from proxy.routing import Model
from proxy.sse import SseDecoder
from server.dialects.dialect import Answer, Encoder

REQUEST_ID = UUID("6b1f0000-0000-4000-8000-000000000000")
USAGE = Usage(input_tokens=60, cache_read_tokens=30, cache_write_tokens=10, output_tokens=20, reasoning_tokens=5)
COMPLETED = Completed(USAGE, "0.000120", provisional=False)
TOOL_CALL: list[ChatEvent] = [ToolCallDelta(0, "c1", "look", ""), ToolCallDelta(0, arguments='{"a":1}')]
EVERYTHING: list[ChatEvent] = [
    ReasoningDelta("Hm"),
    TextDelta("Hel"),
    TextDelta("lo"),
    RefusalDelta(" no"),
    *TOOL_CALL,
    USAGE,
    Finished("tool_calls"),
    COMPLETED,
]
RICH_USAGE = Usage(1, 2, 3, 4, 5, 6, 7, 8, 9, searches=10)
LOGPROB = {"token": "So", "logprob": -0.5, "bytes": [83, 111], "top_logprobs": []}
RICH: list[ChatEvent] = [
    ReasoningDelta("Hm", 3),
    ReasoningDelta("m", 3),
    ReasoningSealed(3, "anthropic-claude-v1", signature="seal"),
    ProviderItem("openai-responses-v1", {"type": "web_search_call", "id": "ws_1"}),
    ReasoningDelta("In short", 7, is_summary=True),
    ReasoningSealed(7, "openai-responses-v1", "rs_1", encrypted="sealed"),
    TextDelta("So"),
    Logprobs((LOGPROB,)),
    Citation("https://a.org", "A", 0, 2, "Said"),
    Citation("https://b.org"),
    Citation(title="Rules", start=1, end=2, cited_text="Thou", document_index=0),
    ImageDelta("image/png", "aGk="),
    AudioDelta(id="audio_1", transcript="So"),
    AudioDelta(data="aGlo", transcript=" be", id="audio_1"),
    AudioDelta(data="aG8=", expires_at=1_700_000_000),
    ToolCallDelta(0, "c1", "look", "", "call seal"),
    ToolCallDelta(0, arguments='{"a":1}'),
    RICH_USAGE,
    Finished("tool_calls"),
    Completed(RICH_USAGE, "0.000120", provisional=False),
]
"""Each kind of event but a failure; reasoning blocks numbered with gaps, as providers number them."""


def build_answer(*, include_usage: bool = False) -> Answer:
    rates = Rates(Decimal(1), Decimal(2), Decimal(1), Decimal(1))
    model = Model("openai/gpt-4.1-mini", "Mini", "openai", 1000, 100, Price(rates), True, {"openai": "gpt-4.1-mini"})
    return Answer(REQUEST_ID, "chatcmpl-1", model, 1_700_000_000, include_usage)


def read_stream(encoder: Encoder, events: Sequence[ChatEvent], *, batch: int = 1) -> list[tuple[str, Any]]:
    """Name and data of what goes out, for events that come `batch` at a time. `[DONE]` stays text."""
    data = encoder.open()
    for start in range(0, len(events), batch):
        data += encoder.encode(list(events[start : start + batch]))
    decoded = SseDecoder().feed(data)
    return [(event.name, _parse(event.data)) for event in decoded]


def collect(events: Sequence[ChatEvent]) -> Collected:
    collected = Collected()
    collected.add(list(events))
    return collected


def _parse(data: bytes) -> Any:
    return "[DONE]" if data == b"[DONE]" else json.loads(data, parse_float=Decimal)
