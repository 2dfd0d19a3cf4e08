"""Reading answers of the Gemini API: event streams, whole answers, and streams that came as one JSON array.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. A chunk of a stream is a whole answer with
the parts that are new and the usage so far. Nothing marks the end but a reason to finish.
"""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import msgspec

from proxy import answer
from proxy.answer import NOT_JSON, not_an_answer
from proxy.chat import ProviderItem
from proxy.dialects.gemini.citations import CitationMetadata, Citations
from proxy.dialects.gemini.contents import FORMAT
from proxy.dialects.gemini.errors import GoogleError, read_error
from proxy.dialects.gemini.usage import Searches, UsageMetadata, build_usage
from proxy.events import (
    AudioDelta,
    ChatEvent,
    Failed,
    Finished,
    FinishReason,
    ImageDelta,
    Logprobs,
    ReasoningDelta,
    ReasoningSealed,
    TextDelta,
    ToolCallDelta,
)
from proxy.provider import Reader
from proxy.sse import ServerSentEvent

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
"""All others say that the model went wrong: MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL, TOO_MANY_TOOL_CALLS,
MISSING_THOUGHT_SIGNATURE, LANGUAGE, NO_IMAGE, OTHER, …
"""
_UNSPECIFIED = {None, "", "FINISH_REASON_UNSPECIFIED"}
_NOT_BLOCKED = {None, "", "BLOCK_REASON_UNSPECIFIED"}


class _FunctionCall(msgspec.Struct):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Blob(msgspec.Struct, rename="camel"):
    mime_type: str | None = None
    data: str | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Token(msgspec.Struct, rename="camel"):
    token: str | None = None
    log_probability: float | None = None


class _TopTokens(msgspec.Struct):
    candidates: list[_Token] | None = None


class _LogprobsResult(msgspec.Struct, rename="camel"):
    chosen_candidates: list[_Token] | None = None
    top_candidates: list[_TopTokens] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None
    grounding_metadata: dict[str, Any] | None = None
    citation_metadata: CitationMetadata | None = None
    logprobs_result: _LogprobsResult | None = None


class _PromptFeedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Answer(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _PromptFeedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    error: GoogleError | str | None = None


_decode_answer = msgspec.json.Decoder(_Answer, strict=False).decode
_decode_answers = msgspec.json.Decoder(_Answer | list[_Answer], strict=False).decode


def new_call_id() -> str:
    """Models before generation 3 give their calls no ids; results are matched by them all the same."""
    return f"call_{uuid4().hex}"


class GeminiAnswer:
    """One answer in this dialect: the first candidate, for one is what we ask for."""

    def __init__(
        self, provider: str, new_id: Callable[[], str] = new_call_id, max_calls: int | None = None
    ) -> None:
        self._provider = provider
        self._new_id = new_id
        self._max_calls = max_calls
        self._model = ""
        self._calls = 0
        self._thought = -1
        self._is_thinking = False
        self._citations = Citations()
        self._searches = Searches()
        self._usage: UsageMetadata | None = None

    @property
    def is_done(self) -> bool:
        """Usage may follow the reason to finish."""
        return False

    def read_event(self, event: ServerSentEvent, events: list[ChatEvent]) -> None:
        try:
            decoded = _decode_answer(event.data)
        except NOT_JSON:
            events.append(not_an_answer(self._provider))
            return
        self._read(decoded, events)

    def read_whole(self, body: bytes, events: list[ChatEvent]) -> None:
        """An answer without a reason to finish is complete all the same: its JSON is."""
        try:
            decoded = _decode_answers(body)
        except NOT_JSON:
            events.append(not_an_answer(self._provider))
            return
        answers = decoded if isinstance(decoded, list) else [decoded]
        for one in answers:
            self._read(one, events)
        has_end = any(isinstance(event, Finished | Failed) for event in events)
        if not has_end and any(one.candidates for one in answers):
            events.append(self._finish("STOP"))

    def _read(self, decoded: _Answer, events: list[ChatEvent]) -> None:
        if decoded.model_version:
            self._model = decoded.model_version
        candidate = next((one for one in decoded.candidates or () if not one.index), None)
        if candidate is not None:
            self._read_content(candidate, events)
        if decoded.usage_metadata is not None or (candidate is not None and candidate.grounding_metadata):
            self._usage = decoded.usage_metadata or self._usage
            events.append(build_usage(self._usage or UsageMetadata(), self._searches.count(self._model)))
        if candidate is not None and candidate.finish_reason not in _UNSPECIFIED:
            events.append(self._finish(candidate.finish_reason or ""))
        if decoded.prompt_feedback is not None and decoded.prompt_feedback.block_reason not in _NOT_BLOCKED:
            events.append(Finished("content_filter"))
        if decoded.error is not None:
            events.append(read_error(self._provider, decoded.error))

    def _read_content(self, candidate: _Candidate, events: list[ChatEvent]) -> None:
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                self._read_part(part, events)
        if candidate.logprobs_result is not None:
            _read_logprobs(candidate.logprobs_result, events)
        if candidate.citation_metadata is not None:
            events += self._citations.read_recitations(candidate.citation_metadata)
        if candidate.grounding_metadata:
            self._searches.add(candidate.grounding_metadata.get("webSearchQueries"))
            events += self._citations.read_grounding(candidate.grounding_metadata)
            # Google's terms want its search suggestions shown, which are in here.
            events.append(ProviderItem(FORMAT, {"groundingMetadata": candidate.grounding_metadata}))

    def _read_part(self, part: _Part, events: list[ChatEvent]) -> None:
        if part.text is not None and part.function_call is None and part.inline_data is None:
            self._read_text(part.text, part, events)
            return
        self._is_thinking = False
        if part.function_call is not None:
            self._read_call(part.function_call, part.thought_signature, events)
        elif part.inline_data is not None:
            self._read_blob(part.inline_data, part, events)
        else:
            self._read_item(part, events)

    def _read_text(self, text: str, part: _Part, events: list[ChatEvent]) -> None:
        if part.thought:
            if not self._is_thinking:
                self._thought += 1
                self._is_thinking = True
            if text:
                events.append(ReasoningDelta(text, self._thought, is_summary=True))
        else:
            self._is_thinking = False
            if text:
                self._citations.add_text(text)
                events.append(TextDelta(text))
        if part.thought_signature:
            self._seal(part.thought_signature, events)

    def _seal(self, signature: str, events: list[ChatEvent]) -> None:
        """Of the thought just told; else of a text or an image, which is a block of its own without text."""
        if not self._is_thinking:
            self._thought += 1
        self._is_thinking = False
        events.append(ReasoningSealed(self._thought, FORMAT, signature=signature))

    def _read_call(self, call: _FunctionCall, signature: str | None, events: list[ChatEvent]) -> None:
        if self._calls == self._max_calls:
            return
        arguments = _compact(call.args)
        id_ = call.id or self._new_id()
        events.append(ToolCallDelta(self._calls, id_, call.name or "", arguments, signature or None))
        self._calls += 1

    def _read_blob(self, blob: _Blob, part: _Part, events: list[ChatEvent]) -> None:
        media_type = blob.mime_type or ""
        if part.thought or not media_type.startswith(("image/", "audio/")):
            item = {"inlineData": {"mimeType": media_type, "data": blob.data or ""}}
            events.append(_build_item(item, part))
            return
        if media_type.startswith("image/"):
            events.append(ImageDelta(media_type, blob.data or ""))
        else:
            events.append(AudioDelta(blob.data or ""))
        if part.thought_signature:
            self._seal(part.thought_signature, events)

    def _read_item(self, part: _Part, events: list[ChatEvent]) -> None:
        """What Google ran itself, and a signature that stands alone."""
        members = {
            "executableCode": part.executable_code,
            "codeExecutionResult": part.code_execution_result,
            "toolCall": part.tool_call,
            "toolResponse": part.tool_response,
        }
        item = {name: value for name, value in members.items() if value is not None}
        if item:
            if part.tool_call is not None and part.tool_call.get("toolType") == "GOOGLE_SEARCH_WEB":
                self._read_search(part.tool_call)
            events.append(_build_item(item, part))
        elif part.thought_signature:
            self._seal(part.thought_signature, events)

    def _read_search(self, tool_call: dict[str, Any]) -> None:
        """An answer that ends in a call of ours need not say its queries elsewhere."""
        arguments = tool_call.get("args")
        if isinstance(arguments, dict):
            self._searches.add(arguments.get("queries"))

    def _finish(self, reason: str) -> Finished:
        if reason == "STOP" and self._calls:
            return Finished("tool_calls")
        return Finished(_FINISH_REASONS.get(reason, "error"))


def open_reader(
    provider: str, media_type: str, new_id: Callable[[], str] = new_call_id, max_calls: int | None = None
) -> Reader:
    """For an event stream, or for a whole answer. `new_id` makes ids for calls that came without. Calls beyond
    `max_calls` are left out: Google cannot be told to make one at a time, and a model makes the others again when it
    has the first one's result.
    """
    return answer.open_reader(provider, GeminiAnswer(provider, new_id, max_calls), media_type)


def _compact(args: msgspec.Raw) -> str:
    """The arguments without white space and otherwise to the letter; what is no object has none."""
    text = bytes(args)
    return msgspec.json.format(text, indent=-1).decode("utf-8", "replace") if text.startswith(b"{") else "{}"


def _build_item(item: dict[str, Any], part: _Part) -> ProviderItem:
    if part.thought:
        item["thought"] = True
    if part.thought_signature:
        item["thoughtSignature"] = part.thought_signature
    return ProviderItem(FORMAT, item)


def _read_logprobs(result: _LogprobsResult, events: list[ChatEvent]) -> None:
    """https://ai.google.dev/api/generate-content#LogprobsResult: two lists with the same places."""
    tops = result.top_candidates or []
    content = []
    for place, chosen in enumerate(result.chosen_candidates or ()):
        others = tops[place].candidates or [] if place < len(tops) else []
        content.append(_build_token(chosen) | {"top_logprobs": [_build_token(other) for other in others]})
    if content:
        events.append(Logprobs(tuple(content)))


def _build_token(token: _Token) -> dict[str, Any]:
    text = token.token or ""
    return {"token": text, "logprob": token.log_probability, "bytes": list(text.encode("utf-8", "surrogatepass"))}
