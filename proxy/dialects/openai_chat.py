"""OpenAI's chat completions as providers speak it: https://platform.openai.com/docs/api-reference/chat."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.chat import ChatRequest, Document, Image, Message, Part, Refusal, Text, Tool, ToolCall
from proxy.provider import Target, UpstreamRequest


def build_request(
    request: ChatRequest, target: Target, *, takes_temperature: bool = True, output_limit: str = "max_completion_tokens"
) -> UpstreamRequest:
    """The request on this dialect's wire. Always streamed: an answer that nobody waits for can be closed in its
    middle.
    """
    body = build_body(request, target.provider_model, output_limit)
    if not takes_temperature:
        body.pop("temperature", None)
        body.pop("top_p", None)
    headers = (
        ("Authorization", f"Bearer {target.api_key}"),
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream"),
    )
    url = f"{target.base_url.rstrip('/')}/chat/completions"
    return UpstreamRequest(url, headers, msgspec.json.encode(body))


def build_body(request: ChatRequest, provider_model: str, output_limit: str) -> dict[str, Any]:
    """What is None is left out, so that the provider's own default holds."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": provider_model,
        "messages": [_build_message(message) for message in request.messages],
        output_limit: request.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "reasoning_effort": sampling.reasoning_effort,
        "logprobs": sampling.logprobs,
        "top_logprobs": sampling.top_logprobs,
        "tools": [_build_tool(tool) for tool in request.tools] or None,
        "tool_choice": request.tool_choice,
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": request.response_format,
        "user": request.end_user,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return {name: value for name, value in body.items() if value is not None}


def _build_message(message: Message) -> dict[str, Any]:
    built: dict[str, Any] = {"role": message.role, "content": _build_content(message.parts)}
    if message.name is not None:
        built["name"] = message.name
    if message.tool_calls:
        built["tool_calls"] = [_build_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        built["tool_call_id"] = message.tool_call_id
    return built


def _build_content(parts: tuple[Part, ...]) -> str | list[dict[str, Any]] | None:
    """A single text goes as a plain string, which every server of this dialect takes."""
    if not parts:
        return None
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_build_part(part) for part in parts]


def _build_part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Refusal(text):
            return {"type": "refusal", "refusal": text}
        case Image(media_type, data, detail):
            image = {"url": f"data:{media_type};base64,{data}"}
            return {"type": "image_url", "image_url": image | ({"detail": detail} if detail else {})}
        case Document(media_type, data, name):
            return {"type": "file", "file": {"filename": name, "file_data": f"data:{media_type};base64,{data}"}}


def _build_tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _build_tool(tool: Tool) -> dict[str, Any]:
    function: Mapping[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}
