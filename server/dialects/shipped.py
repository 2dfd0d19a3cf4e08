"""The dialect of the shipped desktop and iOS clients: `/api/llm`. Pure.

Any event name that the desktop does not know it takes for a chunk, and fails; so there are exactly these: none (a
chunk), `stream_started`, `usage_update`, `stream_completed`, `stream_cancelled`, `error_details`. Silence is filled
with comments.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from proxy.chat import WebSearch
from proxy.collected import Collected
from proxy.errors import UsageOutOfBounds
from proxy.events import (
    Cancelled,
    ChatEvent,
    Citation,
    Completed,
    Failed,
    Finished,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.pricing import cost_usd
from proxy.sse import encode_event
from server.dialects.chunks import ChunkWriter, cache_write_tokens
from server.dialects.dialect import Answer, Decoded, Dialect
from server.dialects.options import WireOptions, check_text, decode_body, read_request
from server.dialects.pieces import DeltaWriter, message_pieces, tool_call_delta
from server.errors import CANCELLED, Problem, envelope, error_details

USAGE_UPDATE_SECONDS = 1.0
FILTERED = Failed(
    "content_filter",
    "the provider's content filter blocked the prompt or all of the answer; say it in other words",
    provider="",  # the answer does not tell which one it was
)

_KNOWN_PIECES = ("tool_calls", "annotations", "document_citations")
"""The first is theirs; they pass over the others, which later clients may read."""
_WEB_TASKS = frozenset({"web_search_execution", "implementation_plan_with_web"})

_encode = msgspec.json.encode


class ChatWish(WireOptions):
    """A chat. A member that is null counts as absent. `request_id` is an idempotency key of yours, as the header
    `Idempotency-Key` is, which comes before it; `task_type` says what the call is for, in the history of usage.
    """

    request_id: str | None = None
    task_type: str | None = None


def decode(body: bytes) -> Decoded:
    """Raises RequestInvalid."""
    wire = decode_body(body, ChatWish)
    request = read_request(wire)
    task_type = check_text(wire.task_type, "task_type") or "general"
    if task_type in _WEB_TASKS and request.web_search is None:
        request = replace(request, web_search=WebSearch())
    key = check_text(wire.request_id, "request_id")
    return Decoded(replace(request, task_type=task_type, idempotency_key=key), bool(wire.stream))


class ShippedEncoder:
    """Encodes one stream. `clock` only spaces the usage updates."""

    def __init__(self, answer: Answer, clock: Callable[[], float] = time.monotonic) -> None:
        self._answer = answer
        self._clock = clock
        self._chunks = ChunkWriter(answer.answer_id, answer.model.id, answer.created)
        self._deltas = DeltaWriter()
        self._next_update = clock() + USAGE_UPDATE_SECONDS
        self._has_ended = False
        self._has_said = False
        self._was_filtered = False

    def open(self) -> bytes:
        return self._event("stream_started", {})

    def encode(self, events: list[ChatEvent]) -> bytes:
        if len(events) == 1 and isinstance(events[0], TextDelta):
            data = self._say(events[0].text)
        else:
            data = b"".join([self._encode_one(event) for event in events])
        return data if self._clock() < self._next_update or self._has_ended else data + self._update()

    def _encode_one(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta(text) | RefusalDelta(text):
                return self._say(text)
            case ToolCallDelta():
                self._has_said = True
                return self._chunks.delta(tool_call_delta(event))
            case Finished(reason):
                self._was_filtered = reason == "content_filter"
                return self._chunks.delta({}, reason)
            case Completed():
                self._has_ended = True
                return self._complete(event)
            case Cancelled():
                self._has_ended = True
                return self._update_finally(event) + self._event("stream_cancelled", _cancellation(event))
            case Failed():
                self._has_ended = True
                return self._event("error_details", {"error": error_details(event)})
            case Citation():
                return self._chunks.delta({"content": "", **(self._deltas.build(event) or {})})
        return b""  # usage has a rhythm of its own; for reasoning, seals, images, sound these clients have no place

    def _say(self, text: str) -> bytes:
        self._has_said = self._has_said or bool(text)
        return self._chunks.text(text)

    def _update(self) -> bytes:
        """What the desktop's progress bar goes by, and its running cost."""
        self._next_update = self._clock() + USAGE_UPDATE_SECONDS
        usage = self._answer.usage_so_far()
        try:
            cost = cost_usd(self._answer.model.price, usage)
        except UsageOutOfBounds:
            return b""  # the settlement deals with it
        return self._event("usage_update", _usage_update(usage, str(cost), False))

    def _complete(self, completed: Completed) -> bytes:
        """An answer that a filter left nothing of is told as an error: an empty one would look as if it were meant."""
        update = self._update_finally(completed)
        if self._was_filtered and not self._has_said:
            return update + self._event("error_details", {"error": error_details(FILTERED)})
        return update + self._event("stream_completed", _completion(completed))

    def _update_finally(self, ended: Completed | Cancelled) -> bytes:
        return self._event("usage_update", _usage_update(ended.usage, ended.cost_usd, True))

    def _event(self, name: str, data: Mapping[str, object]) -> bytes:
        return encode_event(_encode({"requestId": str(self._answer.request_id), **data}), name)


def encode_whole(answer: Answer, collected: Collected) -> bytes:
    """Usage in camelCase inside a snake_case object, content never null: that is what the clients decode."""
    message: dict[str, object] = {"role": "assistant", "content": collected.said}
    pieces = message_pieces(collected)
    message |= {name: pieces[name] for name in _KNOWN_PIECES if name in pieces}
    body: dict[str, Any] = {
        "id": answer.answer_id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model.id,
        "choices": [{"index": 0, "message": message, "finish_reason": collected.finish_reason}],
    }
    if isinstance(collected.ended, Completed):
        body["usage"] = _camel_case_usage(collected.ended)
    return _encode(body)


def encode_problem(problem: Problem) -> bytes:
    return _encode(envelope(problem))


def _usage_update(usage: Usage, cost: str, is_final: bool) -> dict[str, object]:
    return {
        "tokensInput": usage.prompt_tokens,
        "tokensOutput": usage.completion_tokens,
        "cacheReadTokens": usage.cache_read_tokens,
        "cacheWriteTokens": cache_write_tokens(usage),
        "estimatedCost": msgspec.Raw(cost.encode()),
        "tokensTotal": usage.prompt_tokens + usage.completion_tokens,
        "isFinal": is_final,
    }


def _cancellation(cancelled: Cancelled) -> dict[str, object]:
    """The clients know the reason; the figures are for those to come."""
    return {"reason": CANCELLED, **_completion(cancelled)}


def _completion(ended: Completed | Cancelled) -> dict[str, object]:
    usage = ended.usage
    return {
        "finalCost": msgspec.Raw(ended.cost_usd.encode()),
        "tokensInput": usage.prompt_tokens,
        "tokensOutput": usage.completion_tokens,
        "cacheReadTokens": usage.cache_read_tokens,
        "cacheWriteTokens": cache_write_tokens(usage),
    }


def _camel_case_usage(completed: Completed) -> dict[str, object]:
    usage = completed.usage
    return {
        "promptTokens": usage.prompt_tokens,
        "completionTokens": usage.completion_tokens,
        "totalTokens": usage.prompt_tokens + usage.completion_tokens,
        "cost": msgspec.Raw(completed.cost_usd.encode()),
        "cachedInputTokens": usage.cache_read_tokens,
        "cacheWriteTokens": cache_write_tokens(usage),
        "cacheReadTokens": usage.cache_read_tokens,
    }


DIALECT = Dialect(
    answers_at_once=True,
    decode=decode,
    open_encoder=ShippedEncoder,
    encode_whole=encode_whole,
    encode_problem=encode_problem,
)
