"""The members of a chat request that both dialects have. Pure."""

from typing import Any, TypeVar

import msgspec

from proxy.chat import ChatRequest, Sampling, Tool
from server.dialects.messages import WireMessage, read_messages
from server.errors import RequestInvalid

MAX_SHORT_TEXT = 200
MAX_STOPS = 64
MAX_TOOLS = 1000
"""Providers take 4 and 128; these only keep one request from costing the others their turn."""
MAX_DEPTH = 64
"""What is passed on as it is will be written again, further down the stack than it was read."""


class WireFunctionTool(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class WireTool(msgspec.Struct):
    type: str
    function: WireFunctionTool | None = None


class WireOptions(msgspec.Struct):
    """null and absence mean the same; what is not listed is ignored."""

    model: str
    messages: list[WireMessage]
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    reasoning_effort: str | None = None
    tools: list[WireTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = None


OptionsT = TypeVar("OptionsT", bound=WireOptions)


def decode_body(body: bytes, type_: type[OptionsT]) -> OptionsT:
    """JSON to the members, or RequestInvalid naming the one that is wrong."""
    try:
        wire = msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"the body is no chat request: {error}") from error
    _check_bounds(wire)
    return wire


def _check_bounds(wire: WireOptions) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(wire, name)
        if value is not None and not 1 <= value <= 0xFFFFFFFF:
            raise RequestInvalid(f"{name}: must be a whole number above zero")
    parameters = [tool.function.parameters for tool in wire.tools or () if tool.function]
    _check_depth(parameters, "tools")
    _check_depth([wire.tool_choice, wire.response_format], "tool_choice and response_format")
    if isinstance(wire.stop, list) and len(wire.stop) > MAX_STOPS:
        raise RequestInvalid(f"stop: more than {MAX_STOPS} sequences")
    if len(wire.tools or ()) > MAX_TOOLS:
        raise RequestInvalid(f"tools: more than {MAX_TOOLS}")
    if wire.n not in (None, 1):
        raise RequestInvalid("n: one answer a request; send the request again for another")


def read_request(wire: WireOptions) -> ChatRequest:
    """What both dialects say in the same way. Raises RequestInvalid."""
    return ChatRequest(
        model=wire.model,
        messages=read_messages(wire.messages),
        max_output_tokens=wire.max_completion_tokens or wire.max_tokens,
        sampling=read_sampling(wire),
        tools=read_tools(wire.tools),
        tool_choice=wire.tool_choice,
        parallel_tool_calls=wire.parallel_tool_calls,
        response_format=wire.response_format,
    )


def read_sampling(wire: WireOptions) -> Sampling:
    return Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        seed=wire.seed,
        stop=(wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ()),
        reasoning_effort=wire.reasoning_effort,
    )


def read_tools(tools: list[WireTool] | None) -> tuple[Tool, ...]:
    return tuple(_read_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools or ()))


def check_text(text: str | None, name: str) -> str | None:
    """A short text that is stored: PostgreSQL has no place for NUL, and nobody needs more than this."""
    if text and (len(text) > MAX_SHORT_TEXT or "\x00" in text):
        raise RequestInvalid(f"{name}: at most {MAX_SHORT_TEXT} characters, none of them NUL")
    return text or None


def _check_depth(value: object, name: str, levels: int = MAX_DEPTH) -> None:
    if levels == 0:
        raise RequestInvalid(f"{name}: nested too deeply")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        _check_depth(one, name, levels - 1)


def _read_tool(tool: WireTool, where: str) -> Tool:
    if tool.type != "function" or tool.function is None:
        raise RequestInvalid(f"{where}: only tools of type 'function' are known")
    return Tool(tool.function.name, tool.function.description, tool.function.parameters, tool.function.strict)
