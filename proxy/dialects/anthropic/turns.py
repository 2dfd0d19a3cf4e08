"""A conversation as Anthropic's Messages API wants it: a system prompt, and turns of user and assistant in blocks.

https://platform.claude.com/docs/en/api/messages/create
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from proxy.answer import NOT_JSON
from proxy.chat import Document, Image, Message, Part, ProviderItem, Reasoning, Refusal, Text, ToolCall
from proxy.dialects.anthropic.endings import THOUGHTS
from proxy.dialects.anthropic.places import Placed, put_back, read_place
from proxy.errors import RequestNotSupported

FORMAT = "anthropic-claude-v1"

SILENT_ERROR = "The tool failed and said nothing."
"""The API refuses a failure without words."""

Block = dict[str, Any]
Markable = Text | Image | Document

_UNNAMED = Document("", "").name
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_ITEMS = re.compile(r"(?!mcp_)\w+_tool_result|server_tool_use|search_result|tool_reference|compaction", re.ASCII)
"""Blocks that may come back as they are. Not those that name files of this server's account, or hosts."""
_NOT_INLINE = {"url", "file"}
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def build_system(messages: tuple[Message, ...]) -> list[Block]:
    """All system messages, wherever they stand: the API has one place for them."""
    built = [
        _build_block(part, f"messages[{number}]", "system")
        for number, message in enumerate(messages)
        if message.role == "system"
        for part in message.parts
    ]
    return [block for block in built if block is not None]


def build_turns(messages: tuple[Message, ...]) -> list[Block]:
    """Neighbours of one role become one turn, for the results of parallel calls must stand together. A message's `name`
    has no place here.
    """
    turns: list[Block] = []
    for number, message in enumerate(messages):
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _build_blocks(message, f"messages[{number}]")
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _results_first(turns[-1]["content"] + blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise RequestNotSupported("messages: Anthropic wants a message of the user, with something in it")
    return turns


def _results_first(blocks: list[Block]) -> list[Block]:
    """Nothing may come between calls and their results:
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use#handling-results-from-client-tools.
    """
    return sorted(blocks, key=lambda block: block["type"] != "tool_result")


def _build_blocks(message: Message, place: str) -> list[Block]:
    match message.role:
        case "tool":
            return [_build_tool_result(message, place)]
        case "assistant":
            return _without_open_thought(_build_answer(message, place))
    return _build_parts(message.parts, place, "user")


def _build_answer(message: Message, place: str) -> list[Block]:
    """A thought that came later goes back to its place, with what tools of Anthropic's did after it."""
    blocks: list[Block] = []
    later: list[Placed] = []
    here = blocks
    for part in _reasoning_first(message.parts):
        if isinstance(part, Reasoning):
            placed = read_place(part) if part.format == FORMAT else None
            later += [placed] if placed is not None else []
            here = blocks if placed is None else placed.blocks
        elif not isinstance(part, ProviderItem):
            here = blocks
        here += _build_parts((part,), place, "assistant")
    calls = [_build_tool_use(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)]
    return put_back(blocks + calls, later)


def _without_open_thought(blocks: list[Block]) -> list[Block]:
    """Of an answer that was cut off before it came to words: the API wants no thought at the end."""
    while blocks and blocks[-1]["type"] in THOUGHTS:
        blocks = blocks[:-1]
    return blocks


def _build_parts(parts: tuple[Part, ...], place: str, role: str) -> list[Block]:
    built = (_build_block(part, place, role) for part in parts)
    return [block for block in built if block is not None]


def _reasoning_first(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Where it stood, if the turn begins with it or with what a tool of Anthropic's did; else before the rest."""
    if not parts or isinstance(parts[0], Reasoning | ProviderItem):
        return parts
    return tuple(sorted(parts, key=lambda part: not isinstance(part, Reasoning)))


def _build_block(part: Part, place: str, role: str) -> Block | None:
    """None for what says nothing, and for what belongs to another family of providers."""
    match part:
        case Text(text, cache_control):
            return _build_text(text, cache_control)
        case Refusal(text):
            return _build_text(text, None)
        case Reasoning() if role == "assistant":
            return _build_reasoning(part)
        case ProviderItem(format_, item) if role != "system":
            return _build_item(item, place) if format_ == FORMAT else None
        case Image() if role == "user":
            source = {"type": "base64", "media_type": part.media_type, "data": part.data}
            return _marked({"type": "image", "source": source}, part.cache_control)
        case Document() if role == "user":
            return _build_document(part, place)
    raise RequestNotSupported(f"{place}: Anthropic takes no {type(part).__name__} in a message of this role")


def _marked(block: Block, cache_control: Mapping[str, object] | None) -> Block:
    if cache_control is not None:
        block["cache_control"] = cache_control
    return block


def _build_text(text: str, cache_control: Mapping[str, object] | None) -> Block | None:
    """The API refuses texts of nothing but white space."""
    if not text or text.isspace():
        return None
    return _marked({"type": "text", "text": text}, cache_control)


def _build_reasoning(reasoning: Reasoning) -> Block | None:
    """Without its seal, or sealed by somebody else, the API would refuse it."""
    if reasoning.format != FORMAT:
        return None
    if reasoning.encrypted is not None:
        return {"type": "redacted_thinking", "data": reasoning.encrypted}
    if reasoning.signature is not None:
        return {"type": "thinking", "thinking": reasoning.text, "signature": reasoning.signature}
    return None


def _build_item(item: Mapping[str, object], place: str) -> Block:
    kind = item.get("type")
    if not isinstance(kind, str) or not _ITEMS.fullmatch(kind) or _names_outside(item):
        raise RequestNotSupported(f"{place}: an Anthropic block of type {str(kind)[:100]} is not taken from a request")
    return dict(item)


def _names_outside(item: object) -> bool:
    """Whether there is a source that Anthropic would fetch: a URL, or a file of this server's account."""
    waiting = [item]
    while waiting:
        match waiting.pop():
            case {"source": {"type": str(kind)}} if kind in _NOT_INLINE:
                return True
            case {"type": "container_upload"}:
                return True
            case dict() as members:
                waiting += members.values()
            case list() as members:
                waiting += members
    return False


def _build_document(document: Document, place: str) -> Block:
    """https://platform.claude.com/docs/en/build-with-claude/citations#document-types"""
    block: Block = {"type": "document", "source": _document_source(document, place)}
    if document.name != _UNNAMED:
        block["title"] = document.name
    if document.citations is not None:
        block["citations"] = {"enabled": document.citations}
    return _marked(block, document.cache_control)


def _document_source(document: Document, place: str) -> Block:
    if not document.media_type.startswith("text/"):
        return {"type": "base64", "media_type": document.media_type, "data": document.data}
    try:
        text = b64decode(document.data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise RequestNotSupported(f"{place}: a document of text that is not UTF-8 in base64") from error
    return {"type": "text", "media_type": "text/plain", "data": text}


def _build_tool_use(call: ToolCall, place: str) -> Block:
    return {"type": "tool_use", "id": _as_id(call.id), "name": call.name, "input": _read_arguments(call, place)}


def _read_arguments(call: ToolCall, place: str) -> msgspec.Raw:
    """As they were written, numbers and all. Some models write nothing for a tool without parameters; what is no
    object, such as arguments that were cut off, is shown to the model as Anthropic advises:
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming.
    """
    text = call.arguments.strip() or "{}"
    try:
        if _is_object(text):
            return msgspec.Raw(text.encode())
        return msgspec.Raw(msgspec.json.encode({"INVALID_JSON": text}))
    except UnicodeEncodeError as error:
        raise RequestNotSupported(f"{place}.arguments: half a character is no text") from error


def _is_object(text: str) -> bool:
    try:
        _decode_object(text)
    except NOT_JSON:
        return False
    return True


def _as_id(call_id: str | None) -> str:
    """Ids of other providers may hold what Anthropic refuses; the same one becomes the same."""
    return _NOT_IN_IDS.sub("_", call_id or "")


def _build_tool_result(message: Message, place: str) -> Block:
    """Only a whole block of a turn may end a cached prefix, so the mark of a part moves to the result."""
    parts = tuple(replace(part, cache_control=None) if isinstance(part, Markable) else part for part in message.parts)
    content = _build_parts(parts, place, "user")
    if message.is_error and not content:
        content = [{"type": "text", "text": SILENT_ERROR}]
    block: Block = {"type": "tool_result", "tool_use_id": _as_id(message.tool_call_id), "content": content}
    if message.is_error is not None:
        block["is_error"] = message.is_error
    marks = [part.cache_control for part in message.parts if isinstance(part, Markable) and part.cache_control]
    return _marked(block, marks[-1] if marks else None)
