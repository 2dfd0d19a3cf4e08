"""Messages as both dialects write them: OpenAI's shapes and the few that the shipped clients add. Pure.

Bad input is refused with the index of the part, before anything else happens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from proxy.chat import Document, Image, Message, Part, Reasoning, Refusal, Role, Text, ToolCall
from server.dialects.bounds import check_name, check_passed_on, read_cache_control
from server.dialects.media import read_media
from server.dialects.reasoning import WireDetail, WireItem, read_items, read_thinking_part, read_thoughts
from server.errors import RequestInvalid

MAX_PIECES = 10_000
"""Each costs some microseconds in which nobody else is served; a body of our size has room for millions."""

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class WireFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class WireGoogle(msgspec.Struct):
    thought_signature: str | None = None


class WireExtraContent(msgspec.Struct):
    """Where Gemini's OpenAI dialect puts its seal: https://ai.google.dev/gemini-api/docs/thought-signatures."""

    google: WireGoogle | None = None


class WireToolCall(msgspec.Struct):
    id: str
    function: WireFunction
    extra_content: WireExtraContent | None = None


class WireSpoken(msgspec.Struct):
    """A spoken answer of an earlier turn. Its sound is with the provider; what it said goes back as text."""

    transcript: str | None = None


class WireMessage(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None
    tool_call_id: str | None = None
    is_error: bool | None = None
    reasoning_content: str | None = None
    reasoning_details: list[WireDetail] | None = None
    provider_items: list[WireItem] | None = None
    images: list[dict[str, Any]] | None = None
    audio: WireSpoken | None = None
    function_call: Any = None


def read_messages(messages: list[WireMessage]) -> tuple[Message, ...]:
    """Raises RequestInvalid, naming the message and the part."""
    if not messages:
        raise RequestInvalid("messages: at least one message is needed")
    if sum(map(_count_pieces, messages)) > MAX_PIECES:
        raise RequestInvalid(f"messages: more than {MAX_PIECES} messages and parts")
    check_passed_on([item.item for message in messages for item in message.provider_items or ()], "provider_items")
    return tuple(_read_message(message, f"messages[{number}]") for number, message in enumerate(messages))


def _count_pieces(message: WireMessage) -> int:
    content = message.content if isinstance(message.content, list) else ()
    pieces: Sequence[Sequence[object] | None] = (
        content,
        message.tool_calls,
        message.reasoning_details,
        message.provider_items,
        message.images,
    )
    return 1 + sum(len(some) for some in pieces if some)


def _read_message(message: WireMessage, where: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise RequestInvalid(f"{where}.role: {message.role[:50]!r} is none of {', '.join(_ROLES)}")
    if message.function_call:
        raise RequestInvalid(f"{where}.function_call: gives way to tool_calls; send those")
    if role == "tool" and not message.tool_call_id and not message.provider_items:
        raise RequestInvalid(f"{where}.tool_call_id: a tool's message names the call that it answers")
    check_name(message.name, f"{where}.name")
    parts = _read_content(message.content, where)
    if role == "assistant":
        parts = (*_read_thoughts(message, where), *parts, *_read_made(message, where, has_content=bool(parts)))
    elif role == "tool":
        parts = (*read_items(message.provider_items or (), where), *parts)
    if message.refusal:
        parts = (*parts, Refusal(message.refusal))
    calls = tuple(_read_tool_call(call) for call in message.tool_calls or ())
    return Message(role, parts, message.name, calls, message.tool_call_id, message.is_error)


def _read_content(content: str | list[dict[str, Any]] | None, where: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_read_part(part, f"{where}.content[{number}]") for number, part in enumerate(content))


def _read_thoughts(message: WireMessage, where: str) -> list[Part]:
    """What an assistant brings back. `reasoning_content` has the same words as the details, and no seal."""
    found = read_thoughts(message.reasoning_details or (), message.provider_items or (), where)
    if message.reasoning_content and not message.reasoning_details:
        found.insert(0, Reasoning(message.reasoning_content))
    return found


def _read_made(message: WireMessage, where: str, *, has_content: bool) -> list[Part]:
    """Images that the model made, and what it said aloud, where that is all it said."""
    parts = [_read_part(part, f"{where}.images[{number}]") for number, part in enumerate(message.images or ())]
    if message.audio is not None and not has_content:
        if not message.audio.transcript:
            raise RequestInvalid(f"{where}.audio: spoken answers are not kept here; send the transcript as content")
        parts.append(Text(message.audio.transcript))
    return parts


def _read_tool_call(call: WireToolCall) -> ToolCall:
    google = call.extra_content.google if call.extra_content else None
    return ToolCall(call.id, call.function.name, call.function.arguments, google.thought_signature if google else None)


def _read_part(part: dict[str, Any], where: str) -> Part:
    found = _read_words(part) or read_media(part, where)
    if found is None:
        kind = part.get("type")
        raise RequestInvalid(f"{where}: no part of type {str(kind)[:50]!r} with these members is known")
    if isinstance(found, Text | Image | Document) and "cache_control" in part:
        return replace(found, cache_control=read_cache_control(part["cache_control"], where))
    return found


def _read_words(part: dict[str, Any]) -> Part | None:
    match part:
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
    return read_thinking_part(part)
