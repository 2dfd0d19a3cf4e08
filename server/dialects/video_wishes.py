"""What clients ask for when they upload a video: the fields of a form, and the answer that they read. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from proxy.chat import Attached, ChatRequest, Message, Sampling, Text
from proxy.collected import Collected
from proxy.events import Completed
from proxy.routing import Model
from server.dialects.form_fields import Fields, read_number, read_one, read_temperature
from server.dialects.transcripts import tell_usage
from server.errors import ArgumentInvalid, ChoiceUnknown

DEFAULT_MODEL = "google/gemini-2.5-pro"
DEFAULT_TEMPERATURE = 0.4
DEFAULT_FRAMES_PER_SECOND = 1.0
MAX_FRAMES_PER_SECOND = 24
"""https://ai.google.dev/api/caching#VideoMetadata"""
MAX_TOKENS = 2**31 - 1
PROVIDER = "google"


def read_video_request(
    fields: Fields, video: Attached, models: Mapping[str, Model], idempotency_key: str | None = None
) -> ChatRequest:
    """`video.seconds` is what the file says of itself, 0 if nothing: it counts where the client says less. Raises
    ArgumentInvalid, ChoiceUnknown and RequestInvalid, naming the field.
    """
    prompt = read_one(fields, "prompt")
    if prompt is None:
        raise ArgumentInvalid("prompt: what is to be found out of the video")
    told_seconds = _read_milliseconds(fields) / 1000
    seconds, frame_rate = max(told_seconds, video.seconds), _read_frame_rate(fields)
    attached = replace(video, seconds=seconds, frames_per_second=frame_rate)
    system = read_one(fields, "systemPrompt")
    messages = [Message("system", (Text(system),))] if system else []
    temperature = read_temperature(fields, most=2.0)
    return ChatRequest(
        model=_read_model(fields, models),
        messages=(*messages, Message("user", (attached, Text(prompt)))),
        max_output_tokens=_read_count(fields, "maxOutputTokens", least=1),
        sampling=Sampling(
            temperature=DEFAULT_TEMPERATURE if temperature is None else temperature,
            reasoning_tokens=_read_count(fields, "thinkingBudget", least=0),
        ),
        task_type="video_analysis",
        idempotency_key=idempotency_key,
    )


def encode_analysis(collected: Collected, request_id: str) -> bytes:
    """The first three members of `usage` are those that the desktop needs."""
    body: dict[str, Any] = {"analysis": collected.said, "requestId": request_id}
    if isinstance(collected.ended, Completed):
        body["usage"] = tell_usage(collected.ended)
        body["cost"] = msgspec.Raw(collected.ended.cost_usd.encode())
    return msgspec.json.encode(body)


def _read_model(fields: Fields, models: Mapping[str, Model]) -> str:
    name = read_one(fields, "model") or DEFAULT_MODEL
    if name.count("/") != 1 or not name.startswith(f"{PROVIDER}/"):
        raise ChoiceUnknown(f"model: one of {PROVIDER}'s, as in {DEFAULT_MODEL}")
    if name not in models:
        raise ChoiceUnknown(f"model: {name[:200]!r} is not offered here; GET /v1/models lists those that are")
    return name


def _read_milliseconds(fields: Fields) -> float:
    found = read_number(fields, "durationMs")
    if found is None or round(found) <= 0:
        raise ArgumentInvalid("durationMs: how long the video lasts, in milliseconds, more than 0")
    return round(found)


def _read_frame_rate(fields: Fields) -> float:
    found = read_number(fields, "framerate")
    if found is None:
        return DEFAULT_FRAMES_PER_SECOND
    if not 0 < found <= MAX_FRAMES_PER_SECOND:
        raise ArgumentInvalid(f"framerate: more than 0 and at most {MAX_FRAMES_PER_SECOND} pictures a second")
    return found


def _read_count(fields: Fields, name: str, least: int) -> int | None:
    found = read_number(fields, name)
    if found is None:
        return None
    if not (found.is_integer() and least <= found <= MAX_TOKENS):
        raise ArgumentInvalid(f"{name}: a whole number of tokens, at least {least}")
    return int(found)
