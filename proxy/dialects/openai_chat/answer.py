"""Reading answers in OpenAI's chat dialect: event streams and whole answers, of every server that we know of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy import answer
from proxy.answer import NOT_JSON, not_an_answer
from proxy.dialects.openai_chat.beside import Sources, read_annotations, read_audio, read_images, read_logprobs
from proxy.dialects.openai_chat.calls import CallNumbers, WireCall, WireFunction, make_call_id, read_signature
from proxy.dialects.openai_chat.errors import find_error, read_error, read_refusal
from proxy.dialects.openai_chat.quirks import GOOGLE_FORMAT
from proxy.dialects.openai_chat.reasoning import ReasoningBlocks
from proxy.dialects.openai_chat.usage import read_usage
from proxy.events import ChatEvent, Failed, Finished, FinishReason, RefusalDelta, TextDelta
from proxy.provider import Reader
from proxy.sse import ServerSentEvent

__all__ = ["ChatAnswer", "Reading", "open_reader", "read_refusal"]

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "content-filter": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "sensitive": "content_filter",
    "guardrail_intervened": "content_filter",
    "error": "error",
    "insufficient_system_resource": "error",
    "malformed_function_call": "error",
    "function_call_filter": "error",
    "network_error": "error",
    "abort": "error",
}
"""In lower case. All others (`stop`, `end_turn`, `eos`, `stop_sequence`, …) are a stop. What follows a colon is the
particular reason, as in Gemini's `content_filter: RECITATION`.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What must be known of a server to read its answers. See ChatQuirks."""

    item_format: str = ""
    reasoning_beside: bool = False
    unreported_searches: int = 0
    make_call_id: Callable[[], str] = make_call_id


class _Delta(msgspec.Struct):
    """What servers send in more shapes than one is decoded as it comes, and looked at where it is read."""

    content: Any = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    tool_calls: list[WireCall] | None = None
    function_call: WireFunction | None = None
    annotations: Any = None
    images: Any = None
    audio: Any = None
    extra_content: Any = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    usage: Any = None
    error: Any = None


class _Answer(msgspec.Struct):
    """A chunk of a stream or a whole answer: they differ in `delta` and `message` alone."""

    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    citations: Any = None
    search_results: Any = None


# Some servers write numbers as strings, or as 12.0.
_decode_answer = msgspec.json.Decoder(_Answer, strict=False).decode


def open_reader(provider: str, media_type: str, reading: Reading = Reading()) -> Reader:
    """For an event stream, or for a whole answer from a server that does not stream."""
    return answer.open_reader(provider, ChatAnswer(provider, reading), media_type)


class ChatAnswer:
    """One answer in this dialect."""

    def __init__(self, provider: str, reading: Reading = Reading()) -> None:
        self._provider = provider
        self._reading = reading
        self._calls = CallNumbers(reading.make_call_id)
        self._reasoning = ReasoningBlocks()
        self._sources = Sources()
        self._is_finished = False
        self._is_done = False

    @property
    def is_done(self) -> bool:
        return self._is_done

    def read_event(self, event: ServerSentEvent, events: list[ChatEvent]) -> None:
        data = event.data
        if data[:6] == b"[DONE]":
            self._is_done = True
            self._finish("", events)
        elif data and not data.isspace():
            start = len(events)
            self._read(data, events)
            if event.name == "error" and not any(isinstance(one, Failed) for one in events[start:]):
                events.append(find_error(self._provider, data) or read_error(self._provider, None))

    def read_whole(self, body: bytes, events: list[ChatEvent]) -> None:
        """An answer without a reason to finish is complete all the same: its JSON is."""
        if self._read(body, events):
            self._finish("", events)

    def _read(self, data: bytes, events: list[ChatEvent]) -> bool:
        """Append what one JSON object says. True if it had a choice, which is the answer or a piece of it."""
        try:
            chunk = _decode_answer(data)
        except NOT_JSON:
            events.append(find_error(self._provider, data) or not_an_answer(self._provider))
            return False
        if chunk.error is not None:
            self._is_finished = True
        elif chunk.citations is not None or chunk.search_results is not None:
            self._sources.note(chunk.search_results or chunk.citations)
        for choice in chunk.choices or ():
            if not choice.index:
                self._read_choice(choice, events)
        self._read_rest(chunk, events)
        if chunk.error is not None:
            events.append(read_error(self._provider, _whole_error(chunk, data)))
        elif chunk.choices is None and chunk.usage is None and (failed := find_error(self._provider, data)):
            events.append(failed)
        return bool(chunk.choices)

    def _read_choice(self, choice: _Choice, events: list[ChatEvent]) -> None:
        if choice.delta is not None:
            self._read_delta(choice.delta, events, is_whole=False)
        elif choice.message is not None:
            self._read_delta(choice.message, events, is_whole=True)
        if choice.logprobs is not None:
            read_logprobs(choice.logprobs, events)
        if choice.usage is not None:
            self._read_usage(choice.usage, events)
        if choice.error is not None:
            events.append(read_error(self._provider, choice.error))
        elif choice.finish_reason:
            self._finish(choice.finish_reason, events)

    def _read_delta(self, delta: _Delta, events: list[ChatEvent], *, is_whole: bool) -> None:
        if delta.reasoning_content or delta.reasoning or delta.reasoning_details:
            plain = delta.reasoning_content or delta.reasoning
            self._reasoning.read(plain if isinstance(plain, str) else "", delta.reasoning_details, events)
        content = delta.content
        if content.__class__ is str:
            if content:
                events.append(TextDelta(content))
        elif content is not None:
            self._read_parts(content, events)
        if delta.refusal:
            events.append(RefusalDelta(delta.refusal))
        if delta.tool_calls is not None or delta.function_call is not None:
            self._read_calls(delta, events, is_whole=is_whole)
        if delta.annotations or delta.images or delta.audio or delta.extra_content:
            self._read_beside(delta, events)

    def _read_parts(self, content: object, events: list[ChatEvent]) -> None:
        """Content as a list: https://docs.mistral.ai/capabilities/reasoning. Parts of unknown kinds say nothing."""
        for part in content if isinstance(content, list) else [content]:
            match part:
                case {"type": "text" | "output_text", "text": str(text)} if text:
                    events.append(TextDelta(text))
                case {"type": "thinking", "thinking": str(text)} if text:
                    self._reasoning.read(text, None, events)
                case {"type": "thinking", "thinking": list(pieces)}:
                    for piece in pieces:
                        if isinstance(piece, dict) and isinstance(piece.get("text"), str) and piece["text"]:
                            self._reasoning.read(piece["text"], None, events)
                case {"type": "refusal", "refusal": str(text)} if text:
                    events.append(RefusalDelta(text))
                case {"type": "image_url"}:
                    read_images([part], self._reading.item_format, events)

    def _read_calls(self, delta: _Delta, events: list[ChatEvent], *, is_whole: bool) -> None:
        """`function_call` is the predecessor of tools: one call, without an id."""
        wires = list(delta.tool_calls or ())
        if delta.function_call is not None:
            wires.append(WireCall(index=0, function=delta.function_call))
        for wire in wires:
            call = self._calls.read(wire, is_whole=is_whole)
            if call is None:
                events.append(not_an_answer(self._provider))
                return
            events.append(call)

    def _read_beside(self, delta: _Delta, events: list[ChatEvent]) -> None:
        format_ = self._reading.item_format
        start = len(events)
        read_annotations(delta.annotations, format_, events)
        self._sources.note_told(events[start:])
        read_images(delta.images, format_, events)
        read_audio(delta.audio, events)
        if signature := read_signature(delta.extra_content):
            self._reasoning.seal(GOOGLE_FORMAT, signature, events)

    def _read_rest(self, chunk: _Answer, events: list[ChatEvent]) -> None:
        if self._is_finished:
            self._sources.tell(events)
        if chunk.usage is not None:
            self._read_usage(chunk.usage, events)
        elif isinstance(chunk.x_groq, dict) and chunk.x_groq.get("usage") is not None:
            self._read_usage(chunk.x_groq["usage"], events)

    def _read_usage(self, reported: object, events: list[ChatEvent]) -> None:
        reading = self._reading
        beside, searches = reading.reasoning_beside, reading.unreported_searches
        usage = read_usage(reported, reasoning_beside=beside, least_searches=searches)
        if usage is not None:
            events.append(usage)

    def _finish(self, word: str, events: list[ChatEvent]) -> None:
        """Without a word of the server's, calls say that they want their results."""
        if self._is_finished:
            return
        self._is_finished = True
        self._sources.tell(events)
        unsaid: FinishReason = "tool_calls" if len(self._calls) and not word else "stop"
        events.append(Finished(_FINISH_REASONS.get(word.lower().partition(":")[0], unsaid)))


def _whole_error(chunk: _Answer, data: bytes) -> object:
    """A text as `error` may have its code beside it."""
    if not isinstance(chunk.error, str):
        return chunk.error
    try:
        return msgspec.json.decode(data)
    except NOT_JSON:
        return chunk.error
