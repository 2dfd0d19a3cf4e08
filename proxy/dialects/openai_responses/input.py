"""A conversation as the items that the Responses API takes.

https://developers.openai.com/api/docs/guides/conversation-state: what a model said, thought and called are items of
their own, in the order in which they happened.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from proxy.chat import Document, Image, Message, Part, ProviderItem, Reasoning, Refusal, Text, ToolCall
from proxy.dialects.call_ids import fit_call_id
from proxy.errors import RequestNotSupported

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputRules:
    """What differs between providers and models. `format` is that of the items which may go back there."""

    format: str
    needs_sealed_reasoning: bool = True
    takes_cache_marks: bool = False
    keeps_instructions: bool = True
    """Whether leading system messages are the instructions."""
    max_call_id: int | None = None


def build_input(messages: tuple[Message, ...], rules: InputRules) -> tuple[str | None, list[Item]]:
    """The instructions, and the items that follow.

    Leading system messages are the instructions; a request needs at least one item, so that nothing but system
    messages stay items. Reasoning and items of another format are left out: they are no business of this provider's.
    """
    instructions, rest = _split_instructions(messages, rules)
    items = [item for message in rest for item in _build_items(message, rules)]
    return instructions, _without_loose_thoughts(items) if rules.needs_sealed_reasoning else items


def _split_instructions(messages: tuple[Message, ...], rules: InputRules) -> tuple[str | None, tuple[Message, ...]]:
    leading = 0
    while rules.keeps_instructions and leading < len(messages) and _is_instruction(messages[leading], rules):
        leading += 1
    if leading in {0, len(messages)}:
        return None, messages
    texts = [part.text for message in messages[:leading] for part in message.parts if isinstance(part, Text)]
    return "\n\n".join(texts) or None, messages[leading:]


def _is_instruction(message: Message, rules: InputRules) -> bool:
    """Instructions are plain text: a mark for the cache has no place there."""
    texts = [part for part in message.parts if isinstance(part, Text)]
    is_marked = rules.takes_cache_marks and any(text.cache_control for text in texts)
    return message.role == "system" and len(texts) == len(message.parts) and not is_marked


def _build_items(message: Message, rules: InputRules) -> Iterator[Item]:
    if message.role == "tool":
        yield from _build_tool_output(message, rules)
        return
    for kind, parts in _runs(_said(message)):
        if kind is Reasoning:
            yield from _build_reasoning(parts, rules)
        elif kind is ProviderItem:
            yield from _own_items(parts, rules)
        elif message.role == "assistant":
            yield {"type": "message", "role": "assistant", "content": [_build_output_content(part) for part in parts]}
        else:
            content = [_build_input_content(part, rules) for part in parts]
            yield {"type": "message", "role": message.role, "content": content}
    yield from (_build_call(call, rules) for call in message.tool_calls)


def _said(message: Message) -> tuple[Part, ...]:
    """Programs write an empty text where an assistant said nothing, as in a turn of calls."""
    if message.role != "assistant":
        return message.parts
    return tuple(part for part in message.parts if part != Text(""))


def _without_loose_thoughts(items: list[Item]) -> list[Item]:
    """OpenAI refuses reasoning that nothing of the same turn follows, as in an answer that was broken off in it."""
    kept: list[Item] = []
    for item in reversed(items):
        if item["type"] != "reasoning" or (kept and _is_of_model(kept[-1])):
            kept.append(item)
    return kept[::-1]


def _is_of_model(item: Item) -> bool:
    type_ = str(item.get("type"))
    return item.get("role") == "assistant" if type_ == "message" else not type_.endswith("_output")


def _build_reasoning(parts: Iterable[Part], rules: InputRules) -> Iterator[Item]:
    """One item has a summary of several parts, which were told as several blocks; its seal came with the last.

    OpenAI looks up by its id what is not sealed, and finds nothing: we do not store.
    """
    item: Item = {"summary": []}
    items = [item]
    for block in parts:
        if not isinstance(block, Reasoning) or block.format != rules.format:
            continue
        if item.get("id") != block.id or "encrypted_content" in item:
            item = {"id": block.id, "summary": []} if block.id else {"summary": []}
            items.append(item)
        if block.text:
            item["summary"].append({"type": "summary_text", "text": block.text})
        if block.encrypted:
            item["encrypted_content"] = block.encrypted
    for built in items:
        if "encrypted_content" in built or (built["summary"] and not rules.needs_sealed_reasoning):
            yield {"type": "reasoning", **built}


def _runs(parts: tuple[Part, ...]) -> Iterator[tuple[type, list[Part]]]:
    """Neighbours that go into one place: what was said, or what was thought."""
    run: list[Part] = []
    kind: type = object
    for part in parts:
        own_kind = type(part) if isinstance(part, Reasoning | ProviderItem) else object
        if run and own_kind is not kind:
            yield kind, run
            run = []
        kind = own_kind
        run.append(part)
    if run:
        yield kind, run


def _own_items(parts: Iterable[Part], rules: InputRules) -> Iterator[Item]:
    for part in parts:
        if isinstance(part, ProviderItem) and part.format == rules.format:
            yield dict(part.item)


def _build_tool_output(message: Message, rules: InputRules) -> Iterator[Item]:
    """Some tools answer with an item of their own (`computer_call_output`), others with text or media."""
    yield from _own_items(message.parts, rules)
    if message.tool_call_id is None:
        return
    parts = [part for part in message.parts if not isinstance(part, ProviderItem)]
    output: str | list[Item] = "".join(part.text for part in parts if isinstance(part, Text))
    if not all(isinstance(part, Text) for part in parts):
        output = [_build_input_content(part, rules) for part in parts]
    call_id = fit_call_id(message.tool_call_id, rules.max_call_id)
    yield {"type": "function_call_output", "call_id": call_id, "output": output}


def _build_input_content(part: Part, rules: InputRules) -> Item:
    content: Item
    match part:
        case Text(text) | Refusal(text):
            content = {"type": "input_text", "text": text}
        case Image(media_type, data, detail):
            content = {"type": "input_image", "image_url": _data_url(media_type, data)}
            if detail:
                content["detail"] = detail
        case Document(media_type, data, name):
            content = {"type": "input_file", "filename": name, "file_data": _data_url(media_type, data)}
        case _:
            kind = type(part).__name__
            raise RequestNotSupported(f"messages: a part of kind {kind} is not taken by this model's provider")
    if rules.takes_cache_marks and not isinstance(part, Refusal) and part.cache_control:
        content["prompt_cache_breakpoint"] = {"mode": "explicit"}
    return content


def _build_output_content(part: Part) -> Item:
    match part:
        case Text(text):
            return {"type": "output_text", "text": text}
        case Refusal(text):
            return {"type": "refusal", "refusal": text}
    kind = type(part).__name__
    raise RequestNotSupported(f"messages: this model's provider takes no part of kind {kind} from an assistant")


def _build_call(call: ToolCall, rules: InputRules) -> Item:
    call_id = fit_call_id(call.id, rules.max_call_id)
    return {"type": "function_call", "call_id": call_id, "name": call.name, "arguments": call.arguments or "{}"}


def _data_url(media_type: str, data: str) -> str:
    return f"data:{media_type};base64,{data}"
