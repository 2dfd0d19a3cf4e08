"""OpenAI's own dialect: `/v1`, for any SDK of theirs. No event names, snake_case usage, `[DONE]` at the end. Pure."""

from typing import Any

import msgspec

from proxy.chat import (
    ChatEvent,
    Completed,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from proxy.collected import Collected
from proxy.sse import encode_event
from server.dialects.chunks import ChunkWriter, snake_case_usage, tool_call_delta
from server.dialects.dialect import Answer, Decoded, Dialect
from server.dialects.options import WireOptions, decode_body, read_request
from server.errors import Problem

DONE = encode_event(b"[DONE]")

_encode = msgspec.json.encode
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(WireOptions):
    stream_options: _StreamOptions | None = None


def decode(body: bytes) -> Decoded:
    """Raises RequestInvalid."""
    wire = decode_body(body, _Body)
    include_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
    return Decoded(read_request(wire), bool(wire.stream), include_usage)


class OpenAIEncoder:
    """Encodes one stream. After an error there is no `[DONE]`: the SDKs raise at the error's event."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._chunks = ChunkWriter(answer.answer_id, answer.model.id, answer.created)

    def open(self) -> bytes:
        return self._chunks.delta({"role": "assistant", "content": ""})

    def encode(self, events: list[ChatEvent]) -> bytes:
        if len(events) == 1 and isinstance(events[0], TextDelta):
            return self._chunks.text(events[0].text)
        return b"".join([self._encode_one(event) for event in events])

    def _encode_one(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta(text):
                return self._chunks.text(text)
            case ReasoningDelta(text):
                return self._chunks.delta({"reasoning_content": text})
            case RefusalDelta(text):
                return self._chunks.delta({"refusal": text})
            case ToolCallDelta():
                return self._chunks.delta(tool_call_delta(event))
            case Finished(reason):
                return self._chunks.delta({}, reason)
            case Completed():
                usage = self._chunks.usage(snake_case_usage(event.usage)) if self._answer.include_usage else b""
                return usage + DONE
            case Failed():
                error = {"message": event.message, "type": event.code, "param": None, "code": event.code}
                return encode_event(_encode({"error": error}))
        return b""


def encode_whole(answer: Answer, collected: Collected) -> bytes:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in collected.tool_calls
    ]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": collected.text or (None if calls or collected.refusal else ""),
        "refusal": collected.refusal or None,
    }
    if calls:
        message["tool_calls"] = calls
    if collected.reasoning:
        message["reasoning_content"] = collected.reasoning
    body: dict[str, Any] = {
        "id": answer.answer_id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model.id,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": collected.finish_reason}],
    }
    if isinstance(collected.ended, Completed):
        body["usage"] = snake_case_usage(collected.ended.usage)
    return _encode(body)


def encode_problem(problem: Problem) -> bytes:
    """OpenAI's error object; `code` carries our error type, for programs to branch on."""
    type_ = _TYPES.get(problem.status, "rate_limit_error" if problem.status == 429 else "api_error")
    if problem.status == 402:
        type_ = "insufficient_quota"
    return _encode(
        {"error": {"message": problem.message, "type": type_, "param": None, "code": problem.error_type}}
    )


DIALECT = Dialect(
    answers_at_once=False,
    decode=decode,
    open_encoder=OpenAIEncoder,
    encode_whole=encode_whole,
    encode_problem=encode_problem,
)
