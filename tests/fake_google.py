"""Scripts for a FakeUpstream in Google's dialect: https://ai.google.dev/api/generate-content."""

import json
from collections.abc import Iterator, Mapping, Sequence

from tests.fake_upstream import END_OF_CHUNKS, Pause, SendChunk, Step, response, stream_head
from tests.openai_scripts import ScriptedToolCall


def google_stream(
    pieces: Sequence[str],
    *,
    usage: tuple[int, int] | None = (1, 1),
    cached_tokens: int = 0,
    thought_tokens: int = 0,
    thoughts: Sequence[str] = (),
    signature: str = "c2NyaXB0ZWQ=",
    tool_calls: Sequence[ScriptedToolCall] = (),
    finish_reason: str = "STOP",
    error: tuple[int, str, str] | None = None,
    model: str = "gemini-2.5-flash",
    pause_seconds: float = 0,
) -> list[Step]:
    """An answer of streamGenerateContent with `alt=sse`, whose lines end in CRLF. `usage` is the prompt, which holds
    what was cached, and the candidates, which leave out what was thought.

    Every thought, piece and call is a chunk, with a pause before it. Calls come whole, one a chunk; the first carries
    the signature. The last chunk carries the finish reason; with an `error` of (code, status, message) that instead.
    """
    parts = list(_parts(pieces, thoughts, signature, tool_calls))
    steps: list[Step] = [stream_head()]
    for number, part in enumerate(parts):
        steps += [Pause(pause_seconds)] if pause_seconds else []
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
        counted = _usage(usage, cached_tokens, thought_tokens, share=number / len(parts))
        steps.append(_event(_envelope(model, candidate, counted)))
    last = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": finish_reason, "index": 0}
    ending = _error(*error) if error else _envelope(model, last, _usage(usage, cached_tokens, thought_tokens))
    return [*steps, _event(ending), END_OF_CHUNKS]


def google_error(status: int, name: str, message: str, *, retry_seconds: float | None = None) -> list[Step]:
    """A refusal of Google, `name` as `RESOURCE_EXHAUSTED`: https://ai.google.dev/gemini-api/docs/troubleshooting.

    When to come again it says in the body: https://google.aip.dev/193.
    """
    body = _error(status, name, message)
    if retry_seconds is not None:
        detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_seconds:g}s"}
        body["error"] |= {"details": [detail]}
    return response(status, json.dumps(body, indent=2).encode())


def _event(value: Mapping[str, object]) -> SendChunk:
    return SendChunk(f"data: {json.dumps(value, separators=(',', ': '))}\r\n\r\n".encode())


def _envelope(
    model: str, candidate: Mapping[str, object], usage: Mapping[str, object] | None
) -> dict[str, object]:
    counted = {} if usage is None else {"usageMetadata": usage}
    return {"candidates": [candidate], **counted, "modelVersion": model, "responseId": "scripted"}


def _error(code: int, name: str, message: str) -> dict[str, dict[str, object]]:
    return {"error": {"code": code, "message": message, "status": name}}


def _usage(
    usage: tuple[int, int] | None, cached_tokens: int, thought_tokens: int, share: float = 1
) -> dict[str, object] | None:
    """Of a `share` of the candidates. What is zero is left out."""
    if usage is None:
        return None
    prompt, candidates = usage[0], int(usage[1] * share)
    counted: dict[str, object] = {"promptTokenCount": prompt}
    counted |= {"candidatesTokenCount": candidates} if candidates else {}
    counted |= {"totalTokenCount": prompt + candidates + thought_tokens}
    counted |= {"cachedContentTokenCount": cached_tokens} if cached_tokens else {}
    counted |= {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}]}
    return counted | ({"thoughtsTokenCount": thought_tokens} if thought_tokens else {})


def _parts(
    pieces: Sequence[str], thoughts: Sequence[str], signature: str, calls: Sequence[ScriptedToolCall]
) -> Iterator[dict[str, object]]:
    for thought in thoughts:
        yield {"text": thought, "thought": True}
    for piece in pieces:
        yield {"text": piece}
    for number, call in enumerate(calls):
        arguments = json.loads("".join(call.arguments) or "{}")
        sealed = {"thoughtSignature": signature} if number == 0 else {}
        yield {"functionCall": {"name": call.name, "args": arguments, "id": call.id}, **sealed}
