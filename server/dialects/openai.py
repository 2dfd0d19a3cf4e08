"""OpenAI's own dialect: `/v1`, for any SDK of theirs. No event names, snake_case usage, `[DONE]` at the end. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.collected import Collected
from proxy.events import Cancelled, ChatEvent, Completed, Failed, Finished, FinishReason, Logprobs, TextDelta
from proxy.sse import encode_event
from server.dialects.chunks import ChunkWriter, snake_case_usage
from server.dialects.dialect import Answer, Decoded, Dialect
from server.dialects.options import WireOptions, decode_body, read_request
from server.dialects.pieces import DeltaWriter, message_pieces
from server.envelopes import OpenAiError, OpenAiErrorDetail
from server.errors import CANCELLED, Problem, tell_failed

DONE = encode_event(b"[DONE]")

_encode = msgspec.json.encode
_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class StreamOptions(msgspec.Struct):
    """With `include_usage` the last event of a stream tells what was used."""

    include_usage: bool | None = None


class ChatCompletionWish(WireOptions):
    """A chat in OpenAI's dialect. A member that is null counts as absent."""

    stream_options: StreamOptions | None = None


def decode(body: bytes) -> Decoded:
    """Raises RequestInvalid."""
    wire = decode_body(body, ChatCompletionWish)
    include_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
    return Decoded(read_request(wire), bool(wire.stream), include_usage)


class OpenAIEncoder:
    """Encodes one stream. After an error there is no `[DONE]`: the SDKs raise at the error's event."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._chunks = ChunkWriter(answer.answer_id, answer.model.id, answer.created)
        self._deltas = DeltaWriter()

    def open(self) -> bytes:
        return self._chunks.delta({"role": "assistant", "content": ""})

    def encode(self, events: list[ChatEvent]) -> bytes:
        if len(events) == 1 and isinstance(events[0], TextDelta):
            return self._chunks.text(events[0].text)
        if any(isinstance(event, Logprobs) for event in events):
            return b"".join([self._encode_at(position, events) for position in range(len(events))])
        return b"".join([self._encode_one(event) for event in events])

    def _encode_at(self, position: int, events: list[ChatEvent]) -> bytes:
        """Log probabilities go with the text that they directly follow."""
        event = events[position]
        if isinstance(event, TextDelta) and position + 1 < len(events):
            follower = events[position + 1]
            if isinstance(follower, Logprobs):
                return self._chunks.delta({"content": event.text}, logprobs=_logprobs(follower.content))
        if isinstance(event, Logprobs) and position and isinstance(events[position - 1], TextDelta):
            return b""
        return self._encode_one(event)

    def _encode_one(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta(text):
                return self._chunks.text(text)
            case Logprobs():
                return self._chunks.delta({}, logprobs=_logprobs(event.content))
            case Finished(reason):
                return self._chunks.delta({}, **_ending(reason))
            case Completed():
                usage = self._chunks.usage(snake_case_usage(event)) if self._answer.include_usage else b""
                return usage + DONE
            case Failed():
                return encode_broken(tell_failed(event), event.code)
            case Cancelled():
                return encode_broken(CANCELLED, "request_cancelled")
        delta = self._deltas.build(event)
        return b"" if delta is None else self._chunks.delta(delta)


def encode_broken(message: str, code: str) -> bytes:
    """The last event of a stream that does not come to its good end."""
    return encode_event(_encode({"error": {"message": message, "type": code, "param": None, "code": code}}))


def encode_whole(answer: Answer, collected: Collected) -> bytes:
    pieces = message_pieces(collected)
    has_other = collected.refusal or not pieces.keys().isdisjoint({"tool_calls", "audio", "images"})
    message: dict[str, Any] = {
        "role": "assistant",
        "content": collected.text or (None if has_other else ""),
        "refusal": collected.refusal or None,
    }
    logprobs = _logprobs(collected.logprobs) if collected.logprobs else None
    body: dict[str, Any] = {
        "id": answer.answer_id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model.id,
        "choices": [
            {"index": 0, "message": message | pieces, "logprobs": logprobs, **_ending(collected.finish_reason)}
        ],
    }
    if isinstance(collected.ended, Completed):
        body["usage"] = snake_case_usage(collected.ended)
    return _encode(body)


def _ending(reason: FinishReason) -> dict[str, str]:
    """An `error` is none of OpenAI's words: `length` is its only one for an answer that is not whole and was not
    filtered, and programs don't take it for a good end. The true word stands beside it, as OpenRouter has it.
    """
    if reason == "error":
        return {"finish_reason": "length", "native_finish_reason": reason}
    return {"finish_reason": reason}


def _logprobs(content: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {"content": content, "refusal": None}


def encode_problem(problem: Problem) -> bytes:
    """OpenAI's error object; `code` is the word that programs branch on, OpenAI's own where it has one."""
    type_ = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "api_error")
    code = problem.reason or problem.error_type
    return _encode(OpenAiError(OpenAiErrorDetail(problem.message, type_, None, code)))


DIALECT = Dialect(
    answers_at_once=False,
    decode=decode,
    open_encoder=OpenAIEncoder,
    encode_whole=encode_whole,
    encode_problem=encode_problem,
)
