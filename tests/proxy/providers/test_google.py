"""Google's own ways."""

import json
from dataclasses import replace

import pytest

from proxy.chat import ChatRequest, Message, Text
from proxy.errors import RequestNotSupported
from proxy.events import Finished, ToolCallDelta
from proxy.provider import Target, load_providers
from proxy.providers.google import PROVIDER

REQUEST = ChatRequest("x", (Message("user", (Text("Hi"),)),))
TARGET = Target(PROVIDER.default_base_url, "key", "gemini-2.5-pro", {"thinking": True})


def test_it_lives_where_google_says() -> None:
    call = PROVIDER.build_call(REQUEST, TARGET)
    assert call.request.url == (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    )
    assert PROVIDER.needs_key
    assert load_providers()["google"] is PROVIDER


def test_a_model_that_thinks_is_given_room_to() -> None:
    config = json.loads(PROVIDER.build_call(REQUEST, TARGET).request.body)["generationConfig"]
    assert config == {"thinkingConfig": {"thinkingBudget": 10_000, "includeThoughts": True}}


def test_gifs_are_not_taken() -> None:
    media = PROVIDER.media
    assert media.image_types == {f"image/{name}" for name in ("jpeg", "png", "webp", "heic", "heif")}
    assert media.document_types == {"application/pdf"}
    sizes = (media.max_total_image_bytes, media.max_document_bytes, media.max_total_document_bytes)
    assert set(sizes) == {20 * 1024 * 1024}


def test_what_it_cannot_do_is_refused_in_its_name() -> None:
    with pytest.raises(RequestNotSupported, match="metadata: Google does not"):
        PROVIDER.build_call(replace(REQUEST, metadata={"a": "b"}), TARGET)


@pytest.mark.parametrize(("parallel", "names"), [(None, ["f", "g"]), (True, ["f", "g"]), (False, ["f"])])
def test_calls_come_one_at_a_time_where_that_is_asked_for(parallel: bool | None, names: list[str]) -> None:
    """Google cannot be told: the first one is kept, and the model makes the other again."""
    parts: list[object] = [{"functionCall": {"name": name, "args": {}}} for name in ("f", "g")]
    body = json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}).encode()
    call = PROVIDER.build_call(replace(REQUEST, parallel_tool_calls=parallel), TARGET)
    reader = call.open_reader("application/json")
    events = [*reader.feed(body), *reader.finish()]
    assert [event.name for event in events if isinstance(event, ToolCallDelta)] == names
    assert events[-1] == Finished("tool_calls")
