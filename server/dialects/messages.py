"""Messages as both dialects write them: OpenAI's shapes and the few that the shipped clients add. Pure.

Bad input is refused with the index of the part, before anything else happens.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.chat import Document, Image, Message, Part, Refusal, Role, Text, ToolCall
from server.errors import RequestInvalid

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/heic", "image/heif"})
DOCUMENT_TYPES = frozenset({"application/pdf"})
MAX_NAME = 200
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


class WireToolCall(msgspec.Struct):
    id: str
    function: WireFunction


class WireMessage(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None
    tool_call_id: str | None = None


def read_messages(messages: list[WireMessage]) -> tuple[Message, ...]:
    """Raises RequestInvalid, naming the message and the part."""
    if not messages:
        raise RequestInvalid("messages: at least one message is needed")
    if sum(map(_count_pieces, messages)) > MAX_PIECES:
        raise RequestInvalid(f"messages: more than {MAX_PIECES} messages and parts")
    return tuple(_read_message(message, f"messages[{number}]") for number, message in enumerate(messages))


def _count_pieces(message: WireMessage) -> int:
    return 1 + (len(message.content) if isinstance(message.content, list) else 0) + len(message.tool_calls or ())


def _read_message(message: WireMessage, where: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise RequestInvalid(f"{where}.role: {message.role[:50]!r} is none of {', '.join(_ROLES)}")
    if role == "tool" and not message.tool_call_id:
        raise RequestInvalid(f"{where}.tool_call_id: a tool's message names the call that it answers")
    if message.name is not None and len(message.name) > MAX_NAME:
        raise RequestInvalid(f"{where}.name: at most {MAX_NAME} characters")
    parts = _read_content(message.content, where)
    if message.refusal:
        parts = (*parts, Refusal(message.refusal))
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
    )
    return Message(role, parts, message.name, calls, message.tool_call_id)


def _read_content(content: str | list[dict[str, Any]] | None, where: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_read_part(part, f"{where}.content[{number}]") for number, part in enumerate(content))


def _read_part(part: dict[str, Any], where: str) -> Part:
    match part:
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            return _read_image(url, rest.get("detail"), where)
        case {"type": "image_url" | "input_image", "image_url": str(url)}:
            return _read_image(url, part.get("detail"), where)
        case {"type": "image", "source": dict(source)}:
            return _read_source_image(source, where)
        case {"type": "document", "source": dict(source)}:
            return _read_source_document(source, where)
        case {"type": "file", "file": {"file_data": str(url), **rest}}:
            return _read_document(url, rest.get("filename"), where)
        case {"type": "input_file", "file_data": str(url)}:
            return _read_document(url, part.get("filename"), where)
        case {"type": "input_image" | "input_file", "file_id": _} | {"type": "file", "file": {"file_id": _}}:
            raise RequestInvalid(f"{where}: files by id are not kept here; inline the data as a data: URL")
    kind = part.get("type")
    raise RequestInvalid(f"{where}: no part of type {str(kind)[:50]!r} with these members is known")


def _read_image(url: str, detail: object, where: str) -> Image:
    media_type, data = _split_data_url(url, where)
    _check_type(media_type, IMAGE_TYPES, where)
    return Image(media_type, data, detail if isinstance(detail, str) else None)


def _read_document(url: str, name: object, where: str) -> Document:
    media_type, data = _split_data_url(url, where)
    _check_type(media_type, DOCUMENT_TYPES, where)
    return Document(media_type, data, name if isinstance(name, str) and name else "document.pdf")


def _read_source_image(source: dict[str, Any], where: str) -> Image:
    match source:
        case {"type": "base64", "media_type": str(media_type), "data": str(data)}:
            return _read_image(f"data:{media_type};base64,{data}", None, where)
        case {"type": "url", "url": str(url)}:
            return _read_image(url, None, where)
    raise RequestInvalid(f"{where}.source: inline the image as base64 with media_type and data")


def _read_source_document(source: dict[str, Any], where: str) -> Document:
    name = source.get("file_name")
    match source:
        case {"type": "base64", "media_type": str(media_type), "data": str(data)}:
            return _read_document(f"data:{media_type};base64,{data}", name, where)
        case {"type": "url", "url": str(url)}:
            return _read_document(url, name, where)
    raise RequestInvalid(f"{where}.source: inline the document as base64 with media_type and data")


def _split_data_url(url: str, where: str) -> tuple[str, str]:
    head, comma, data = url.partition(",")
    media_type, semicolon, encoding = head.removeprefix("data:").partition(";")
    if not head.startswith("data:") or not comma or encoding != "base64" or not semicolon:
        raise RequestInvalid(f"{where}: remote addresses are not fetched; inline the data as data:<type>;base64,<data>")
    media_type = media_type.strip().lower()
    if not data.isascii():
        raise RequestInvalid(f"{where}: the data is no base64")
    return ("image/jpeg" if media_type == "image/jpg" else media_type), "".join(data.split())


def _check_type(media_type: str, allowed: frozenset[str], where: str) -> None:
    if media_type not in allowed:
        raise RequestInvalid(f"{where}: {media_type[:100]!r} is none of {', '.join(sorted(allowed))}")
