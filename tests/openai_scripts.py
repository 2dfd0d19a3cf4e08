"""Scripts for a FakeUpstream in OpenAI's dialect: https://platform.openai.com/docs/api-reference/chat."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.fake_upstream import END_OF_CHUNKS, Pause, SendChunk, Step, response, sse_chunk, stream_head


@dataclass(frozen=True, slots=True)
class ScriptedToolCall:
    """A call to a tool; the arguments come in these pieces."""

    id: str
    name: str
    arguments: Sequence[str]


def openai_stream(
    deltas: Sequence[str],
    *,
    usage: tuple[int, int] | None = None,
    cached_tokens: int = 0,
    model: str = "gpt-4o-mini",
    finish_reason: str | None = None,
    tool_calls: Sequence[ScriptedToolCall] = (),
    pause_seconds: float = 0,
) -> list[Step]:
    """An answer in OpenAI's streaming dialect, as with `include_usage` if there is a usage of (prompt, completion); the
    prompt holds what was cached.

    Chunk 1 carries the role, chunks 2 to N+1 a delta each; a pause comes before each delta.
    """
    reason = finish_reason or ("tool_calls" if tool_calls else "stop")
    steps: list[Step] = [stream_head(), _openai_chunk(model, {"role": "assistant", "content": ""})]
    parts: list[Mapping[str, object]] = [{"content": text} for text in deltas]
    for delta in [*parts, *_tool_call_deltas(tool_calls)]:
        steps += [Pause(pause_seconds)] if pause_seconds else []
        steps.append(_openai_chunk(model, delta))
    steps.append(_openai_chunk(model, {}, reason))
    if usage is not None:
        counted = _openai_usage(usage, cached_tokens)
        steps.append(sse_chunk({**_openai_envelope(model), "choices": [], "usage": counted}))
    return [*steps, SendChunk(b"data: [DONE]\n\n"), END_OF_CHUNKS]


def openai_whole(
    text: str,
    *,
    usage: tuple[int, int] = (1, 1),
    model: str = "gpt-4o-mini",
    finish_reason: str = "stop",
) -> list[Step]:
    """An answer of OpenAI that is not streamed."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    body = {**_openai_envelope(model, "chat.completion"), "choices": [choice], "usage": _openai_usage(usage)}
    return response(200, json.dumps(body).encode())


def openai_error(
    status: int,
    error_type: str,
    code: str | None,
    message: str,
    *,
    headers: Mapping[str, str] | None = None,
) -> list[Step]:
    """A refusal of OpenAI; `headers` for a Retry-After."""
    error = {"message": message, "type": error_type, "param": None, "code": code}
    return response(status, json.dumps({"error": error}).encode(), headers)


def _openai_chunk(model: str, delta: Mapping[str, object], finish_reason: str | None = None) -> SendChunk:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return sse_chunk({**_openai_envelope(model), "choices": [choice], "usage": None})


def _openai_envelope(model: str, kind: str = "chat.completion.chunk") -> dict[str, object]:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 1763850000, "model": model}


def _openai_usage(usage: tuple[int, int], cached_tokens: int = 0) -> dict[str, object]:
    prompt, completion = usage
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _tool_call_deltas(calls: Sequence[ScriptedToolCall]) -> Iterator[dict[str, object]]:
    """The id and the name come once, with no arguments yet; later pieces are known by their index."""
    for index, call in enumerate(calls):
        first = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        yield {"tool_calls": [first]}
        for piece in call.arguments:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
