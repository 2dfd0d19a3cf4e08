"""Forms that end with a file."""

import pytest

from proxy.chat import Attached
from proxy.dialects.openai_audio.form import build_form
from proxy.errors import RequestNotSupported
from proxy.provider import UpstreamRequest
from tests.proxy.forms import read_form
from tests.sounds import FileInMemory

FILE = FileInMemory(b"sound" * 100)


def build(media_type: str = "audio/mpeg", *fields: tuple[str, str]) -> UpstreamRequest:
    content_type, body, tail = build_form(fields, Attached(media_type, FILE, 1.0), "OpenAI")
    return UpstreamRequest("https://api.test/", (("Content-Type", content_type),), body, tail=tail)


def test_fields_come_first_in_their_order_and_the_file_last() -> None:
    *fields, file = read_form(build("audio/wav", ("model", "m"), ("a[]", "1"), ("a[]", "2")))
    assert [(one.name, one.value) for one in fields] == [("model", b"m"), ("a[]", b"1"), ("a[]", b"2")]
    assert (file.name, file.file_name, file.media_type, file.size_bytes) == ("file", "audio.wav", "audio/wav", 500)


@pytest.mark.parametrize("value", ["", "Grüße\r\n", '"; filename="x"\r\n\r\n--', "-" * 100, "a\r\n--b--\r\n", "\ud800"])
def test_a_value_can_be_any_text(value: str) -> None:
    [field, _] = read_form(build("audio/mpeg", ("prompt", value)))
    assert field.value == value.encode("utf-8", "replace")


def test_nobody_can_know_the_boundary() -> None:
    assert len({build().headers for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("audio/mpeg", "audio.mp3"),
        ("audio/mp4", "audio.m4a"),
        ("audio/x-m4a", "audio.m4a"),
        ("audio/webm;codecs=opus", "audio.webm"),
        ("AUDIO/OGG", "audio.ogg"),
        ("audio/flac", "audio.flac"),
        ("video/mp4", "audio.mp4"),
        ("video/webm", "audio.webm"),
    ],
)
def test_the_name_of_a_file_is_ours_and_tells_its_kind(media_type: str, name: str) -> None:
    assert read_form(build(media_type))[-1].file_name == name


@pytest.mark.parametrize("media_type", ["audio/aac", "audio/aiff", "audio/amr", "video/x-matroska", "text/plain", ""])
def test_what_the_provider_does_not_take_is_refused_by_its_name(media_type: str) -> None:
    with pytest.raises(RequestNotSupported, match=r"^file: OpenAI takes"):
        build(media_type)


def test_neither_prompt_nor_file_shows_in_a_repr() -> None:
    assert "secret" not in repr(build("audio/mpeg", ("prompt", "secret")))
    assert "sound" not in repr(build())
