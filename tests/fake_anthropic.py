"""Scripts for a FakeUpstream in Anthropic's dialect: https://platform.claude.com/docs/en/build-with-claude/streaming."""

import json
from collections.abc import Iterator, Mapping, Sequence

from tests.fake_upstream import END_OF_CHUNKS, Pause, SendChunk, Step, response, stream_head
from tests.openai_scripts import ScriptedToolCall


def anthropic_stream(
    pieces: Sequence[str],
    *,
    usage: tuple[int, int] = (1, 1),
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
    thinking: Sequence[str] = (),
    signature: str = "c2NyaXB0ZWQ=",
    tool_calls: Sequence[ScriptedToolCall] = (),
    stop_reason: str | None = None,
    error: tuple[str, str] | None = None,
    model: str = "claude-sonnet-4-5-20250929",
    pause_seconds: float = 0,
) -> list[Step]:
    """An answer of the Messages API. `usage` is uncached input and output, which holds what was thought.

    Every event is a chunk; the first two are `message_start` and a ping. A block's start, a chunk for every piece and
    its end follow; a pause comes before each piece. With an `error` of (type, message) the stream ends in that.
    """
    counted = _usage(usage, cache_read_tokens, cache_write_tokens)
    steps: list[Step] = [stream_head(), _event(_message_start(model, counted)), _event({"type": "ping"})]
    for event in _blocks(pieces, thinking, signature, tool_calls):
        if pause_seconds and event["type"] == "content_block_delta":
            steps.append(Pause(pause_seconds))
        steps.append(_event(event))
    reason = stop_reason or ("tool_use" if tool_calls else "end_turn")
    if error:
        return [*steps, _event(_error(*error)), END_OF_CHUNKS]
    return [*steps, _event(_message_delta(reason, counted)), _event({"type": "message_stop"}), END_OF_CHUNKS]


def anthropic_error(
    status: int, error_type: str, message: str, *, headers: Mapping[str, str] | None = None
) -> list[Step]:
    """A refusal of Anthropic: https://platform.claude.com/docs/en/api/errors; `headers` for a Retry-After."""
    return response(status, json.dumps(_error(error_type, message)).encode(), headers)


def _event(value: Mapping[str, object]) -> SendChunk:
    data = json.dumps(value, separators=(",", ":"))
    return SendChunk(f"event: {value['type']}\ndata: {data}\n\n".encode())


def _message_start(model: str, usage: Mapping[str, object]) -> dict[str, object]:
    """What was put out is as good as nothing yet; the end says it again and says it right."""
    message: dict[str, object] = {
        "model": model,
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            **usage,
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage["cache_creation_input_tokens"],
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": 1,
            "service_tier": "standard",
        },
    }
    return {"type": "message_start", "message": message}


def _message_delta(stop_reason: str, usage: Mapping[str, object]) -> dict[str, object]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": usage}


def _error(error_type: str, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": error_type, "message": message}, "request_id": "req_scripted"}


def _usage(usage: tuple[int, int], cache_read_tokens: int, cache_write_tokens: int) -> dict[str, object]:
    return {
        "input_tokens": usage[0],
        "cache_creation_input_tokens": cache_write_tokens,
        "cache_read_input_tokens": cache_read_tokens,
        "output_tokens": usage[1],
    }


def _blocks(
    pieces: Sequence[str], thinking: Sequence[str], signature: str, calls: Sequence[ScriptedToolCall]
) -> Iterator[dict[str, object]]:
    """Each with its start, its deltas and its end, one after the other; the index counts them all."""
    for index, (block, deltas) in enumerate(_contents(pieces, thinking, signature, calls)):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}


def _contents(
    pieces: Sequence[str], thinking: Sequence[str], signature: str, calls: Sequence[ScriptedToolCall]
) -> Iterator[tuple[dict[str, object], list[dict[str, str]]]]:
    if thinking:
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in thinking]
        sealed = {"type": "signature_delta", "signature": signature}
        yield {"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, sealed]
    if pieces:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
    for call in calls:
        arguments = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *call.arguments)]
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, arguments
