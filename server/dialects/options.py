"""The members of a chat request that both dialects have. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from proxy.chat import ChatRequest, ResponseFormat, Sampling
from server.dialects.bounds import (
    MAX_TOKENS,
    check_count,
    check_marks,
    check_name,
    check_passed_on,
    check_range,
    read_cache_control,
)
from server.dialects.messages import WireMessage, read_messages
from server.dialects.reasoning import WireReasoning, WireThinking, read_thinking_options
from server.dialects.tools import WireSearchOptions, read_tool_choice, read_tools
from server.errors import RequestInvalid

MAX_SHORT_TEXT = 200
MAX_STOPS = 64
"""Providers take 4 or 16; this and what follows only keep one request from costing the others their turn."""
MAX_BIASES = 2048
MAX_METADATA = 64
MAX_METADATA_TEXT = 1024
MODALITIES = ("text", "image", "audio")
SAY_INSTEAD: Mapping[str, str] = {
    "functions": "give way to tools; send those",
    "function_call": "gives way to tool_choice; send that",
    "plugins": "are not known here; search the web by web_search_options or by a tool of type web_search",
    "search_parameters": "are not known here; search the web by web_search_options or by a tool of type web_search",
}
"""What changes the answer and has another name here. Passing over it would be a wrong answer that looks right."""
USUAL_TIERS = frozenset({"auto", "default", "standard", "standard_only"})


class WireOptions(msgspec.Struct):
    """null and absence mean the same; what is not listed is ignored, a client's `user` among it."""

    model: str
    messages: list[WireMessage]
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: str | None = None
    reasoning: WireReasoning | None = None
    thinking: WireThinking | None = None
    verbosity: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    web_search_options: WireSearchOptions | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    n: int | None = None
    service_tier: str | None = None
    functions: Any = None
    function_call: Any = None
    plugins: Any = None
    search_parameters: Any = None


OptionsT = TypeVar("OptionsT", bound=WireOptions)


def decode_body(body: bytes, type_: type[OptionsT]) -> OptionsT:
    """JSON to the members, or RequestInvalid naming the one that is wrong."""
    check_marks(body)
    try:
        wire = msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"the body is no chat request: {error}") from error
    _check_bounds(wire)
    return wire


def _check_bounds(wire: WireOptions) -> None:
    check_range(wire.max_tokens, 1, MAX_TOKENS, "max_tokens")
    check_range(wire.max_completion_tokens, 1, MAX_TOKENS, "max_completion_tokens")
    check_passed_on(wire.tools, "tools")
    check_passed_on([wire.tool_choice, wire.response_format, wire.audio], "tool_choice, response_format and audio")
    if isinstance(wire.stop, list):
        check_count(wire.stop, MAX_STOPS, "stop")
    check_count(wire.logit_bias, MAX_BIASES, "logit_bias")
    check_count(wire.metadata, MAX_METADATA, "metadata")
    if any(len(text) > MAX_METADATA_TEXT for pair in (wire.metadata or {}).items() for text in pair):
        raise RequestInvalid(f"metadata: texts of at most {MAX_METADATA_TEXT} characters")
    _check_offered(wire)


def _check_offered(wire: WireOptions) -> None:
    """What other servers do and this one does not."""
    if wire.n not in (None, 1):
        raise RequestInvalid("n: one answer a request; send the request again for another")
    if wire.service_tier and wire.service_tier not in USUAL_TIERS:
        raise RequestInvalid(f"service_tier: {wire.service_tier[:50]!r} has a price of its own; leave it out")
    for name, hint in SAY_INSTEAD.items():
        if getattr(wire, name):
            raise RequestInvalid(f"{name}: {hint}")


def read_request(wire: WireOptions) -> ChatRequest:
    """What both dialects say in the same way. Raises RequestInvalid.

    How to call tools says nothing where there are none, and some providers refuse it there.
    """
    offered = read_tools(wire.tools, wire.web_search_options)
    choice = read_tool_choice(wire.tool_choice)
    return ChatRequest(
        model=wire.model,
        messages=read_messages(wire.messages),
        max_output_tokens=wire.max_completion_tokens or wire.max_tokens,
        sampling=read_sampling(wire),
        tools=offered.functions,
        provider_tools=offered.provider_tools,
        tool_choice=choice if offered.any or (choice and choice.mode == "required") else None,
        parallel_tool_calls=wire.parallel_tool_calls if offered.any else None,
        response_format=read_response_format(wire.response_format),
        web_search=offered.web_search,
        modalities=read_modalities(wire.modalities),
        audio_output=wire.audio or None,
        cache_control=read_cache_control(wire.cache_control, "the request"),
        prompt_cache_key=check_text(wire.prompt_cache_key, "prompt_cache_key"),
        metadata=wire.metadata or None,
    )


def read_sampling(wire: WireOptions) -> Sampling:
    """A `top_k` of 0 is no limit and an empty text stops nowhere, so they say nothing."""
    check_range(wire.top_k, 0, MAX_TOKENS, "top_k")
    check_range(wire.top_logprobs, 0, MAX_TOKENS, "top_logprobs")
    thinking = read_thinking_options(wire.reasoning_effort, wire.reasoning, wire.thinking)
    return Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        seed=wire.seed,
        stop=tuple(text for text in ([wire.stop] if isinstance(wire.stop, str) else wire.stop or ()) if text),
        logprobs=wire.logprobs,
        top_logprobs=wire.top_logprobs,
        top_k=wire.top_k or None,
        logit_bias=wire.logit_bias or None,
        verbosity=check_name(wire.verbosity, "verbosity"),
        reasoning_effort=thinking.effort,
        reasoning_tokens=thinking.tokens,
        reasoning_summary=thinking.summary,
    )


def read_modalities(wanted: list[str] | None) -> tuple[str, ...]:
    """Besides text, in an order of ours. Raises RequestInvalid."""
    unknown = set(wanted or ()) - set(MODALITIES)
    if unknown:
        raise RequestInvalid(f"modalities: any of {', '.join(MODALITIES)}")
    return tuple(name for name in MODALITIES if name != "text" and name in (wanted or ()))


def read_response_format(wanted: dict[str, Any] | None) -> ResponseFormat | None:
    match wanted:
        case None:
            return None
        case {"type": "text" | "json_object" as type_}:
            return ResponseFormat(type_)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **rest}}:
            name, description, strict = rest.get("name"), rest.get("description"), rest.get("strict")
            return ResponseFormat(
                "json_schema",
                name if isinstance(name, str) else "response",
                schema,
                description if isinstance(description, str) else None,
                strict if isinstance(strict, bool) else None,
            )
    raise RequestInvalid("response_format: 'text', 'json_object', or 'json_schema' with its json_schema.schema")


def check_text(text: str | None, name: str) -> str | None:
    """A short text that is stored: PostgreSQL has no place for NUL, and nobody needs more than this."""
    if text and (len(text) > MAX_SHORT_TEXT or "\x00" in text):
        raise RequestInvalid(f"{name}: at most {MAX_SHORT_TEXT} characters, none of them NUL")
    return text or None
