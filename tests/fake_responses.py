"""Scripts for a FakeUpstream in the dialect of OpenAI's Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

import json
from collections.abc import Iterator, Sequence

from tests.fake_upstream import END_OF_CHUNKS, Pause, SendChunk, Step, stream_head
from tests.openai_scripts import ScriptedToolCall

Event = dict[str, object]


def responses_stream(
    pieces: Sequence[str],
    *,
    usage: tuple[int, int] = (1, 1),
    cached_tokens: int = 0,
    reasoning_tokens: int = 0,
    reasoning: Sequence[str] = (),
    encrypted: str = "gAAAAABzY3JpcHRlZA==",
    tool_calls: Sequence[ScriptedToolCall] = (),
    incomplete_reason: str | None = None,
    error: tuple[str, str] | None = None,
    model: str = "gpt-5-2025-08-07",
    pause_seconds: float = 0,
) -> list[Step]:
    """An answer of the Responses API. `usage` is input and output, which hold what was cached and reasoned.

    Every event is a chunk, numbered; a pause comes before each delta. `reasoning` is the pieces of one summary. With an
    `incomplete_reason` (`max_output_tokens`, `content_filter`) the answer ends so, with an `error` of (code, message)
    it fails.
    """
    counted = _usage(usage, cached_tokens, reasoning_tokens)
    items = list(_items(pieces, reasoning, encrypted, tool_calls))
    output = [item for item, _ in items]
    events: list[Event] = [_lifecycle(kind, model) for kind in ("created", "in_progress")]
    for index, (item, inside) in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        events.append({"type": "response.output_item.added", "output_index": index, "item": _begun(item)})
        events += [event | place for event in inside]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events += _ending(model, output, counted, incomplete_reason, error)
    return [stream_head(), *_number(events, pause_seconds), END_OF_CHUNKS]


def _number(events: Sequence[Event], pause_seconds: float) -> Iterator[Step]:
    for number, event in enumerate(events):
        if pause_seconds and str(event["type"]).endswith(".delta"):
            yield Pause(pause_seconds)
        data = json.dumps(event | {"sequence_number": number}, separators=(",", ":"))
        yield SendChunk(f"event: {event['type']}\ndata: {data}\n\n".encode())


def _ending(
    model: str,
    output: Sequence[Event],
    usage: Event,
    incomplete_reason: str | None,
    error: tuple[str, str] | None,
) -> list[Event]:
    if error:
        told = {"code": error[0], "message": error[1]}
        return [{"type": "error", **told, "param": None}, _lifecycle("failed", model, error=told)]
    if incomplete_reason:
        why = {"reason": incomplete_reason}
        return [_lifecycle("incomplete", model, output=output, usage=usage, incomplete_details=why)]
    return [_lifecycle("completed", model, output=output, usage=usage)]


def _lifecycle(kind: str, model: str, **fields: object) -> Event:
    """The whole response as it stands, which the first two and the last event carry."""
    answer = {
        "id": "resp_scripted",
        "object": "response",
        "created_at": 1763850000,
        "status": "in_progress" if kind == "created" else kind,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }
    return {"type": f"response.{kind}", "response": answer | fields}


def _usage(usage: tuple[int, int], cached_tokens: int, reasoning_tokens: int) -> Event:
    return {
        "input_tokens": usage[0],
        "input_tokens_details": {"cached_tokens": cached_tokens},
        "output_tokens": usage[1],
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": sum(usage),
    }


def _items(
    pieces: Sequence[str], reasoning: Sequence[str], encrypted: str, calls: Sequence[ScriptedToolCall]
) -> Iterator[tuple[Event, list[Event]]]:
    """Each item as it is at its end, and what is told between its start and its end."""
    if reasoning:
        summary = {"type": "summary_text", "text": "".join(reasoning)}
        item: Event = {"id": "rs_scripted", "type": "reasoning", "encrypted_content": encrypted, "summary": [summary]}
        yield item, list(_summary_events(reasoning))
    if pieces:
        part = _text_part("".join(pieces))
        message: Event = {"id": "msg_scripted", "type": "message", "role": "assistant", "content": [part]}
        yield message | {"status": "completed"}, list(_text_events(pieces))
    for number, call in enumerate(calls):
        yield _call_item(number, call), list(_call_events(call))


def _begun(item: Event) -> Event:
    """The item at its start: nothing is in it, but a seal that is to be replaced."""
    empty: Event = {name: [] for name in ("content", "summary") if name in item}
    empty |= {"arguments": ""} if "arguments" in item else {}
    empty |= {"status": "in_progress"} if "status" in item else {}
    return item | empty


def _call_item(number: int, call: ScriptedToolCall) -> Event:
    return {
        "id": f"fc_scripted_{number}",
        "type": "function_call",
        "status": "completed",
        "arguments": "".join(call.arguments),
        "call_id": call.id,
        "name": call.name,
    }


def _summary_events(pieces: Sequence[str]) -> Iterator[Event]:
    place = {"summary_index": 0}
    text = "".join(pieces)
    yield {"type": "response.reasoning_summary_part.added", **place, "part": {"type": "summary_text", "text": ""}}
    for piece in pieces:
        yield {"type": "response.reasoning_summary_text.delta", **place, "delta": piece, **_padding(piece)}
    yield {"type": "response.reasoning_summary_text.done", **place, "text": text}
    yield {"type": "response.reasoning_summary_part.done", **place, "part": {"type": "summary_text", "text": text}}


def _text_events(pieces: Sequence[str]) -> Iterator[Event]:
    place = {"content_index": 0}
    text = "".join(pieces)
    yield {"type": "response.content_part.added", **place, "part": _text_part("")}
    for piece in pieces:
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": [], **_padding(piece)}
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _text_part(text)}


def _text_part(text: str) -> Event:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _call_events(call: ScriptedToolCall) -> Iterator[Event]:
    for piece in call.arguments:
        yield {"type": "response.function_call_arguments.delta", "delta": piece, **_padding(piece)}
    yield {"type": "response.function_call_arguments.done", "arguments": "".join(call.arguments)}


def _padding(piece: str) -> dict[str, str]:
    """So that whoever sees the sizes of what is encrypted learns little of the words."""
    return {"obfuscation": "x" * (16 - len(piece) % 16)}
