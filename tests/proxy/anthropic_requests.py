"""Recorded requests to Anthropic's Messages API, said in our vocabulary; and spelt in one way, to be compared."""

import json
from base64 import b64encode
from dataclasses import replace
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
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    WebSearch,
)
from proxy.dialects.anthropic.turns import FORMAT

_FUNCTION_MEMBERS = {"type", "name", "description", "input_schema", "strict", "cache_control"}
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}

Body = dict[str, Any]


class CannotBeSaid(Exception):
    """The vocabulary has no words for it, on purpose."""


def read_request(body: Body) -> ChatRequest:
    """The request that asks for the same."""
    body = normalized(body)
    system = [Message("system", _parts(body["system"]))] if "system" in body else []
    turns = [message for turn in body["messages"] for message in _messages(turn)]
    tools = body.get("tools", [])
    return ChatRequest(
        model=body["model"],
        messages=(*system, *turns),
        max_output_tokens=body["max_tokens"],
        sampling=_sampling(body),
        tools=tuple(_tool(tool) for tool in tools if _is_function(tool)),
        provider_tools=tuple(ProviderTool(tool.get("type", "custom"), tool) for tool in tools if _is_own(tool)),
        web_search=next((_web_search(tool) for tool in tools if _is_search(tool)), None),
        tool_choice=_tool_choice(body.get("tool_choice")),
        parallel_tool_calls=_parallel(body.get("tool_choice")),
        response_format=_response_format(body),
        cache_control=body.get("cache_control"),
        end_user=body.get("metadata", {}).get("user_id"),
    )


def read_capabilities(body: Body) -> Body:
    """What the catalogue would have to say of the model: which web search is to be used."""
    searches = [tool["type"] for tool in body.get("tools", []) if _is_search(tool)]
    return {"web_search": searches[0]} if searches else {}


def normalized(body: Body) -> Body:
    """Spelt in one way: a text is a list of one block, null is absence, tools stand in the order of their names, and
    the structured output's beta, `output_format`, has its present name.
    """
    body = _without_null(body)
    if isinstance(body.get("system"), str):
        body["system"] = _blocks(body["system"])
    body["messages"] = [turn | {"content": _blocks(turn["content"])} for turn in body["messages"]]
    if "output_format" in body:
        body["output_config"] = {"format": body.pop("output_format")}
    tools = [{k: v for k, v in tool.items() if (k, v) != ("type", "custom")} for tool in body.pop("tools", [])]
    if tools:
        body["tools"] = sorted(tools, key=lambda tool: str(tool["name"]))
    return body


def _without_null(value: Any) -> Any:
    """Except in schemas, where it may be a value."""
    if isinstance(value, dict):
        return {
            name: inner if name in {"input_schema", "schema", "input"} else _without_null(inner)
            for name, inner in value.items()
            if inner is not None
        }
    return [_without_null(inner) for inner in value] if isinstance(value, list) else value


def _blocks(content: str | list[Body]) -> list[Body]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [
        block | {"content": _blocks(block["content"])} if block.get("type") == "tool_result" else block
        for block in blocks
    ]


def _messages(turn: Body) -> list[Message]:
    """A turn of ours holds results of tools in messages of their own, before the rest."""
    results = [block for block in turn["content"] if block["type"] == "tool_result"]
    calls = [block for block in turn["content"] if block["type"] == "tool_use"]
    rest = [block for block in turn["content"] if block["type"] not in {"tool_result", "tool_use"}]
    messages = [_tool_message(block) for block in results]
    if rest or calls:
        messages.append(Message(turn["role"], _parts(rest), tool_calls=tuple(_tool_call(block) for block in calls)))
    return messages


def _tool_message(block: Body) -> Message:
    parts = list(_parts(block["content"]))
    if "cache_control" in block:
        last = parts[-1]
        assert isinstance(last, Text | Image | Document)
        parts[-1] = replace(last, cache_control=block["cache_control"])
    return Message("tool", tuple(parts), tool_call_id=block["tool_use_id"], is_error=block.get("is_error"))


def _tool_call(block: Body) -> ToolCall:
    return ToolCall(block["id"], block["name"], json.dumps(block["input"]))


def _parts(blocks: list[Body]) -> tuple[Part, ...]:
    return tuple(_part(block) for block in blocks)


def _part(block: Body) -> Part:
    mark = block.get("cache_control")
    match block:
        case {"type": "text", "text": str(text)}:
            return Text(text, mark)
        case {"type": "image" | "document", "source": {"type": "url" | "file" as kind}}:
            raise CannotBeSaid(kind)
        case {"type": "container_upload" | "tool_addition" as kind}:
            raise CannotBeSaid(kind)
        case {"type": "image", "source": source}:
            return Image(source["media_type"], source["data"], cache_control=mark)
        case {"type": "document", "source": source}:
            return _document(block, source)
        case {"type": "thinking"}:
            return Reasoning(block["thinking"], FORMAT, signature=block["signature"])
        case {"type": "redacted_thinking"}:
            return Reasoning(format=FORMAT, encrypted=block["data"])
    return ProviderItem(FORMAT, block)


def _document(block: Body, source: Body) -> Document:
    data = source["data"]
    if source["type"] == "text":
        data = b64encode(data.encode()).decode()
    title = block.get("title", Document("", "").name)
    citations = block.get("citations", {}).get("enabled")
    return Document(source["media_type"], data, title, block.get("cache_control"), citations)


def _is_search(tool: Body) -> bool:
    return str(tool.get("type")).startswith("web_search_")


def _is_function(tool: Body) -> bool:
    """JSON Schema knows a bare `true` too; our functions have an object."""
    if tool.get("type", "custom") != "custom":
        return False
    return set(tool) <= _FUNCTION_MEMBERS and isinstance(tool["input_schema"], dict)


def _is_own(tool: Body) -> bool:
    """With members that only Anthropic knows, or defined by it."""
    return not _is_function(tool) and not _is_search(tool)


def _tool(tool: Body) -> Tool:
    return Tool(
        tool["name"], tool.get("description"), tool["input_schema"], tool.get("strict"), tool.get("cache_control")
    )


def _web_search(tool: Body) -> WebSearch:
    return WebSearch(
        user_location=tool.get("user_location"),
        allowed_domains=tuple(tool.get("allowed_domains", ())),
        blocked_domains=tuple(tool.get("blocked_domains", ())),
        max_searches=tool.get("max_uses", 10),
    )


def _tool_choice(choice: Body | None) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case {"type": "tool", "name": name}:
            return ToolChoice("required", (name,))
    return ToolChoice(_CHOICES[choice["type"]])  # type: ignore[arg-type]  # the values are modes


def _parallel(choice: Body | None) -> bool | None:
    disabled = (choice or {}).get("disable_parallel_tool_use")
    return None if disabled is None else not disabled


def _sampling(body: Body) -> Sampling:
    thinking = body.get("thinking", {})
    display = {"summarized": "auto", "omitted": "none"}.get(thinking.get("display", ""))
    tokens = 0 if thinking.get("type") == "disabled" else thinking.get("budget_tokens")
    return Sampling(
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        top_k=body.get("top_k"),
        stop=tuple(body.get("stop_sequences", ())),
        reasoning_effort=body.get("output_config", {}).get("effort"),
        reasoning_tokens=tokens,
        reasoning_summary=display,
    )


def _response_format(body: Body) -> ResponseFormat | None:
    match body.get("output_config"):
        case {"format": {"type": "json_schema", "schema": dict(schema)}}:
            return ResponseFormat("json_schema", schema=schema)
        case {"format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}}:
            return ResponseFormat("json_schema", name, schema)
    return None
