"""Messages as Gemini wants them: `contents` of the roles user and model, made of parts; instructions apart.

https://ai.google.dev/api/caching#Content. Tool results are parts of a user's turn, and name the function they answer.
"""

from typing import Any

import msgspec

from proxy.answer import NOT_JSON
from proxy.chat import (
    Attached,
    Audio,
    ChatRequest,
    Document,
    Image,
    Message,
    Part,
    ProviderItem,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from proxy.dialects.gemini.attached import build_attached
from proxy.dialects.gemini.models import FIRST_WITH_LEVELS, generation
from proxy.errors import RequestNotSupported

FORMAT = "google-gemini-v1"

NO_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""Says «skip_thought_signature_validator». Generation 3 refuses calls without a signature; this is Google's way to send
those that another model made, or whose signature a client lost: https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

_AUDIO_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "aiff": "audio/aiff",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
}
"""https://ai.google.dev/gemini-api/docs/audio#supported-formats."""

_ITEM_MEMBERS = {
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
    "inlineData",
    "thought",
    "thoughtSignature",
}
"""What a part may hold that the model made itself. A `fileData` would name a host, which never comes from a client."""


def build_instructions(request: ChatRequest) -> dict[str, Any] | None:
    """All system messages, in their order, each text a part."""
    texts = [
        _text_of(part, f"messages[{i}].content[{j}]")
        for i, message in enumerate(request.messages)
        if message.role == "system"
        for j, part in enumerate(message.parts)
    ]
    parts = [{"text": text} for text in texts if text]
    return {"parts": parts} if parts else None


def build_contents(request: ChatRequest, model: str) -> list[dict[str, Any]]:
    """Raises RequestNotSupported for a part that Gemini has no place for.

    Gemini wants a user's turn first, and many apps let their assistant greet: such a history gets a greeting in front.
    """
    turns = _Turns(model)
    for position, message in enumerate(request.messages):
        turns.add(message, f"messages[{position}]")
    if not turns.contents:
        raise RequestNotSupported("messages: at least one that is not a system message")
    if turns.contents[0]["role"] == "model":
        return [{"role": "user", "parts": [{"text": "Hello."}]}, *turns.contents]
    return turns.contents


class _Turns:
    """The turns so far, and the names of the tools called in them, by the call's id."""

    def __init__(self, model: str) -> None:
        self.contents: list[dict[str, Any]] = []
        self._is_new = generation(model) >= FIRST_WITH_LEVELS
        self._names: dict[str, str] = {}
        self._after_tool = False

    def add(self, message: Message, where: str) -> None:
        """Results of parallel calls belong into one turn, and so do a model's calls and what it said before: a turn
        with calls may only follow one of the user.
        """
        if message.role == "system":
            return
        if message.role == "tool":
            self._add_turn("user", self._build_result(message, where), joins=self._after_tool)
        elif message.role == "assistant":
            self._names |= {call.id: call.name for call in message.tool_calls}
            calls = build_calls(message.tool_calls, signed=self._is_new)
            follows_itself = bool(self.contents) and self.contents[-1]["role"] == "model"
            self._add_turn("model", _build_parts(message.parts, where) + calls, joins=follows_itself)
        else:
            self._add_turn("user", _build_parts(message.parts, where) or [{"text": ""}])
        self._after_tool = message.role == "tool"

    def _add_turn(self, role: str, parts: list[dict[str, Any]], *, joins: bool = False) -> None:
        """A turn without parts is an error; nothing is left of an answer that was another provider's reasoning."""
        if joins:
            self.contents[-1]["parts"] += parts
        elif parts:
            self.contents.append({"role": role, "parts": parts})

    def _build_result(self, message: Message, where: str) -> list[dict[str, Any]]:
        name = self._names.get(message.tool_call_id or "") or message.name
        if not name:
            raise RequestNotSupported(f"{where}.tool_call_id: no earlier message calls a tool with this id")
        texts, media = _build_result_parts(message, where)
        result = {"id": message.tool_call_id, "name": name, "response": build_response(texts, message.is_error)}
        if media and self._is_new:
            # https://ai.google.dev/gemini-api/docs/function-calling#multimodal
            return [{"functionResponse": result | {"parts": media}}]
        return [{"functionResponse": result}, *media]


def build_calls(calls: tuple[ToolCall, ...], *, signed: bool) -> list[dict[str, Any]]:
    """`signed` says that the first of them must have a signature; the others may."""
    built = [_build_call(call) for call in calls]
    if signed and built and not any(call.signature for call in calls):
        built[0]["thoughtSignature"] = NO_SIGNATURE
    return built


def build_response(text: str, is_error: bool | None) -> dict[str, Any] | msgspec.Raw:
    """A result must be an object. Google's names for those that are none are `output` and `error`:
    https://ai.google.dev/api/caching#FunctionResponse. It takes a member `$ref` for a reference of its own, and refuses
    what it does not find: such a result, a JSON schema perhaps, goes as a text.
    """
    found = None if '"$ref"' in text else _json_object(text)
    if is_error:
        return {"error": text if found is None else found}
    return {"output": text} if found is None else found


def _build_call(call: ToolCall) -> dict[str, Any]:
    """Arguments must be an object; what a model once wrote otherwise is shown to it as it was."""
    arguments = call.arguments.strip() or "{}"
    found = _json_object(arguments)
    args = {"arguments": call.arguments} if found is None else found
    built: dict[str, Any] = {"functionCall": {"id": call.id, "name": call.name, "args": args}}
    if call.signature:
        built["thoughtSignature"] = call.signature
    return built


def _json_object(text: str) -> msgspec.Raw | None:
    """The text itself, to be sent to the letter, if it is a JSON object."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        msgspec.json.decode(text, type=dict[str, object])
    except NOT_JSON:
        return None
    return msgspec.Raw(text.encode())


def _build_result_parts(message: Message, where: str) -> tuple[str, list[dict[str, Any]]]:
    texts: list[str] = []
    media: list[dict[str, Any]] = []
    for position, part in enumerate(message.parts):
        if isinstance(part, Image | Document | Audio):
            media.append(_build_media(part, f"{where}.content[{position}]"))
        else:
            texts.append(_text_of(part, f"{where}.content[{position}]"))
    return "".join(texts), media


def _build_parts(parts: tuple[Part, ...], where: str) -> list[dict[str, Any]]:
    """A signature without a thought sealed a text or an image: the one before it, or else the next."""
    built: list[dict[str, Any]] = []
    waiting: list[str] = []
    for position, part in enumerate(parts):
        if isinstance(part, Reasoning) and part.format == FORMAT and part.signature and not part.text:
            if built and _can_be_signed(built[-1]):
                built[-1]["thoughtSignature"] = part.signature
            else:
                waiting.append(part.signature)
            continue
        one = _build_part(part, f"{where}.content[{position}]")
        if one is not None:
            if waiting and _can_be_signed(one):
                one["thoughtSignature"] = waiting.pop(0)
            built.append(one)
    return built + [{"text": "", "thoughtSignature": signature} for signature in waiting]


def _can_be_signed(part: dict[str, Any]) -> bool:
    return ("text" in part or "inlineData" in part) and "thoughtSignature" not in part and "thought" not in part


def _build_part(part: Part, where: str) -> dict[str, Any] | None:
    """None for what says nothing to Gemini."""
    match part:
        case Image() | Document() | Audio():
            return _build_media(part, where)
        case Attached():
            return build_attached(part)
        case Reasoning():
            return _build_thought(part)
        case ProviderItem(format_, item):
            return dict(item) if format_ == FORMAT and item and _ITEM_MEMBERS.issuperset(item) else None
    text = _text_of(part, where)
    return {"text": text} if text else None


def _build_thought(part: Reasoning) -> dict[str, Any] | None:
    if part.format != FORMAT or not part.text:
        return None
    thought: dict[str, Any] = {"text": part.text, "thought": True}
    if part.signature:
        thought["thoughtSignature"] = part.signature
    return thought


def _build_media(part: Image | Document | Audio, where: str) -> dict[str, Any]:
    if isinstance(part, Document) and part.citations:
        raise RequestNotSupported(f"{where}.citations: Google gives none for documents; leave it out")
    if not isinstance(part, Audio):
        return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
    media_type = _AUDIO_TYPES.get(part.format)
    if media_type is None:
        raise RequestNotSupported(f"{where}: sound in {part.format[:20]!r}; Google takes {', '.join(_AUDIO_TYPES)}")
    return {"inlineData": {"mimeType": media_type, "data": part.data}}


def _text_of(part: Part, where: str) -> str:
    if isinstance(part, Text | Refusal):
        return part.text
    raise RequestNotSupported(f"{where}: a part of kind {type(part).__name__} has no place there")
