"""Google's Gemini API as it is asked for an answer: https://ai.google.dev/api/generate-content."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.chat import ChatRequest, ProviderTool, ResponseFormat, Tool, ToolChoice, WebSearch
from proxy.dialects.gemini.attached import check_attached, find_attached, goes_inline, put_file
from proxy.dialects.gemini.contents import build_contents, build_instructions
from proxy.dialects.gemini.models import FIRST_THINKING, FIRST_WITH_LEVELS, build_thinking, generation
from proxy.errors import RequestNotSupported
from proxy.features import Feature, check_features
from proxy.provider import Target, UpstreamRequest

_TAKES: frozenset[Feature] = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "logprobs",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "provider_tools",
        "response_format",
        "web_search",
        "input_audio",
        "attached",
        "images",
        "documents",
        "image_output",
        "audio_output",
    }
)
_THINKING: frozenset[Feature] = frozenset({"reasoning_effort", "reasoning_tokens", "reasoning_summary"})

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_MEDIA_TYPES = {"text": "text/plain", "json_object": "application/json", "json_schema": "application/json"}

_PROVIDER_TOOLS = {
    "urlContext": "urlContext",
    "url_context": "urlContext",
    "codeExecution": "codeExecution",
    "code_execution": "codeExecution",
}
"""Those that cost tokens alone: https://ai.google.dev/gemini-api/docs/pricing#pricing_for_tools."""
_REFUSED_TOOLS = {
    "googleSearch": "ask for it as web_search, which counts and charges its searches",
    "google_search": "ask for it as web_search, which counts and charges its searches",
    "googleMaps": "it costs a fee for each prompt, and the catalogue has no price for it",
    "google_maps": "it costs a fee for each prompt, and the catalogue has no price for it",
    "fileSearch": "its stores belong to the operator's account, and not to one user",
    "file_search": "its stores belong to the operator's account, and not to one user",
    "mcpServers": "a host that the server calls never comes from a request",
    "mcp_servers": "a host that the server calls never comes from a request",
}
_SPOKEN_FORMATS = {None, "pcm16", "pcm"}


def build_request(request: ChatRequest, target: Target, provider: str) -> UpstreamRequest:
    """Always streamed. The key goes into a header, for URLs end up in logs. Raises RequestNotSupported.

    A file that has to be uploaded first is still missing in it: see files.py.
    """
    check(request, target, provider)
    headers = (
        ("x-goog-api-key", target.api_key),
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream"),
    )
    model = target.provider_model
    path = model if "/" in model else f"models/{model}"
    url = f"{target.base_url.rstrip('/')}/{path}:streamGenerateContent?alt=sse"
    built = UpstreamRequest(url, headers, msgspec.json.encode(build_body(request, target)))
    attached = find_attached(request)
    return put_file(built, attached) if attached is not None and goes_inline(attached) else built


def check(request: ChatRequest, target: Target, provider: str) -> None:
    """Raises RequestNotSupported, naming the field."""
    generation_ = generation(target.provider_model)
    if (attached := find_attached(request)) is not None:
        check_attached(attached, target)
    check_features(request, _TAKES | _THINKING if generation_ >= FIRST_THINKING else _TAKES, provider)
    if generation_ < FIRST_WITH_LEVELS and request.tools and (request.web_search or request.provider_tools):
        # https://ai.google.dev/gemini-api/docs/tool-combination
        raise RequestNotSupported("tools: Gemini mixes functions with its own tools from generation 3 on only")


def build_body(request: ChatRequest, target: Target) -> dict[str, Any]:
    """What is None is left out, so that the provider's own default holds."""
    return _given(
        {
            "systemInstruction": build_instructions(request),
            "contents": build_contents(request, target.provider_model),
            "tools": build_tools(request),
            "toolConfig": build_tool_config(request, target.provider_model),
            "generationConfig": build_generation_config(request, target),
        }
    )


def build_generation_config(request: ChatRequest, target: Target) -> dict[str, Any]:
    sampling = request.sampling
    return _given(
        {
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "topK": sampling.top_k,
            "maxOutputTokens": request.max_output_tokens,
            "stopSequences": list(sampling.stop) or None,
            "seed": sampling.seed,
            # most models refuse these four by their mere presence
            "frequencyPenalty": sampling.frequency_penalty or None,
            "presencePenalty": sampling.presence_penalty or None,
            "responseLogprobs": True if sampling.logprobs or sampling.top_logprobs else None,
            "logprobs": sampling.top_logprobs or None,
            "responseModalities": _build_modalities(request),
            "speechConfig": _build_speech(request.audio_output),
            "thinkingConfig": build_thinking(
                sampling, target.provider_model, target.capabilities, request.max_output_tokens
            ),
        }
        | _build_response_format(request.response_format)
    )


def build_tools(request: ChatRequest) -> list[dict[str, Any]] | None:
    """Google's own tools each in an object of its own, the functions together in one."""
    tools = [_build_web_search(request.web_search)] if request.web_search else []
    tools += [_build_provider_tool(tool) for tool in request.provider_tools]
    if request.tools:
        tools.append({"functionDeclarations": [_build_function(tool) for tool in request.tools]})
    return tools or None


def build_tool_config(request: ChatRequest, model: str) -> dict[str, Any] | None:
    """From generation 3 on the model says what its own tools did, and wants to be told in the next turn:
    https://ai.google.dev/gemini-api/docs/tool-combination. Functions beside them need that.
    """
    has_own_tools = request.web_search is not None or bool(request.provider_tools)
    tells_own = has_own_tools and generation(model) >= FIRST_WITH_LEVELS
    calling = _build_calling(request, is_mixed=has_own_tools)
    return _given({"functionCallingConfig": calling, "includeServerSideToolInvocations": tells_own or None}) or None


def _build_calling(request: ChatRequest, *, is_mixed: bool) -> dict[str, Any] | None:
    """VALIDATED is AUTO with calls that keep to the schema: what `strict` asks for, what a narrowed choice needs, and
    the only way beside Google's own tools: https://ai.google.dev/gemini-api/docs/function-calling#function_calling_modes.
    """
    choice = request.tool_choice
    is_strict = any(tool.strict for tool in request.tools)
    if not request.tools or (choice is None and not is_strict):
        return None
    choice = choice or ToolChoice("auto")
    validated = choice.mode == "auto" and (is_strict or bool(choice.names) or is_mixed)
    names = list(choice.names) if choice.mode != "none" else []
    mode = "VALIDATED" if validated else _MODES[choice.mode]
    return _given({"mode": mode, "allowedFunctionNames": names or None})


def _build_function(tool: Tool) -> dict[str, Any]:
    return _given({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters})


def _build_web_search(search: WebSearch) -> dict[str, Any]:
    """How much it searches is Google's to decide; where it searches cannot be told. A medium context is the default."""
    named = {
        "context_size": search.context_size not in {None, "medium"},
        "allowed_domains": search.allowed_domains,
        "blocked_domains": search.blocked_domains,
        "user_location": search.user_location,
    }
    for name, value in named.items():
        if value:
            raise RequestNotSupported(f"web_search.{name}: Google does not take it; leave it out")
    return {"googleSearch": {}}


def _build_provider_tool(tool: ProviderTool) -> dict[str, Any]:
    name = _PROVIDER_TOOLS.get(tool.type)
    if name is None:
        reason = _REFUSED_TOOLS.get(tool.type, "it is not known here, so neither is its price")
        raise RequestNotSupported(f"tools: {tool.type[:50]!r} of Google is not offered: {reason}")
    inner = tool.definition.get(tool.type)
    if isinstance(inner, Mapping):
        return {name: inner}
    return {name: {member: value for member, value in tool.definition.items() if member != "type"}}


def _build_response_format(wanted: ResponseFormat | None) -> dict[str, Any]:
    """A schema has no name here; its description may stand in it."""
    if wanted is None:
        return {}
    schema = wanted.schema
    if schema is not None and wanted.description and "description" not in schema:
        schema = {**schema, "description": wanted.description}
    return _given({"responseMimeType": _MEDIA_TYPES[wanted.type], "responseJsonSchema": schema})


def _build_modalities(request: ChatRequest) -> list[str] | None:
    """A model that speaks does nothing else; one that draws also writes."""
    if "audio" in request.modalities or request.audio_output is not None:
        return ["AUDIO"]
    if "image" in request.modalities:
        return ["TEXT", "IMAGE"]
    return ["TEXT"] if "text" in request.modalities else None


def _build_speech(wanted: Mapping[str, object] | None) -> dict[str, Any] | None:
    """Sound comes as 16-bit PCM at 24 kHz: https://ai.google.dev/gemini-api/docs/speech-generation."""
    if wanted is None:
        return None
    if wanted.get("format") not in _SPOKEN_FORMATS:
        raise RequestNotSupported("audio.format: Google speaks pcm16 only")
    voice = wanted.get("voice")
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}} if isinstance(voice, str) else None


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
