"""Reading answers of Anthropic's Messages API: event streams, whole answers and refusals.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Mapping

import msgspec

from proxy import answer
from proxy.answer import NOT_JSON, not_an_answer
from proxy.dialects.anthropic.blocks import (
    ItemBlock,
    OpenBlock,
    TextBlock,
    ThinkingBlock,
    ToolBlock,
    WireBlock,
    WireCitation,
    call_id,
    read_arguments,
    read_item,
)
from proxy.dialects.anthropic.places import name_place
from proxy.dialects.anthropic.usage import WireUsage, as_usage, merge
from proxy.events import (
    ChatEvent,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from proxy.failures import failed_here, failed_status, tell_status
from proxy.provider import Reader
from proxy.sse import ServerSentEvent

MAX_OPEN_BLOCKS = 100
"""They come one after another; a server that mixes up a few is understood."""
MAX_HELD_CHARACTERS = 16 * 1024 * 1024
"""Of what must be held until its block is complete."""

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "compaction": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons. A paused turn was cut by a limit too:
how often one answer may use the tools of the server.
"""
_DELTAS = {"text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta"}
_BLOCKS = {"text", "thinking", "redacted_thinking", "tool_use"}
_EVENTS = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
    "message",
}


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Delta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: WireCitation | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Message(msgspec.Struct):
    usage: WireUsage | None = None


class _Error(msgspec.Struct):
    type: str | None = None
    message: str | None = None


class _Event(msgspec.Struct):
    """Any event of a stream; a whole answer has its last five members."""

    type: str = ""
    index: int | None = None
    delta: _Delta | None = None
    content_block: msgspec.Raw = msgspec.Raw(b"null")
    message: _Message | None = None
    error: _Error | str | None = None
    usage: WireUsage | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Refusal(msgspec.Struct):
    error: _Error | str | None = None


class _Kind(msgspec.Struct):
    type: str


class _OfDelta(msgspec.Struct):
    delta: _Kind


# Some servers write numbers as strings.
_decode_event = msgspec.json.Decoder(_Event, strict=False).decode
_decode_block = msgspec.json.Decoder(WireBlock, strict=False).decode
_decode_refusal = msgspec.json.Decoder(_Refusal, strict=False).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_of_delta = msgspec.json.Decoder(_OfDelta).decode


class MessagesAnswer:
    """One answer in this dialect."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._is_done = False
        self._open: dict[int, OpenBlock] = {}
        self._calls = 0
        self._thoughts = 0
        self._spoken = 0
        self._held = 0
        self._usage: WireUsage | None = None

    @property
    def is_done(self) -> bool:
        return self._is_done

    def read_event(self, event: ServerSentEvent, events: list[ChatEvent]) -> None:
        try:
            decoded = _decode_event(event.data)
            if decoded.type == "content_block_delta":
                self._read_delta(decoded.index or 0, decoded.delta or _Delta(), events)
            else:
                self._read_other(decoded, events)
        except NOT_JSON:
            if not _is_unknown(event.data):
                events.append(not_an_answer(self._provider))

    def read_whole(self, body: bytes, events: list[ChatEvent]) -> None:
        """An answer without a reason to finish is complete all the same: its JSON is."""
        try:
            decoded = _decode_event(body)
            for index, raw in enumerate(decoded.content or ()):
                self._open_block(index, raw, events)
                self._close_block(index, events)
        except NOT_JSON:
            events.append(not_an_answer(self._provider))
            return
        self._add_usage(decoded.usage, events)
        if decoded.error is not None:
            events.append(_read_error(self._provider, decoded.error))
        elif decoded.content is not None:
            _finish(decoded.stop_reason or "end_turn", decoded.stop_details, events)

    def _read_other(self, decoded: _Event, events: list[ChatEvent]) -> None:
        match decoded.type:
            case "content_block_start":
                self._open_block(decoded.index or 0, decoded.content_block, events)
            case "content_block_stop":
                self._close_block(decoded.index or 0, events)
            case "message_start":
                self._add_usage((decoded.message or _Message()).usage, events)
            case "message_delta":
                self._read_end(decoded, events)
            case "message_stop":
                self._is_done = True
            case kind if kind == "error" or decoded.error is not None:
                events.append(_read_error(self._provider, decoded.error or _Error()))

    def _read_delta(self, index: int, delta: _Delta, events: list[ChatEvent]) -> None:
        if delta.type == "text_delta":
            self._add_text(delta.text, events)
            return
        match self._open.get(index):
            case ThinkingBlock() as block:
                _add_thinking(block, delta.thinking, events)
                if delta.signature:
                    block.signature = delta.signature
                    self._hold(len(delta.signature), events)
            case ToolBlock() as block if delta.partial_json:
                block.has_pieces = True
                events.append(ToolCallDelta(block.index, arguments=delta.partial_json))
            case ItemBlock() as block if delta.partial_json:
                block.pieces.append(delta.partial_json)
                self._hold(len(delta.partial_json), events)
            case TextBlock() as block if delta.citation is not None:
                block.citations.append(delta.citation)
                self._hold(1000 + len(delta.citation.cited_text or ""), events)

    def _open_block(self, index: int, raw: msgspec.Raw, events: list[ChatEvent]) -> None:
        """Raises one of NOT_JSON."""
        self._close_block(index, events)
        if len(self._open) >= MAX_OPEN_BLOCKS:
            self._hold(MAX_HELD_CHARACTERS, events)
            return
        self._hold(memoryview(raw).nbytes, events)
        if _decode_kind(raw).type not in _BLOCKS:
            self._open[index] = read_item(raw)
            return
        wire = _decode_block(raw)
        match wire.type:
            case "text":
                self._open[index] = TextBlock(self._spoken, wire.citations or [])
                self._add_text(wire.text, events)
            case "tool_use":
                self._open[index] = self._open_tool(wire, events)
            case _:
                self._open[index] = self._open_thinking(wire, events)

    def _open_tool(self, wire: WireBlock, events: list[ChatEvent]) -> ToolBlock:
        block = ToolBlock(self._calls, read_arguments(wire))
        events.append(ToolCallDelta(block.index, call_id(wire), wire.name or ""))
        self._calls += 1
        return block

    def _open_thinking(self, wire: WireBlock, events: list[ChatEvent]) -> ThinkingBlock:
        place = name_place(self._spoken, self._calls)
        block = ThinkingBlock(self._thoughts, place, wire.signature or None, wire.data)
        _add_thinking(block, wire.thinking, events)
        self._thoughts += 1
        return block

    def _close_block(self, index: int, events: list[ChatEvent]) -> None:
        match self._open.pop(index, None):
            case TextBlock() as block:
                events += block.close(self._spoken)
            case ThinkingBlock() | ToolBlock() | ItemBlock() as block:
                events += block.close()
        if not self._open:
            self._held = 0

    def _read_end(self, decoded: _Event, events: list[ChatEvent]) -> None:
        """Blocks that a server forgot to close belong before the end."""
        self._add_usage(decoded.usage, events)
        delta = decoded.delta or _Delta()
        if delta.stop_reason:
            for index in list(self._open):
                self._close_block(index, events)
            _finish(delta.stop_reason, delta.stop_details, events)

    def _add_text(self, text: str | None, events: list[ChatEvent]) -> None:
        if text:
            self._spoken += len(text)
            events.append(TextDelta(text))

    def _add_usage(self, usage: WireUsage | None, events: list[ChatEvent]) -> None:
        if usage is not None:
            self._usage = usage if self._usage is None else merge(self._usage, usage)
            events.append(as_usage(self._usage))

    def _hold(self, characters: int, events: list[ChatEvent]) -> None:
        self._held += characters
        if self._held >= MAX_HELD_CHARACTERS:
            events.append(failed_here(self._provider, "parsing_error", "the provider's answer is too large"))


def open_reader(provider: str, media_type: str) -> Reader:
    return answer.open_reader(provider, MessagesAnswer(provider), media_type)


def read_refusal(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> Failed:
    """An error status with, usually, an error object."""
    try:
        error = _decode_refusal(body).error
    except NOT_JSON:
        error = None
    if error is None or isinstance(error, str):
        return failed_status(provider, status, error or tell_status(status), "", headers=headers)
    return failed_status(provider, status, error.message or tell_status(status), error.type or "", headers=headers)


def _is_unknown(data: bytes) -> bool:
    """What was invented after this was written; and some servers that speak this dialect add OpenAI's mark."""
    try:
        kind = _decode_kind(data).type
        if kind == "content_block_delta":
            return _decode_of_delta(data).delta.type not in _DELTAS
    except NOT_JSON:
        return data == b"[DONE]"
    return kind not in _EVENTS


def _add_thinking(block: ThinkingBlock, text: str | None, events: list[ChatEvent]) -> None:
    if text:
        events.append(ReasoningDelta(text, block.index))


def _finish(reason: str, details: _StopDetails | None, events: list[ChatEvent]) -> None:
    """An unknown reason is a stop: the answer did end in good order."""
    if reason == "refusal" and details is not None and details.explanation:
        events.append(RefusalDelta(details.explanation))
    events.append(Finished(_FINISH_REASONS.get(reason, "stop")))


def _read_error(provider: str, error: _Error | str) -> Failed:
    """https://platform.claude.com/docs/en/api/errors: inside a stream an error has a type and no status."""
    if isinstance(error, str):
        return failed_status(provider, 0, error, "")
    return failed_status(provider, 0, error.message or tell_status(0), error.type or "")
