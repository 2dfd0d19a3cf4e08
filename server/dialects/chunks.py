"""`chat.completion.chunk` objects, which both dialects send. What does not change in a stream is encoded once."""

from collections.abc import Mapping

import msgspec

from proxy.events import Completed, Usage
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

    def delta(
        self, delta: Mapping[str, object], finish_reason: str | None = None, **others: object
    ) -> bytes:
        """`others` are further members of the choice."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **others}
        return encode_event(self._head + b',"choices":' + _encode([choice]) + b"}")

    def usage(self, usage: Mapping[str, object]) -> bytes:
        """The chunk after the last, without choices."""
        return encode_event(self._head + b',"choices":[],"usage":' + _encode(usage) + b"}")


def snake_case_usage(completed: Completed) -> dict[str, object]:
    """Usage as OpenAI writes it: cached, reasoning and media tokens are parts of the totals.

    `cost` is the very charge, as OpenRouter tells it: https://openrouter.ai/docs/use-cases/usage-accounting.
    """
    usage = completed.usage
    searches = {"server_tool_use": {"web_search_requests": usage.searches}} if usage.searches else {}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": cache_write_tokens(usage),
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "image_tokens": usage.output_image_tokens,
        },
        **searches,
        "cost": msgspec.Raw(completed.cost_usd.encode()),
    }


def cache_write_tokens(usage: Usage) -> int:
    """Of both lifetimes, which clients don't tell apart."""
    return usage.cache_write_tokens + usage.cache_write_1h_tokens
