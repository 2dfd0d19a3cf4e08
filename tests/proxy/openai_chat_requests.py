"""Recorded bodies of chat completions, read into our vocabulary; rewritten where they say the same in other words."""

import json
from collections.abc import Mapping
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
    ResponseFormat,
    Role,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    WebSearch,
)
from proxy.dialects.openai_chat.quirks import OPENAI_CHAT_FORMAT, ChatQuirks
from proxy.dialects.openai_chat.reasoning import ACCOUNT_BOUND, SEALED_HERE

INLINED = "data:image/png;base64,QUJD"
HINT = {"type": "ephemeral"}
ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def rewrite(body: dict[str, Any], quirks: ChatQuirks) -> dict[str, Any]:
    """The same request in the words that we use for this server."""
    known = {name: value for name, value in body.items() if value is not None and value != []}
    known["messages"] = [_rewrite_message(message) for message in body.get("messages", [])]
    limit = known.pop("max_tokens", None) or known.pop("max_completion_tokens", None)
    if limit is not None:
        known[quirks.output_limit] = limit
    if isinstance(known.get("stop"), str):
        known["stop"] = [known["stop"]]
    if known.get("n") == 1:
        del known["n"]  # one answer is what every server gives unasked
    _rewrite_tools(known)
    _rewrite_openrouter(known, quirks)
    return known


def _rewrite_tools(known: dict[str, Any]) -> None:
    """`functions` are the predecessor of tools; a choice of type `tool` is Anthropic's word for a function."""
    if "functions" in known:
        known["tools"] = [{"type": "function", "function": function} for function in known.pop("functions")]
    if "function_call" in known:
        known["tool_choice"] = known.pop("function_call")
    match known.get("tool_choice"):
        case {"type": "tool", "name": name}:
            known["tool_choice"] = {"type": "function", "function": {"name": name}}


def _rewrite_openrouter(known: dict[str, Any], quirks: ChatQuirks) -> None:
    """OpenRouter takes OpenAI's words for the effort and for a search too."""
    if quirks.code == "openrouter":
        if "reasoning_effort" in known:
            known["reasoning"] = {"effort": known.pop("reasoning_effort")}
        if "web_search_options" in known:
            known["tools"] = [*known.get("tools", []), {"type": "openrouter:web_search"}]
            assert known.pop("web_search_options") == {}


def _rewrite_message(message: dict[str, Any]) -> dict[str, Any]:
    """No content, null and an empty list are the same; so are one text and a list of it."""
    known = {name: value for name, value in message.items() if value is not None and value != []}
    if known["role"] == "developer":
        known["role"] = "system"  # the newer name of the same role, which OpenAI takes in either
    if isinstance(known.get("content"), list):
        known["content"] = [_rewrite_part(part) for part in known["content"]]
    hint = known.pop("cache_control", None)
    if hint is not None:  # a mark on a message marks its last part
        known["content"] = [{"type": "text", "text": known["content"], "cache_control": hint}]
    match known.get("content"):
        case [{"type": "text", "text": text, **rest}] if not rest:
            known["content"] = text
    if "reasoning" in known:  # the very text of its reasoning_details, which OpenRouter takes in their place
        assert known.pop("reasoning") == "".join(detail["text"] for detail in known["reasoning_details"])
    return known


def _rewrite_part(part: dict[str, Any]) -> dict[str, Any]:
    """Remote addresses are refused, contract §1.2: a client that says the same inlines the picture."""
    match part:
        case {"type": "image_url", "image_url": str(url)}:
            part = part | {"image_url": {"url": url}}
    match part:
        case {"type": "image_url", "image_url": {"url": url, **rest}} if not url.startswith("data:"):
            return part | {"image_url": {"url": INLINED, **rest}}
    return part


def read_request(body: dict[str, Any]) -> ChatRequest:
    """The request in our vocabulary. Takes a body that `rewrite` has been over."""
    return ChatRequest(
        model=body["model"],
        messages=tuple(_read_message(message) for message in body["messages"]),
        max_output_tokens=body.get("max_tokens") or body.get("max_completion_tokens"),
        sampling=_read_sampling(body),
        tools=tuple(_read_tool(tool) for tool in body.get("tools", []) if tool["type"] == "function"),
        tool_choice=_read_tool_choice(body.get("tool_choice")),
        parallel_tool_calls=body.get("parallel_tool_calls"),
        response_format=_read_response_format(body.get("response_format")),
        web_search=_read_web_search(body),
        modalities=tuple(body.get("modalities", [])),
        audio_output=body.get("audio"),
        prompt_cache_key=body.get("prompt_cache_key"),
        metadata=body.get("metadata"),
        end_user=body.get("user"),
    )


def _read_sampling(body: dict[str, Any]) -> Sampling:
    names = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed", "logprobs")
    reasoning = body.get("reasoning", {})
    return Sampling(
        **{name: body.get(name) for name in (*names, "top_logprobs", "verbosity", "logit_bias")},
        stop=tuple(body.get("stop", ())),
        reasoning_effort=body.get("reasoning_effort") or reasoning.get("effort"),
        reasoning_tokens=reasoning.get("max_tokens"),
    )


def _read_message(message: dict[str, Any]) -> Message:
    content = message.get("content")
    parts: list[Part] = [Text(content)] if isinstance(content, str) else [_read_part(part) for part in content or ()]
    thoughts = _read_details(message.get("reasoning_details", []))
    if "reasoning_content" in message:
        thoughts.append(Reasoning(message["reasoning_content"]))
    if "audio" in message:
        parts.append(ProviderItem(OPENAI_CHAT_FORMAT, {"type": "audio", **message["audio"]}))
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls", ())
    )
    role = ROLES[message["role"]]
    return Message(role, (*thoughts, *parts), message.get("name"), calls, message.get("tool_call_id"))


def _read_part(part: dict[str, Any]) -> Part:
    hint = part.get("cache_control") or (HINT if "prompt_cache_breakpoint" in part else None)
    match part:
        case {"type": "text", "text": text}:
            return Text(text, hint)
        case {"type": "refusal", "refusal": text}:
            return Refusal(text)
        case {"type": "image_url", "image_url": {"url": url}}:
            media_type, data = _split_data_url(url)
            return Image(media_type, data, part["image_url"].get("detail"), hint)
        case {"type": "file", "file": {"file_data": url, "filename": name}}:
            return Document(*_split_data_url(url), name, hint)
        case {"type": "input_audio", "input_audio": {"data": data, "format": format_}}:
            return Audio(format_, data)
    raise AssertionError(json.dumps(part)[:200])


def _split_data_url(url: str) -> tuple[str, str]:
    media_type, _, data = url.removeprefix("data:").partition(";base64,")
    return media_type, data


def _read_details(details: list[dict[str, Any]]) -> list[Part]:
    """Entries with the same index are one block: its text, and its sealed form."""
    blocks: dict[int, dict[str, Any]] = {}
    for detail in details:
        block = blocks.setdefault(detail["index"], {})
        block |= detail | {"is_summary": block.get("is_summary", False) or detail["type"] == "reasoning.summary"}
    return [
        Reasoning(
            block.get("text") or block.get("summary") or "",
            _origin(block.get("format", "")),
            block.get("id"),
            block.get("signature"),
            block.get("data"),
            block["is_summary"],
        )
        for block in blocks.values()
    ]


def _origin(format_: str) -> str:
    """These were recorded from OpenRouter, for whose account they were sealed."""
    return format_ + SEALED_HERE if format_ in ACCOUNT_BOUND else format_


def _read_tool(tool: dict[str, Any]) -> Tool:
    function = tool["function"]
    description, parameters, strict = (function.get(name) for name in ("description", "parameters", "strict"))
    return Tool(function["name"], description, parameters, strict, tool.get("cache_control"))


def _read_tool_choice(choice: Any) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case {"type": "function", "function": {"name": name}}:
            return ToolChoice("required", (name,))
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}:
            return ToolChoice(mode, tuple(tool["function"]["name"] for tool in tools))
    return ToolChoice(choice)


def _read_response_format(wanted: dict[str, Any] | None) -> ResponseFormat | None:
    if wanted is None:
        return None
    schema = wanted.get("json_schema", {})
    names = ("schema", "description", "strict")
    return ResponseFormat(wanted["type"], schema.get("name", ""), *(schema.get(name) for name in names))


def _read_web_search(body: dict[str, Any]) -> WebSearch | None:
    for tool in body.get("tools", []):
        if tool["type"] == "openrouter:web_search":
            parameters = tool.get("parameters", {})
            return WebSearch(parameters.get("search_context_size"), max_searches=parameters.get("max_uses", 10))
    options = body.get("web_search_options")
    if options is None:
        return None
    return WebSearch(options.get("search_context_size"), options.get("user_location", {}).get("approximate"))
