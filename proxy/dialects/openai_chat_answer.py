"""Reading answers in OpenAI's chat dialect: event streams, whole answers and refusals."""

from collections.abc import Mapping

import msgspec

from proxy.chat import (
    ChatEvent,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from proxy.failures import failed_here, failed_status
from proxy.sse import EventTooLarge, ServerSentEvent, SseDecoder

MAX_WHOLE_ANSWER_BYTES = 64 * 1024 * 1024

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class _Answer(msgspec.Struct):
    """A chunk of a stream or a whole answer: they differ in `delta` and `message` alone."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: _Error | str | None = None


# Some servers write numbers as strings, or as 12.0.
_decode_answer = msgspec.json.Decoder(_Answer, strict=False).decode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes from outside; the last for thousands of brackets."""


class StreamReader:
    """Reads an event stream. Says Failed if it ends before its answer did."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._decoder = SseDecoder()
        self._saw_done = False
        self._saw_finish = False
        self._failed = False

    @property
    def is_done(self) -> bool:
        return self._saw_done

    def feed(self, data: bytes) -> list[ChatEvent]:
        if self._failed:
            return []
        try:
            server_events = self._decoder.feed(data)
        except EventTooLarge as error:
            self._failed = True
            return [failed_here(self._provider, "parsing_error", str(error))]
        return self._read_all(server_events)

    def finish(self) -> list[ChatEvent]:
        if self._failed:
            return []
        events = self._read_all(self._decoder.finish())
        if self._saw_finish or self._failed:
            return events
        if self._saw_done:
            events.append(Finished("stop"))
        else:
            events.append(failed_here(self._provider, "network_error", "the provider's answer was cut short"))
        return events

    def _read_all(self, server_events: list[ServerSentEvent]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        for server_event in server_events:
            if server_event.data == b"[DONE]":
                self._saw_done = True
            elif not self._saw_done:
                self._read(server_event.data, events)
                if self._failed:
                    break
        return events

    def _read(self, data: bytes, events: list[ChatEvent]) -> None:
        """Some servers repeat the reason to finish in the chunk that carries the usage: the first counts."""
        start = len(events)
        read_answer(data, self._provider, events)
        for position in range(len(events) - 1, start - 1, -1):
            if isinstance(events[position], Failed):
                self._failed = True
            elif isinstance(events[position], Finished):
                if self._saw_finish:
                    del events[position]
                self._saw_finish = True


class WholeReader:
    """Reads an answer that came in one piece although a stream was asked for."""

    def __init__(self, provider: str, max_bytes: int = MAX_WHOLE_ANSWER_BYTES) -> None:
        self._provider = provider
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._failed = False

    @property
    def is_done(self) -> bool:
        """Only the end of the body says so."""
        return False

    def feed(self, data: bytes) -> list[ChatEvent]:
        if self._failed:
            return []
        if len(self._body) + len(data) > self._max_bytes:
            self._failed = True
            return [failed_here(self._provider, "parsing_error", "the provider's answer is too large")]
        self._body += data
        return []

    def finish(self) -> list[ChatEvent]:
        """An answer without a reason to finish is complete all the same: its JSON is."""
        if self._failed:
            return []
        events: list[ChatEvent] = []
        has_choice = read_answer(bytes(self._body), self._provider, events)
        if not any(isinstance(event, Finished | Failed) for event in events):
            nothing = failed_here(self._provider, "parsing_error", "the provider sent something that is no chat answer")
            events.append(Finished("stop") if has_choice else nothing)
        return events


def read_answer(data: bytes, provider: str, events: list[ChatEvent]) -> bool:
    """Append what one JSON object says; its last word is a Failed if it is an error or nothing that we know.

    True if it had a choice, which is the answer or a piece of it.
    """
    try:
        answer = _decode_answer(data)
    except _NOT_JSON:
        events.append(failed_here(provider, "parsing_error", "the provider sent something that is no chat answer"))
        return False
    for choice in answer.choices or ():
        if not choice.index:
            _read_choice(choice, events)
    if answer.usage is not None:
        events.append(_read_usage(answer.usage))
    if answer.error is not None:
        events.append(_read_error(answer.error, provider))
    return bool(answer.choices)


def read_refusal(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> Failed:
    """An error status with, usually, an error object."""
    try:
        error = _decode_answer(body).error
    except _NOT_JSON:
        error = None
    if error is None or isinstance(error, str):
        message = error or f"the provider answered with status {status}"
        return failed_status(provider, status, message, "", headers=headers)
    message = error.message or f"the provider answered with status {status}"
    return failed_status(provider, status, message, error.type or "", str(error.code or ""), headers)


def _read_choice(choice: _Choice, events: list[ChatEvent]) -> None:
    delta = choice.delta or choice.message
    if delta is not None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            events.append(ReasoningDelta(reasoning))
        if delta.content:
            events.append(TextDelta(delta.content))
        if delta.refusal:
            events.append(RefusalDelta(delta.refusal))
        for position, call in enumerate(delta.tool_calls or ()):
            events.append(_read_tool_call(call, position))
    if choice.finish_reason:
        events.append(Finished(_FINISH_REASONS.get(choice.finish_reason, "stop")))


def _read_tool_call(call: _ToolCall, position: int) -> ToolCallDelta:
    function = call.function or _Function()
    index = position if call.index is None else call.index
    return ToolCallDelta(index, call.id, function.name, function.arguments or "")


def _read_usage(usage: _Usage) -> Usage:
    """Cached tokens are part of the prompt and reasoning part of the completion; we keep them apart."""
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    cached = min((usage.prompt_tokens_details or _PromptDetails()).cached_tokens or 0, prompt)
    reasoning = min((usage.completion_tokens_details or _CompletionDetails()).reasoning_tokens or 0, completion)
    return Usage(
        input_tokens=prompt - cached,
        cache_read_tokens=cached,
        output_tokens=completion - reasoning,
        reasoning_tokens=reasoning,
    )


def _read_error(error: _Error | str, provider: str) -> Failed:
    if isinstance(error, str):
        return failed_status(provider, 0, error, "")
    status = error.code if isinstance(error.code, int) and 0 <= error.code <= 599 else 0
    code = error.code if isinstance(error.code, str) else ""
    return failed_status(provider, status, error.message or "the provider reported an error", error.type or "", code)


def open_reader(provider: str, media_type: str) -> StreamReader | WholeReader:
    """For an event stream, or for a whole answer from a server that does not stream."""
    return StreamReader(provider) if media_type.lower().startswith("text/event-stream") else WholeReader(provider)
