"""Recorded requests to the Responses API, said in our vocabulary, and made comparable with what we send."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from proxy.chat import (
    ChatRequest,
    Document,
    Image,
    Message,
    Part,
    ProviderItem,
    ProviderTool,
    Reasoning,
    Refusal,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    WebSearch,
)

Body = dict[str, Any]


def normalize(body: Mapping[str, Any]) -> Body:
    """The same request spelt in one way: what the API takes in several is said in the one that we send."""
    plain: Body = _without_nulls(body)
    plain["input"] = [_normalize_item(item) for item in _as_items(plain.get("input", []))]
    _move_instructions(plain)
    # Which type an item has becomes a part of its path, so that a reason can speak of it.
    plain["input"] = [{item.pop("type"): item} for item in plain["input"]]
    # Their order says nothing.
    tools = sorted(map(_normalize_tool, plain.pop("tools", [])), key=lambda tool: json.dumps(tool, sort_keys=True))
    if tools:
        plain["tools"] = tools
    if isinstance(plain.get("tool_choice"), dict):
        plain["tool_choice"] = _normalize_tool(plain["tool_choice"])
    plain["include"] = dict.fromkeys(plain.get("include", []), True)  # we may ask for more
    return plain


def _without_nulls(value: Any) -> Any:
    """null is what is not there."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _as_items(given: str | list[Body]) -> list[Body]:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def _normalize_item(item: Body) -> Body:
    item = {"type": "message", **item}
    if item["type"] == "message":
        item["role"] = "system" if item["role"] == "developer" else item["role"]
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        if isinstance(item["content"], str):
            item["content"] = [{"type": kind, "text": item["content"]}]
    elif item["type"] == "function_call_output" and isinstance(item["output"], list):
        if all(part["type"] == "input_text" for part in item["output"]):
            item["output"] = "".join(part["text"] for part in item["output"])
    elif item["type"] == "reasoning" and item.get("content") == []:
        del item["content"]
    return item


def _move_instructions(plain: Body) -> None:
    """A system message at the start is an instruction, too."""
    items = plain["input"]
    texts = [plain["instructions"]] if plain.get("instructions") else []
    while len(items) > 1 and items[0].get("role") == "system":
        texts += [part["text"] for part in items.pop(0)["content"]]
    if texts:
        plain["instructions"] = "\n\n".join(texts)


def _normalize_tool(tool: Body) -> Body:
    # `web_search_preview` is the search's older name, and `function` the shape of chat completions.
    if tool["type"] == "web_search_preview":
        return {**tool, "type": "web_search"}
    flat = {name: value for name, value in tool.items() if name != "function"}
    return {**flat, **tool.get("function", {})}


def read_request(body: Mapping[str, Any], item_format: str) -> ChatRequest:
    """The equivalent request in our vocabulary."""
    plain = normalize(body)
    tools = plain.get("tools", [])
    functions = [tool for tool in tools if tool["type"] == "function" and not tool.get("defer_loading")]
    searches = [tool for tool in tools if tool["type"] == "web_search"]
    others = [tool for tool in tools if tool not in functions and tool not in searches]
    return ChatRequest(
        model=body.get("model", ""),
        messages=tuple(_read_messages(plain, item_format)),
        max_output_tokens=plain.get("max_output_tokens"),
        sampling=_read_sampling(plain),
        tools=tuple(_read_tool(tool) for tool in functions),
        provider_tools=tuple(ProviderTool(tool["type"], tool) for tool in others),
        tool_choice=_read_tool_choice(plain.get("tool_choice")),
        parallel_tool_calls=plain.get("parallel_tool_calls"),
        response_format=_read_format(plain.get("text", {}).get("format")),
        web_search=_read_search(searches[0]) if searches else None,
        prompt_cache_key=plain.get("prompt_cache_key"),
        metadata=plain.get("metadata"),
        end_user=plain.get("safety_identifier") or plain.get("user"),
    )


def _read_sampling(plain: Body) -> Sampling:
    reasoning = plain.get("reasoning", {})
    return Sampling(
        temperature=plain.get("temperature"),
        top_p=plain.get("top_p"),
        reasoning_effort=reasoning.get("effort"),
        reasoning_summary=reasoning.get("summary"),
        top_logprobs=plain.get("top_logprobs"),
        verbosity=plain.get("text", {}).get("verbosity"),
    )


def _read_tool(tool: Body) -> Tool:
    return Tool(tool["name"], tool.get("description"), tool.get("parameters"), tool.get("strict"))


def _read_tool_choice(choice: str | Body | None) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case {"type": "allowed_tools", "mode": ("auto" | "required") as mode, "tools": list(tools)}:
            return ToolChoice(mode, tuple(tool["name"] for tool in tools))
        case {"name": str(name)} | {"type": str(name)}:
            return ToolChoice("required", (name,))
    raise AssertionError(choice)


def _read_format(wanted: Body | None) -> ResponseFormat | None:
    if wanted is None:
        return None
    if wanted["type"] != "json_schema":
        return ResponseFormat(wanted["type"])
    schema, description, strict = wanted["schema"], wanted.get("description"), wanted.get("strict")
    return ResponseFormat("json_schema", wanted["name"], schema, description, strict)


def _read_search(tool: Body) -> WebSearch:
    location = {name: value for name, value in tool.get("user_location", {}).items() if name != "type"}
    domains = tuple(tool.get("filters", {}).get("allowed_domains", ()))
    return WebSearch(tool.get("search_context_size"), location or None, domains)


def _read_messages(plain: Body, item_format: str) -> Iterable[Message]:
    """What the model did since somebody spoke to it is one turn, unless it thought or said more after it had called."""
    if "instructions" in plain:
        yield Message("system", (Text(plain["instructions"]),))
    turn = Message("assistant")
    for typed in plain["input"]:
        [(kind, item)] = typed.items()
        message = _read_item(kind, item, item_format)
        if turn.tool_calls and (message.parts or message.role != "assistant"):
            yield turn
            turn = Message("assistant")
        if message.role == "assistant":
            turn = Message("assistant", turn.parts + message.parts, tool_calls=turn.tool_calls + message.tool_calls)
            continue
        if turn.parts:
            yield turn
            turn = Message("assistant")
        yield message
    if turn != Message("assistant"):
        yield turn


def _read_item(kind: str, item: Body, item_format: str) -> Message:
    match kind:
        case "message":
            return Message(item["role"], tuple(map(_read_part, item["content"])))
        case "reasoning":
            return Message("assistant", tuple(_read_reasoning(item, item_format)))
        case "function_call":
            return Message("assistant", tool_calls=(ToolCall(item["call_id"], item["name"], item["arguments"]),))
        case "function_call_output":
            output = item["output"]
            told = (Text(output),) if isinstance(output, str) else tuple(map(_read_part, output))
            return Message("tool", told, tool_call_id=item["call_id"])
    parts = (ProviderItem(item_format, {"type": kind, **item}),)
    return Message("tool", parts) if kind.endswith("_output") else Message("assistant", parts)


def _read_reasoning(item: Body, item_format: str) -> Iterable[Reasoning]:
    """A block for each part of the summary; the last has the seal."""
    texts = [part["text"] for part in item["summary"]] or [""]
    for number, text in enumerate(texts, 1):
        encrypted = item.get("encrypted_content") if number == len(texts) else None
        yield Reasoning(text, item_format, item.get("id"), encrypted=encrypted, is_summary=True)


def _read_part(part: Body) -> Part:
    mark = {"type": "ephemeral"} if "prompt_cache_breakpoint" in part else None
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)}:
            return Text(text, mark)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
        case {"type": "input_image", "image_url": str(url)}:
            return Image(*_read_data_url(url), part.get("detail"), mark)
        case {"type": "input_file", "file_data": str(url)}:
            return Document(*_read_data_url(url), part["filename"], mark)
    raise AssertionError(part)


def _read_data_url(url: str) -> tuple[str, str]:
    media_type, data = url.removeprefix("data:").split(";base64,")
    return media_type, data
