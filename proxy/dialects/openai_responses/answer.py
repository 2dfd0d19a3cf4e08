"""Reading answers of the Responses API: event streams, whole answers and refusals.

https://developers.openai.com/api/docs/api-reference/responses-streaming
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec

from proxy import answer
from proxy.answer import NOT_JSON, not_an_answer
from proxy.dialects.openai_responses.items import OutputItems, TooManyParts
from proxy.dialects.openai_responses.wire import (
    Error,
    ErrorBody,
    Event,
    InputDetails,
    OutputDetails,
    Response,
    ResponseUsage,
    decode_error,
    decode_event,
    decode_incomplete_details,
    decode_response,
    decode_tool_usage,
    decode_type,
    decode_usage,
)
from proxy.events import ChatEvent, Failed, Finished, FinishReason, TextDelta, Usage
from proxy.failures import failed_here, failed_status, tell_status
from proxy.provider import Reader
from proxy.sse import ServerSentEvent

T = TypeVar("T")

_POLICY_CODES = frozenset({"bio_policy", "misalignment_policy_violation", "image_content_policy_violation"})
_POLICY = re.compile(r"violates usage guidelines|violat(?:e|ing) our usage policy")
"""What xAI, with a status that speaks of permissions, and OpenAI say of a prompt that they do not let through."""
_INPUT_CODES = ("invalid_", "image_", "empty_image", "unsupported_", "failed_to_download", "data_residency")
"""What is wrong with a request has these codes: `openai/types/responses/response_error.py` of OpenAI's SDK lists
them.
"""
_UNDER_WAY = frozenset({"queued", "in_progress"})
_ENDED_BADLY = frozenset({"incomplete", "failed", "cancelled"})


class ResponsesAnswer:
    """One answer in this dialect. The event that holds the whole answer is its end; a `[DONE]` may follow."""

    def __init__(self, provider: str, item_format: str) -> None:
        self._provider = provider
        self._items = OutputItems(item_format)
        self._is_done = False

    @property
    def is_done(self) -> bool:
        return self._is_done

    def read_event(self, event: ServerSentEvent, events: list[ChatEvent]) -> None:
        if event.data == b"[DONE]":
            self._finish("stop", events)
            return
        try:
            self._read_event(event, events)
        except TooManyParts:
            events.append(failed_here(self._provider, "parsing_error", "the provider's answer has too many parts"))

    def read_whole(self, body: bytes, events: list[ChatEvent]) -> None:
        try:
            response = decode_response(body)
        except NOT_JSON:
            events.append(not_an_answer(self._provider))
            return
        status = "completed" if response.status is None else response.status
        if isinstance(status, int) or (response.error is not None and response.status is None):
            events.append(_read_error(self._provider, 200, body))
        elif response.status is not None or response.output is not None:
            self._read_response(response, status, events)

    def _read_event(self, server_event: ServerSentEvent, events: list[ChatEvent]) -> None:
        try:
            event = decode_event(server_event.data)
        except NOT_JSON:
            self._read_odd_event(server_event, events)
            return
        kind = event.type or server_event.name
        if kind == "response.output_text.delta":
            if event.delta:
                self._items.add_text(event, event.delta, events)
        elif kind in _ENDS:
            self._read_end(event, _ENDS[kind], events)
        elif kind in _ERRORS or (not kind and event.error):
            events.append(_read_error(self._provider, 0, server_event.data))
        elif kind in _READERS:
            _READERS[kind](self._items, event, events)

    def _read_odd_event(self, server_event: ServerSentEvent, events: list[ChatEvent]) -> None:
        """An event whose members have other types than ours matters only if it is one that we read."""
        try:
            kind = decode_type(server_event.data).type or server_event.name
        except NOT_JSON:
            kind = ""
        if kind in _ERRORS:
            events.append(_read_error(self._provider, 0, server_event.data))
        elif not kind or kind in _READERS or kind in _ENDS or kind == "response.output_text.delta":
            events.append(not_an_answer(self._provider))

    def _read_end(self, event: Event, status: str, events: list[ChatEvent]) -> None:
        try:
            response = decode_response(event.response) if event.response else Response()
        except NOT_JSON:
            events.append(not_an_answer(self._provider))
            return
        told = response.status
        self._read_response(response, told if isinstance(told, str) and told in _ENDED_BADLY else status, events)

    def _read_response(self, response: Response, status: str, events: list[ChatEvent]) -> None:
        try:
            self._items.end_all(response.output or [], events)
        except TooManyParts:
            events.append(failed_here(self._provider, "parsing_error", "the provider's answer has too many parts"))
            return
        if response.output_text and not self._items.has_text:
            events.append(TextDelta(response.output_text))
        usage = _known(response.usage, decode_usage)
        if usage is not None:
            events.append(_read_usage(usage, self._count_searches(response, usage)))
        if status in {"failed", "cancelled"}:
            events.append(_read_failure(self._provider, response, status))
        elif status not in _UNDER_WAY:
            details = _known(response.incomplete_details, decode_incomplete_details)
            self._finish(_reason(status, details.reason if details else None), events)

    def _finish(self, reason: FinishReason, events: list[ChatEvent]) -> None:
        self._is_done = True
        calls = reason == "stop" and self._items.waits_for_client
        events.append(Finished("tool_calls" if calls else reason))

    def _count_searches(self, response: Response, usage: ResponseUsage) -> int:
        """What the provider says that it bills, else every search that was seen; a page that was opened is none."""
        counted = usage.server_side_tool_usage_details
        if counted is not None:
            return _natural(counted.web_search_calls) + _natural(counted.x_search_calls)
        told = _known(response.tool_usage, decode_tool_usage)
        if told is not None and told.web_search is not None and told.web_search.num_requests is not None:
            return _natural(told.web_search.num_requests)
        return self._items.searches


_Read = Callable[[OutputItems, Event, list[ChatEvent]], None]


def _read_refusal_delta(items: OutputItems, event: Event, events: list[ChatEvent]) -> None:
    if event.delta:
        items.add_refusal(event, event.delta, events)


def _read_arguments_delta(items: OutputItems, event: Event, events: list[ChatEvent]) -> None:
    if event.delta:
        items.add_arguments(event, event.delta, events)


def _read_summary_delta(items: OutputItems, event: Event, events: list[ChatEvent]) -> None:
    if event.delta:
        items.add_reasoning(event, event.delta, is_summary=True, events=events)


def _read_reasoning_delta(items: OutputItems, event: Event, events: list[ChatEvent]) -> None:
    if event.delta:
        items.add_reasoning(event, event.delta, is_summary=False, events=events)


def _end_summary(items: OutputItems, event: Event, events: list[ChatEvent]) -> None:
    items.end_reasoning(event, is_summary=True, events=events)


def _end_reasoning(items: OutputItems, event: Event, events: list[ChatEvent]) -> None:
    items.end_reasoning(event, is_summary=False, events=events)


_READERS: Mapping[str, _Read] = MappingProxyType(
    {
        "response.output_item.added": OutputItems.open_item,
        "response.output_item.done": OutputItems.end_item,
        "response.output_text.done": OutputItems.end_part,
        "response.output_text.annotation.added": OutputItems.add_citation,
        "response.refusal.delta": _read_refusal_delta,
        "response.refusal.done": OutputItems.end_part,
        "response.content_part.done": OutputItems.end_part,
        "response.function_call_arguments.delta": _read_arguments_delta,
        "response.function_call_arguments.done": OutputItems.end_arguments,
        "response.reasoning_summary_text.delta": _read_summary_delta,
        "response.reasoning_summary_text.done": _end_summary,
        "response.reasoning_text.delta": _read_reasoning_delta,
        "response.reasoning_text.done": _end_reasoning,
    }
)
"""What is told by no other event. The progress of tools that a provider runs itself is in their items."""

_ENDS: Mapping[str, str] = MappingProxyType(
    {
        "response.completed": "completed",
        "response.incomplete": "incomplete",
        "response.failed": "failed",
        "response.cancelled": "cancelled",
        "response.done": "completed",
    }
)
"""The last is how OpenRouter has called it: https://openrouter.ai/docs/api_reference/responses/basic-usage."""

_ERRORS = frozenset({"error", "response.error"})


def open_reader(provider: str, item_format: str, media_type: str) -> Reader:
    """For an event stream, or for a whole answer: of a server that does not stream, or made in the background."""
    return answer.open_reader(provider, ResponsesAnswer(provider, item_format), media_type)


def read_refusal(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> Failed:
    """An error status with, usually, an error object."""
    return _read_error(provider, status, body, headers)


def _known(raw: msgspec.Raw, decode: Callable[[msgspec.Raw], T | None]) -> T | None:
    """None for what is not there, or has another shape than we know."""
    try:
        return decode(raw) if raw else None
    except NOT_JSON:
        return None


def _reason(status: str, incomplete: str | None) -> FinishReason:
    """https://developers.openai.com/api/docs/api-reference/responses/object: other reasons are bounds, too."""
    if status != "incomplete":
        return "stop"
    return "content_filter" if incomplete == "content_filter" else "length"


def _read_usage(usage: ResponseUsage, searches: int) -> Usage:
    """Cached and written tokens are part of the input, and reasoning of the output; we keep them apart."""
    inputs, outputs = usage.input_tokens_details or InputDetails(), usage.output_tokens_details or OutputDetails()
    input_left, output_left = _natural(usage.input_tokens), _natural(usage.output_tokens)
    cache_read = min(_natural(inputs.cached_tokens), input_left)
    cache_write = min(_natural(inputs.cache_write_tokens), input_left - cache_read)
    input_audio = min(_natural(inputs.audio_tokens), input_left - cache_read - cache_write)
    reasoning = min(_natural(outputs.reasoning_tokens), output_left)
    audio = min(_natural(outputs.audio_tokens), output_left - reasoning)
    image = min(_natural(outputs.image_tokens), output_left - reasoning - audio)
    return Usage(
        input_tokens=input_left - cache_read - cache_write - input_audio,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_tokens=output_left - reasoning - audio - image,
        reasoning_tokens=reasoning,
        input_audio_tokens=input_audio,
        output_audio_tokens=audio,
        output_image_tokens=image,
        searches=searches,
    )


def _natural(count: int | None) -> int:
    return max(count or 0, 0)


def _read_failure(provider: str, response: Response, status: str) -> Failed:
    if response.error is None:
        return failed_here(provider, "external_service_error", f"the provider says that its answer has {status}")
    return _failed(provider, 0, ErrorBody(error=response.error), {})


def _read_error(provider: str, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Failed:
    try:
        told = decode_error(body)
    except NOT_JSON:
        told = ErrorBody()
    return _failed(provider, status, told, headers or {})


def _failed(provider: str, status: int, told: ErrorBody, headers: Mapping[str, str]) -> Failed:
    error = told.error if isinstance(told.error, Error) else Error(message=told.error or told.message, code=told.code)
    code = error.code if isinstance(error.code, str) else ""
    status = status if status >= 400 else _status_told(error, told)
    message = error.message or tell_status(status)
    kind = "content_filter" if code in _POLICY_CODES or _POLICY.search(message) else code
    return failed_status(provider, status, message, error.type or code, kind, headers)


def _status_told(error: Error, told: ErrorBody) -> int:
    """The status that an error inside a 200 stands for; 0 if it names none."""
    for number in (error.code, told.status):
        if isinstance(number, int) and 400 <= number <= 599:
            return number
    return 400 if isinstance(error.code, str) and error.code.startswith(_INPUT_CODES) else 0
