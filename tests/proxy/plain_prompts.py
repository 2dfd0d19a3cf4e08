"""Recorded prompts of text and functions alone, as requests of ours: what there is to count with a tokenizer."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from proxy.chat import ChatRequest, Message, Text, Tool, ToolCall

Json = dict[str, Any]


class NotPlain(Exception):
    """The prompt has something else: media, cached parts, thoughts, tools of the provider's own."""


def read_chat(body: Json) -> ChatRequest:
    if body.get("functions"):  # the name of `tools` until 2023, which we do not send
        raise NotPlain
    messages = [
        Message("user", (Text(_text(message.get("content"))),), tool_calls=tuple(_read_calls(message)))
        for message in body["messages"]
    ]
    return _build(messages, [tool["function"] for tool in body.get("tools") or ()])


def read_responses(body: Json) -> ChatRequest:
    given = body["input"]
    entries = [{"content": given}] if isinstance(given, str) else given
    messages = [_user(body["instructions"])] if body.get("instructions") else []
    for entry in entries:
        match entry:
            case {"type": "function_call", "name": name, "arguments": arguments}:
                messages.append(Message("assistant", tool_calls=(ToolCall("", name, arguments),)))
            case {"type": "function_call_output", "output": output}:
                messages.append(_user(output))
            case {"content": content}:
                messages.append(_user(content))
            case _:
                raise NotPlain
    tools = body.get("tools") or []
    if any(tool["type"] != "function" for tool in tools):
        raise NotPlain
    return _build(messages, tools)


def read_anthropic(body: Json) -> ChatRequest:
    tools = body.get("tools") or []
    if body.get("thinking") or any("input_schema" not in tool for tool in tools):
        raise NotPlain
    messages = [_user(body["system"])] if body.get("system") else []
    messages += [_read_blocks(message["content"]) for message in body["messages"]]
    return _build(messages, [{**tool, "parameters": tool["input_schema"]} for tool in tools])


def read_google(body: Json) -> ChatRequest:
    if body.get("cachedContent"):
        raise NotPlain
    system = body.get("systemInstruction") or body.get("system_instruction")
    contents = _as_list(body["contents"])
    messages = [_read_parts(content) for content in [*([system] if system else []), *contents]]
    functions: list[Json] = []
    for tool in body.get("tools") or ():
        if set(tool) - {"functionDeclarations", "function_declarations"}:
            raise NotPlain
        functions += [function for declared in tool.values() for function in declared]
    return _build(messages, functions)


READERS: dict[str, Callable[[Json], ChatRequest]] = {
    "openai-chat": read_chat,
    "openai-responses": read_responses,
    "anthropic": read_anthropic,
    "google": read_google,
    "xai": read_chat,
    "xai-responses": read_responses,
    "openrouter": read_chat,
    "deepseek": read_chat,
    "mistral": read_chat,
}
"""By the recordings' name of the dialect. Other readers belong to no provider of ours."""


def read_pieces(body: str, text: str) -> list[str]:
    """An answer's text in the pieces of its stream, whatever the dialect; whole, where it did not come in pieces."""
    lines = (line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:"))
    pieces = [piece for line in lines if line.startswith("{") for piece in _find_pieces(json.loads(line))]
    return pieces if "".join(pieces) == text else [text]


def _find_pieces(event: Json) -> Iterator[str]:
    match event:
        case {"choices": [{"delta": {"content": str(piece)}}, *_]}:
            yield piece
        case {"type": "content_block_delta", "delta": {"text": str(piece)}}:
            yield piece
        case {"type": "response.output_text.delta", "delta": str(piece)}:
            yield piece
        case {"candidates": [{"content": {"parts": [*parts]}}, *_]}:
            yield from (part["text"] for part in parts if "text" in part)


def _text(content: object) -> str:
    """Of a string, a part, or a list of them."""
    match content:
        case None:
            return ""
        case str():
            return content
        case {"text": str(text), **rest} if rest.get("type", "text") in {"text", "input_text", "output_text"}:
            return text
        case list():
            return "".join(_text(part) for part in content)
    raise NotPlain


def _user(content: object) -> Message:
    return Message("user", (Text(_text(content)),))


def _read_calls(message: Json) -> Iterator[ToolCall]:
    for call in message.get("tool_calls") or ():
        yield ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])


def _read_blocks(content: str | list[Json]) -> Message:
    texts, calls = [], []
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if block["type"] == "tool_use":
            calls.append(ToolCall(block["id"], block["name"], json.dumps(block["input"])))
        else:
            texts.append(Text(_text(block.get("content") if block["type"] == "tool_result" else block)))
    return Message("user", tuple(texts), tool_calls=tuple(calls))


def _read_parts(content: Json) -> Message:
    texts, calls = [], []
    for part in _as_list(content["parts"]):
        match part:
            case {"functionCall": call}:
                calls.append(ToolCall("", call["name"], json.dumps(call.get("args"))))
            case {"functionResponse": response}:
                texts.append(Text(json.dumps(response)))
            case {"text": str(text)}:
                texts.append(Text(text))
            case _:
                raise NotPlain
    return Message("user", tuple(texts), tool_calls=tuple(calls))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _build(messages: list[Message], functions: Iterable[Json]) -> ChatRequest:
    tools = tuple(
        Tool(one["name"], one.get("description"), one.get("parameters") or one.get("parametersJsonSchema"))
        for one in functions
    )
    return ChatRequest("", tuple(messages), tools=tools)
