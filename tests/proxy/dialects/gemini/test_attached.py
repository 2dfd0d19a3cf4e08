"""A file in a request to Gemini."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.chat import Attached, ChatRequest, Message, Text, ToolCall
from proxy.dialects.gemini.attached import (
    AUDIO_TYPES,
    INLINE_BYTES,
    MAX_BYTES,
    VIDEO_TYPES,
    put_address,
)
from proxy.dialects.gemini.call import build_request
from proxy.errors import RequestNotSupported
from proxy.provider import Target, UpstreamRequest
from tests.proxy.file_calls import MemoryFile, make_file

TARGET = Target("https://google.test/v1beta", "AIza-key", "gemini-2.5-flash", {"video": True, "audio": True})
SMALL = make_file(10)


class Sized:
    """A file of which only its size matters."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        raise AssertionError("building a request reads nothing")


def asking(*parts: Attached | Text, prompt: str = "Look") -> ChatRequest:
    return ChatRequest("google/x", (Message("user", (*parts, Text(prompt))),))


def video(media_type: str = "video/mp4", file: MemoryFile | Sized = SMALL, rate: float | None = None) -> Attached:
    return Attached(media_type, file, 4, rate)


def build(request: ChatRequest, target: Target = TARGET) -> UpstreamRequest:
    return build_request(request, target, "Google")


def whole_body(request: UpstreamRequest, file: MemoryFile) -> dict[str, Any]:
    """As it goes out."""
    assert request.tail is not None
    assert request.tail.is_base64
    assert request.tail.file is file
    body = request.body + base64.b64encode(file.content) + request.tail.after
    assert len(body) == request.body_bytes
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def test_a_small_file_stands_where_its_place_was_kept() -> None:
    body = whole_body(build(asking(video(rate=0.5))), SMALL)
    data = base64.b64encode(SMALL.content).decode()
    part = {"inlineData": {"mimeType": "video/mp4", "data": data}, "videoMetadata": {"fps": 0.5}}
    assert body["contents"] == [{"role": "user", "parts": [part, {"text": "Look"}]}]


@pytest.mark.parametrize("prompt", ["\x00", '"\x00"', "\\u0000", '{"data":"\x00"}'])
def test_nothing_that_a_client_writes_is_taken_for_the_place(prompt: str) -> None:
    calls = (ToolCall("c1", "f", json.dumps({"a": prompt})),)
    request = asking(Text(prompt), video(), prompt=prompt)
    result = Message("tool", (Text(json.dumps({"b": prompt})),), tool_call_id="c1")
    request = replace(request, messages=(*request.messages, Message("assistant", (), tool_calls=calls), result))
    parts = whole_body(build(request), SMALL)["contents"][0]["parts"]
    assert [part.get("text") for part in parts] == [prompt, None, prompt]


def test_sound_has_no_frames() -> None:
    body = whole_body(build(asking(video("audio/mpeg", rate=1))), SMALL)
    assert body["contents"][0]["parts"][0].keys() == {"inlineData"}


def test_a_large_file_is_spoken_of_by_the_address_that_google_gave_it() -> None:
    built = build(asking(video(file=Sized(INLINE_BYTES), rate=2), prompt="\x00"))
    assert built.tail is None
    uri = 'https://google.test/v1beta/files/a"b'
    body = json.loads(put_address(built, uri).body)
    part = {"fileData": {"mimeType": "video/mp4", "fileUri": uri}, "videoMetadata": {"fps": 2}}
    assert body["contents"][0]["parts"] == [part, {"text": "\x00"}]


@pytest.mark.parametrize(("size_bytes", "is_inline"), [(INLINE_BYTES - 1, True), (INLINE_BYTES, False)])
def test_where_the_line_is(size_bytes: int, is_inline: bool) -> None:
    assert (build(asking(video(file=Sized(size_bytes)))).tail is not None) is is_inline
    assert INLINE_BYTES * 4 / 3 < 30_000_000


@pytest.mark.parametrize("media_type", [*VIDEO_TYPES, *AUDIO_TYPES])
def test_formats_go_by_the_names_that_google_knows(media_type: str) -> None:
    body = whole_body(build(asking(video(media_type))), SMALL)
    known = VIDEO_TYPES | AUDIO_TYPES
    assert body["contents"][0]["parts"][0]["inlineData"]["mimeType"] == known[media_type]
    assert known[known[media_type]] == known[media_type]


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (video("video/mp2t"), "file: 'video/mp2t' is not taken by Google, which takes .*video/mp4.*video/webm"),
        (video("audio/amr"), "file: 'audio/amr' is not taken by Google, which takes .*audio/flac.*audio/wav"),
        (video("text/plain"), "which takes audio"),
        (video(file=Sized(MAX_BYTES + 1)), f"file: {MAX_BYTES + 1} bytes, more than the {MAX_BYTES}"),
        (video(rate=0), "framerate: .* more than 0 and at most 24"),
        (video(rate=24.5), "framerate"),
    ],
)
def test_what_google_does_not_take_is_refused(part: Attached, told: str) -> None:
    with pytest.raises(RequestNotSupported, match=told):
        build(asking(part))


@pytest.mark.parametrize(
    ("capabilities", "media_type", "told"),
    [
        ({"audio": True}, "video/mp4", "no video"),
        ({"video": True}, "audio/wav", "no sound"),
        ({"audio": "yes"}, "audio/wav", "no sound"),
        ({}, "video/mp2t", "no video"),
    ],
)
def test_a_model_takes_what_the_catalogue_says(capabilities: dict[str, object], media_type: str, told: str) -> None:
    with pytest.raises(RequestNotSupported, match=f"file: this model takes {told}"):
        build(asking(video(media_type)), replace(TARGET, capabilities=capabilities))


def test_one_that_transcribes_takes_sound() -> None:
    build(asking(video("audio/wav")), replace(TARGET, capabilities={"transcription": True}))


def test_two_files_are_one_too_many() -> None:
    with pytest.raises(RequestNotSupported, match="only one file"):
        build(asking(video(), video()))


def test_a_file_says_nothing_of_itself_in_a_repr() -> None:
    built = build(asking(video()))
    assert "MemoryFile" not in repr(built) + repr(video())
