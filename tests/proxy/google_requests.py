"""Recorded requests to the Gemini API, read into our vocabulary, and spelt as we spell what means the same."""

import json
from pathlib import Path
from typing import Any

from proxy.chat import (
    Audio,
    ChatRequest,
    Document,
    Image,
    Message,
    Part,
    ProviderItem,
    ProviderTool,
    Reasoning,
    ResponseFormat,
    Role,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    WebSearch,
)
from proxy.dialects.gemini.contents import FORMAT

SCHEMAS = {"parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"}
OPAQUE = SCHEMAS | {"args", "response"}
SAME = {"parameters": "parametersJsonSchema", "responseSchema": "responseJsonSchema"}
SAME_SOUND = {"audio/x-wav": "audio/wav", "audio/mpeg": "audio/mp3"}
SOUNDS = {"audio/wav": "wav", "audio/mp3": "mp3"}
ITEMS = {"executableCode", "codeExecutionResult", "toolCall", "toolResponse"}
CHOICES: dict[str, Any] = {"AUTO": "auto", "VALIDATED": "auto", "ANY": "required", "NONE": "none"}


def read_models(folder: Path) -> dict[str, str]:
    """The model of every recorded request, by the exchange's id: it stands in the path."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        recorded = json.loads(path.read_text())
        found[recorded["id"]] = recorded["request"]["path"].rpartition("/")[2].partition(":")[0]
    return found


def spell(body: dict[str, Any]) -> dict[str, Any]:
    """The same request in our spelling: members in camelCase (Google takes both), nothing that is null, and schemas as
    JSON Schema, not in the dialect of OpenAPI that Google knew first.
    """
    spelt: dict[str, Any] = _spell(body)
    spelt.pop("model", None)  # it stands in the URL
    return spelt


def _spell(value: Any) -> Any:
    if isinstance(value, list):
        return [_spell(inner) for inner in value]
    if not isinstance(value, dict):
        return SAME_SOUND.get(value, value) if isinstance(value, str) else value
    spelt = {}
    for name, inner in value.items():
        camel = _camel(name)
        if inner is None or (camel == "thought" and inner is False):  # false is the default of `thought`
            continue
        if camel in SCHEMAS:
            spelt[SAME.get(camel, camel)] = _json_schema(inner)
        elif camel == "thinkingLevel":
            spelt[camel] = inner.lower()  # an enum, taken in both cases
        else:
            spelt[camel] = inner if camel in OPAQUE else _spell(inner)
    return spelt


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def _json_schema(schema: Any) -> Any:
    """Types in capitals and `nullable` are OpenAPI's; the order of properties is theirs in JSON Schema too."""
    if isinstance(schema, list):
        return [_json_schema(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    built = {("propertyOrdering" if name == "property_ordering" else name): value for name, value in schema.items()}
    built = {name: _json_schema(value) for name, value in built.items()}
    if isinstance(built.get("type"), str) and built["type"].isupper():
        built["type"] = built["type"].lower()
    if built.pop("nullable", False):
        built["type"] = [built["type"], "null"]
    return built


def read_request(body: dict[str, Any], model: str) -> ChatRequest:
    """Of a spelt body."""
    config = body.get("generationConfig", {})
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    tools = body.get("tools", [])
    modalities = tuple(name.lower() for name in config.get("responseModalities", ()))
    return ChatRequest(
        model,
        tuple(_read_messages(body)),
        config.get("maxOutputTokens"),
        _read_sampling(config),
        tuple(_read_functions(tools, is_strict=calling.get("mode") == "VALIDATED")),
        tuple(_read_provider_tools(tools)),
        ToolChoice(CHOICES[calling["mode"]], tuple(calling.get("allowedFunctionNames", ()))) if calling else None,
        response_format=_read_format(config),
        web_search=WebSearch() if any("googleSearch" in tool for tool in tools) else None,
        modalities=modalities,
        audio_output=_read_voice(config),
    )


def _read_sampling(config: dict[str, Any]) -> Sampling:
    thinking = config.get("thinkingConfig", {})
    return Sampling(
        temperature=config.get("temperature"),
        top_p=config.get("topP"),
        frequency_penalty=config.get("frequencyPenalty"),
        presence_penalty=config.get("presencePenalty"),
        seed=config.get("seed"),
        stop=tuple(config.get("stopSequences", ())),
        reasoning_effort=thinking.get("thinkingLevel"),
        logprobs=config.get("responseLogprobs"),
        top_logprobs=config.get("logprobs"),
        top_k=config.get("topK"),
        reasoning_tokens=thinking.get("thinkingBudget"),
        reasoning_summary="auto" if thinking.get("includeThoughts") else None,
    )


def _read_format(config: dict[str, Any]) -> ResponseFormat | None:
    media_type, schema = config.get("responseMimeType"), config.get("responseJsonSchema")
    if schema is not None:
        return ResponseFormat("json_schema", schema=schema)
    if media_type is None:
        return None
    return ResponseFormat("json_object" if media_type == "application/json" else "text")


def _read_voice(config: dict[str, Any]) -> dict[str, object] | None:
    if "speechConfig" not in config:
        return None
    return {"voice": config["speechConfig"]["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"], "format": "pcm16"}


def _read_functions(tools: list[dict[str, Any]], *, is_strict: bool) -> list[Tool]:
    return [
        Tool(one["name"], one.get("description"), one.get("parametersJsonSchema"), is_strict or None)
        for tool in tools
        for one in tool.get("functionDeclarations", ())
    ]


def _read_provider_tools(tools: list[dict[str, Any]]) -> list[ProviderTool]:
    return [
        ProviderTool(name, {"type": name, **definition})
        for tool in tools
        for name, definition in tool.items()
        if name not in {"functionDeclarations", "googleSearch"}
    ]


def _read_messages(body: dict[str, Any]) -> list[Message]:
    """Results of one turn are a message each; a result of an earlier recorder without an id answers the call of that
    name.
    """
    instructions = body.get("systemInstruction", {}).get("parts", ())
    messages = [Message("system", tuple(Text(part["text"]) for part in instructions))] if instructions else []
    for content in body["contents"]:
        if any("functionResponse" in part for part in content["parts"]):
            messages += [_read_result(part["functionResponse"]) for part in content["parts"]]
        else:
            messages.append(_read_turn(content))
    return messages


def _read_result(result: dict[str, Any]) -> Message:
    """An object is sent as it is, so that its text says it."""
    id_ = result.get("id") or f"id-{result['name']}"
    return Message("tool", (Text(json.dumps(result["response"])),), tool_call_id=id_)


def _read_turn(content: dict[str, Any]) -> Message:
    role: Role = "assistant" if content["role"] == "model" else "user"
    calls = [
        ToolCall(
            part["functionCall"].get("id") or f"id-{part['functionCall']['name']}",
            part["functionCall"]["name"],
            json.dumps(part["functionCall"]["args"]),
            part.get("thoughtSignature"),
        )
        for part in content["parts"]
        if "functionCall" in part
    ]
    parts = [read for part in content["parts"] if "functionCall" not in part for read in _read_part(part)]
    return Message(role, tuple(parts), tool_calls=tuple(calls))


def _read_part(part: dict[str, Any]) -> list[Part]:
    if ITEMS & part.keys():
        return [ProviderItem(FORMAT, part)]
    signature = part.get("thoughtSignature")
    if part.get("thought"):
        return [Reasoning(part["text"], FORMAT, signature=signature)]
    found: Part = Text(part["text"]) if "text" in part else _read_media(part["inlineData"])
    return [found, Reasoning(format=FORMAT, signature=signature)] if signature else [found]


def _read_media(blob: dict[str, Any]) -> Part:
    media_type, data = blob["mimeType"], blob["data"]
    if media_type.startswith("image/"):
        return Image(media_type, data)
    return Audio(SOUNDS[media_type], data) if media_type in SOUNDS else Document(media_type, data)


