"""One answer in all its events, for tests of the encoders."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from proxy.chat import ChatEvent, Completed, Finished, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, Usage
from proxy.collected import Collected
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
