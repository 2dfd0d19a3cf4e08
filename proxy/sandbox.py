"""Plays the sandbox provider's answers inside this process, and leaves every other request to the network."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from proxy.provider import UpstreamRequest
from proxy.sandbox_sound import is_transcription, play_transcript
from proxy.sse import encode_event
from proxy.tokens import count_tokens
from proxy.transport import Exchange, Transport

SCHEME = "sandbox://"
SECONDS_PER_WORD = 0.02
_INTRODUCTION = "This is Cloche's sandbox, not a model. You said: "


@dataclass(slots=True)
class SandboxExchange:
    """An answer being played, one word a read."""

    pieces: Iterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})

    async def receive_some(self) -> bytes:
        await trio.sleep(SECONDS_PER_WORD)
        return next(self.pieces, b"")

    async def receive_all(self, limit_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"".join(self.pieces)[:limit_bytes]


@dataclass(frozen=True, slots=True)
class SandboxTransport:
    """A Transport that answers `sandbox://` itself. Only for servers that are not in production."""

    network: Transport

    @asynccontextmanager
    async def open_exchange(self, request: UpstreamRequest) -> AsyncIterator[Exchange]:
        if request.url.startswith(SCHEME):
            yield _open_played(request)
        else:
            async with self.network.open_exchange(request) as exchange:
                yield exchange


def _open_played(request: UpstreamRequest) -> SandboxExchange:
    if not is_transcription(request):
        return SandboxExchange(play(request.body))
    played = play_transcript(request)
    return SandboxExchange(played.pieces, headers={"content-type": played.media_type})


def play(body: bytes) -> Iterator[bytes]:
    """The events of an answer to a chat request: an introduction, the last user message again, usage."""
    request = msgspec.json.decode(body)
    words = _split(_INTRODUCTION + _last_user_text(request["messages"]))
    limit = request.get("max_completion_tokens") or len(words)
    completion_tokens = 0
    for word in words[:limit]:
        completion_tokens += count_tokens(word)
        yield _chunk({"content": word})
    yield _chunk({}, "stop" if limit >= len(words) else "length")
    prompt_tokens = sum(count_tokens(_text(message)) for message in request["messages"])
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    yield encode_event(msgspec.json.encode({"choices": [], "usage": usage}))
    yield encode_event(b"[DONE]")


def _chunk(delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return encode_event(msgspec.json.encode({"choices": [choice]}))


def _split(text: str) -> list[str]:
    """Words with the white space before them, so that they join to the text again."""
    return re.findall(r"\s*\S+|\s+$", text)


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    return next((_text(message) for message in reversed(messages) if message["role"] == "user"), "")


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")
