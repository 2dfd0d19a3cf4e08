"""Request bodies of both dialects, for tests: what decodes, what is refused, and anything at all."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from proxy.chat import ChatRequest
from server.dialects.dialect import Decoded
from server.errors import RequestInvalid

Decode = Callable[[bytes], Decoded]

MODEL = "openai/gpt-4.1-mini"
MEMBERS = [
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "source",
    "file",
    "file_data",
    "file_id",
    "media_type",
    "data",
    "tools",
    "tool_calls",
    "tool_call_id",
    "function",
    "arguments",
    "name",
    "stream",
    "stream_options",
    "max_tokens",
    "temperature",
    "seed",
    "stop",
    "n",
    "task_type",
    "request_id",
    "response_format",
    "tool_choice",
    "top_k",
    "logit_bias",
    "metadata",
    "modalities",
    "audio",
    "format",
    "reasoning",
    "thinking",
    "web_search_options",
    "user_location",
    "cache_control",
    "citations",
    "input_audio",
    "reasoning_details",
    "provider_items",
    "item",
    "images",
    "extra_content",
    "google",
    "index",
]
WORDS = ["user", "tool", "text", "image_url", "input_image", "document", "file", "base64", "data:image/png;base64,aGk="]
WORDS += ["function", "web_search", "allowed_tools", "json_schema", "input_audio", "thinking", "enabled", "wav"]


def build_body(**members: Any) -> bytes:
    """The smallest request, changed."""
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], **members}).encode()


def decode_request(decode: Decode, **members: Any) -> ChatRequest:
    return decode(build_body(**members)).request


def refuse(decode: Decode, body: bytes) -> str:
    """What the refusal says."""
    with pytest.raises(RequestInvalid) as caught:
        decode(body)
    return str(caught.value)


def read_or_refuse(decode: Decode, body: bytes) -> None:
    """Either is fine; nothing else is."""
    try:
        decoded = decode(body)
    except RequestInvalid:
        return
    assert isinstance(decoded.request.model, str)
    assert decoded.request.messages


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS)


def _grow(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), values, max_size=4)


json_values = st.recursive(_scalars, _grow, max_leaves=15)
parts = st.dictionaries(st.sampled_from(MEMBERS), json_values, max_size=4)
roles = st.sampled_from(["user", "assistant", "assistant", "tool", "x"])
messages = st.fixed_dictionaries(
    {"role": roles, "content": json_values | st.lists(parts, max_size=3)},
    optional={
        "tool_calls": json_values,
        "tool_call_id": json_values,
        "name": json_values,
        "reasoning_details": json_values | st.lists(parts, max_size=3),
        "provider_items": json_values | st.lists(parts, max_size=3),
        "images": json_values | st.lists(parts, max_size=3),
        "audio": json_values,
    },
)
bodies = st.fixed_dictionaries(
    {"model": st.text(max_size=5), "messages": st.lists(messages, min_size=1, max_size=2)},
    optional={
        **{name: json_values for name in MEMBERS if name not in {"model", "messages"}},
        "tools": st.lists(parts, max_size=3),
    },
).map(lambda body: json.dumps(body).encode())

HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"model":"a","messages":[{"role":"user","content":[{"type":' + b"[" * 900 + b"]" * 900 + b"}]}]}",
    b'{"model":"a","messages":[{"role":"user","content":[{"type":' + b"[" * 5000 + b"]" * 5000 + b"}]}]}",
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"skipped":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"model":"a\\ud800","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"\xff","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"a","messages":[{"role":"user","content":"\x00"}]}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}",
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    b'{"model":"a","messages":[{"role":"user","content":[{"type":' + b"9" * 5000 + b"}]}]}",
    '{"model":"a","messages":[{"role":"user","content":"x"}]}'.encode("utf-16"),
    b'\xef\xbb\xbf{"model":"a","messages":[{"role":"user","content":"x"}]}',
]
