"""Messages in OpenAI's chat dialect: https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages.

Servers refuse members that they do not know, so whatever only some of them take is sent by the server's quirks alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.chat import (
    Audio,
    ChatRequest,
    Document,
    Image,
    Message,
    Part,
    ProviderItem,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from proxy.dialects.call_ids import fit_call_id
from proxy.dialects.openai_chat.quirks import GOOGLE_FORMAT, ChatQuirks
from proxy.dialects.openai_chat.reasoning import ACCOUNT_BOUND, SEALED_HERE
from proxy.errors import RequestNotSupported

_PLAIN_FORMATS = frozenset({"", "unknown"})


def build_messages(request: ChatRequest, quirks: ChatQuirks) -> list[dict[str, Any]]:
    """Raises RequestNotSupported for what this dialect has no place for."""
    built = [_build_message(message, f"messages[{number}]", quirks) for number, message in enumerate(request.messages)]
    said = [message for message in built if message is not None]
    if not said:
        raise RequestNotSupported("messages: nothing is left that can be sent to this model's provider")
    return said


def _build_message(message: Message, where: str, quirks: ChatQuirks) -> dict[str, Any] | None:
    """None for an assistant's turn that held nothing but what goes to other providers only: an empty one is refused. So
    is a tool's message that names no call: it answers what such a turn held.
    """
    if message.role == "tool" and message.tool_call_id is None:
        return None
    shown = [part for part in message.parts if not isinstance(part, Reasoning | ProviderItem)]
    extra = _build_extra(message, quirks)
    built: dict[str, Any] = {"role": message.role, "content": _build_content(shown, where, quirks)}
    if message.name is not None:
        built["name"] = message.name
    if message.tool_calls:
        built["tool_calls"] = [_build_tool_call(call, quirks) for call in message.tool_calls]
    if message.tool_call_id is not None:
        built["tool_call_id"] = fit_call_id(message.tool_call_id, quirks.max_call_id)
    if built["content"] is None and not message.tool_calls and "audio" not in extra:
        if message.role == "assistant" and not extra:
            return None
        built["content"] = ""
    return built | extra


def _build_content(parts: Sequence[Part], where: str, quirks: ChatQuirks) -> str | list[dict[str, Any]] | None:
    """A single text goes as a plain string, which every server of this dialect takes."""
    if not parts:
        return None
    built = [_build_part(part, f"{where}.content[{number}]", quirks) for number, part in enumerate(parts)]
    if len(built) == 1 and built[0].keys() == {"type", "text"}:
        return str(built[0]["text"])
    return built


def _build_part(part: Part, where: str, quirks: ChatQuirks) -> dict[str, Any]:
    match part:
        case Text(text, hint):
            return _with_hint({"type": "text", "text": text}, hint, quirks)
        case Refusal(text):
            return {"type": "refusal", "refusal": text} if quirks.takes_refusals else {"type": "text", "text": text}
        case Image(media_type, data, detail, hint):
            image = {"url": f"data:{media_type};base64,{data}"} | ({"detail": detail} if detail else {})
            return _with_hint({"type": "image_url", "image_url": image}, hint, quirks)
        case Document():
            return _build_document(part, where, quirks)
        case Audio(format_, data):
            return {"type": "input_audio", "input_audio": {"data": data, "format": format_}}
    raise RequestNotSupported(f"{where}: {quirks.name} takes no part of kind {type(part).__name__}")


def _build_document(document: Document, where: str, quirks: ChatQuirks) -> dict[str, Any]:
    if document.citations:
        raise RequestNotSupported(f"{where}.citations: {quirks.name} gives no references into documents; leave it out")
    file = {"filename": document.name, "file_data": f"data:{document.media_type};base64,{document.data}"}
    return _with_hint({"type": "file", "file": file}, document.cache_control, quirks)


def _with_hint(part: dict[str, Any], hint: Mapping[str, object] | None, quirks: ChatQuirks) -> dict[str, Any]:
    """OpenAI's mark has a mode where Anthropic's has a type: https://platform.openai.com/docs/guides/prompt-caching."""
    if hint is None or not quirks.cache_hints:
        return part
    return part | {quirks.cache_hints: hint if quirks.cache_hints == "cache_control" else {"mode": "explicit"}}


def _build_tool_call(call: ToolCall, quirks: ChatQuirks) -> dict[str, Any]:
    """No arguments are told as no text and as an empty object; xAI takes the latter alone:
    https://github.com/spiceai/spiceai/issues/4734.
    """
    built: dict[str, Any] = {
        "id": fit_call_id(call.id, quirks.max_call_id),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    if call.signature and quirks.takes_signatures:
        built["extra_content"] = {"google": {"thought_signature": call.signature}}
    return built


def _build_extra(message: Message, quirks: ChatQuirks) -> dict[str, Any]:
    """What stands beside content and calls: reasoning of an earlier turn, and what its provider wants back."""
    extra: dict[str, Any] = {}
    if quirks.replays == "reasoning_details":
        extra["reasoning_details"] = list(_details(message))
    elif quirks.replays == "reasoning_content":
        extra["reasoning_content"] = "".join(part.text for part in _reasoning(message) if part.format in _PLAIN_FORMATS)
    if quirks.takes_signatures:
        seals = [part.signature for part in _reasoning(message) if part.signature and part.format == GOOGLE_FORMAT]
        extra["extra_content"] = {"google": {"thought_signature": seals[-1]}} if seals else None
    for item in _items(message, quirks):
        if item.get("type") == "audio":
            extra["audio"] = {"id": item.get("id")}
        elif item.get("type") == "file":
            extra["annotations"] = [*extra.get("annotations", ()), item]
    return {name: value for name, value in extra.items() if value}


def _reasoning(message: Message) -> Iterator[Reasoning]:
    return (part for part in message.parts if isinstance(part, Reasoning))


def _items(message: Message, quirks: ChatQuirks) -> Iterator[Mapping[str, object]]:
    for part in message.parts:
        if isinstance(part, ProviderItem) and part.format == quirks.item_format:
            yield part.item


def _details(message: Message) -> Iterator[Mapping[str, object]]:
    """OpenRouter's, in the order of the turn: https://openrouter.ai/docs/use-cases/reasoning-tokens."""
    index = 0
    for part in message.parts:
        if isinstance(part, Reasoning):
            yield from (detail | {"index": index} for detail in _detail(part))
            index += 1
        elif isinstance(part, ProviderItem) and str(part.item.get("type")).startswith("reasoning."):
            yield part.item
            index += 1


def _detail(part: Reasoning) -> Iterator[dict[str, object]]:
    """A text and its sealed form are two entries with the same index; a seal for another account is left out."""
    rest: dict[str, object] = {"format": part.format.removesuffix(SEALED_HERE)} if part.format else {}
    if part.is_summary and part.text:
        yield {"type": "reasoning.summary", "summary": part.text} | rest
    elif part.text or part.signature:
        signature = {"signature": part.signature} if part.signature else {}
        yield {"type": "reasoning.text", "text": part.text} | signature | rest
    if part.encrypted and part.format not in ACCOUNT_BOUND:
        yield {"type": "reasoning.encrypted", "data": part.encrypted} | ({"id": part.id} if part.id else {}) | rest
