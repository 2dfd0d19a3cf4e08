"""`chat.completion.chunk` objects, which both dialects send. What does not change in a stream is encoded once."""

from collections.abc import Mapping

import msgspec

from proxy.chat import ToolCallDelta, Usage
from proxy.sse import encode_event

_encode = msgspec.json.encode


class ChunkWriter:
    """Writes the chunks of one stream as server-sent events."""

    def __init__(self, answer_id: str, model: str, created: int) -> None:
        head = _encode({"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": model})
        self._head = head[:-1]
        self._text_start = b"data: " + self._head + b',"choices":[{"index":0,"delta":{"content":'
        self._text_end = b'},"finish_reason":null}]}\n\n'

    def text(self, text: str) -> bytes:
        """The hot path: one chunk a token."""
        return self._text_start + _encode(text) + self._text_end

    def delta(self, delta: Mapping[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return encode_event(self._head + b',"choices":' + _encode([choice]) + b"}")

    def usage(self, usage: Mapping[str, object]) -> bytes:
        """The chunk after the last, without choices."""
        return encode_event(self._head + b',"choices":[],"usage":' + _encode(usage) + b"}")


def tool_call_delta(call: ToolCallDelta) -> dict[str, object]:
    """A delta for one piece of a tool call; id, type and name come with the first alone."""
    function: dict[str, object] = {"arguments": call.arguments}
    piece: dict[str, object] = {"index": call.index, "function": function}
    if call.name is not None:
        function["name"] = call.name
    if call.id is not None:
        piece |= {"id": call.id, "type": "function"}
    return {"tool_calls": [piece]}


def snake_case_usage(usage: Usage) -> dict[str, object]:
    """Usage as OpenAI writes it: cached and reasoning tokens are parts of the totals."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
