"""Answers that OpenAI makes in the background: https://developers.openai.com/api/docs/guides/background."""

import re
from functools import partial

import msgspec

from proxy.answer import NOT_JSON
from proxy.dialects.openai_responses.answer import open_reader
from proxy.events import Usage
from proxy.provider import Background, BackgroundState, Target, UpstreamRequest

_OVER = frozenset({"completed", "failed", "incomplete", "cancelled"})
_UNDER_WAY = frozenset({"queued", "in_progress"})
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
"""An id becomes a part of URLs that carry our key."""


class _State(msgspec.Struct):
    id: str
    status: str


_decode_state = msgspec.json.Decoder(_State).decode


def build_background(target: Target) -> Background:
    return Background(
        read_state=read_state,
        read_usage=read_usage,
        build_lookup=partial(_build_request, target, "GET", ""),
        build_cancel=partial(_build_request, target, "POST", "/cancel"),
        build_delete=partial(_build_request, target, "DELETE", ""),
    )


def read_state(body: bytes) -> BackgroundState | None:
    """None for what is no response, has a status that we do not know, or an id that no URL should hold."""
    try:
        state = _decode_state(body)
    except NOT_JSON:
        return None
    if not _ID.fullmatch(state.id) or state.status not in _OVER | _UNDER_WAY:
        return None
    return BackgroundState(state.id, state.status in _OVER)


def read_usage(body: bytes) -> Usage | None:
    """What the response says that it has used, whatever became of it."""
    reader = open_reader("openai", "openai-responses-v1", "application/json")
    usages = [event for event in (*reader.feed(body), *reader.finish()) if isinstance(event, Usage)]
    return usages[-1] if usages else None


def _build_request(target: Target, method: str, action: str, id_: str) -> UpstreamRequest:
    """`id_` comes from `read_state`."""
    headers = (("Authorization", f"Bearer {target.api_key}"), ("Accept", "application/json"))
    url = f"{target.base_url.rstrip('/')}/responses/{id_}{action}"
    return UpstreamRequest(url, headers, b"", method)
