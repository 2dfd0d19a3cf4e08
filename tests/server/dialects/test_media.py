"""Inlined media: every shape that clients write, and what is no inlined medium at all."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import Audio, Document, Image, Part
from server.dialects.media import AUDIO_FORMATS, read_media
from server.errors import RequestInvalid

PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,aGk="
IMAGE, DOCUMENT = Image("image/png", "aGk="), Document("application/pdf", "aGk=")
SOURCE = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}


def refuse_part(part: dict[str, Any]) -> str:
    with pytest.raises(RequestInvalid) as caught:
        read_media(part, "here")
    message = str(caught.value)
    assert message.startswith("here")
    assert len(message) < 300
    return message


def build_image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def build_audio(data: object, format_: object) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": format_}}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": PNG}}, IMAGE),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}, Image("image/png", "aGk=", "low")),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": None}}, IMAGE),
        ({"type": "image_url", "image_url": PNG}, IMAGE),
        ({"type": "input_image", "image_url": PNG, "detail": "high"}, Image("image/png", "aGk=", "high")),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}, IMAGE),
        ({"type": "image", "source": {"type": "url", "url": PNG}}, IMAGE),
        ({"type": "document", "source": SOURCE}, DOCUMENT),
        (
            {"type": "document", "source": {**SOURCE, "file_name": "a.pdf"}},
            Document("application/pdf", "aGk=", "a.pdf"),
        ),
        ({"type": "document", "source": {"type": "url", "url": PDF}}, DOCUMENT),
        (
            {"type": "file", "file": {"filename": "b.pdf", "file_data": PDF}},
            Document("application/pdf", "aGk=", "b.pdf"),
        ),
        ({"type": "input_file", "file_data": PDF, "filename": ""}, DOCUMENT),
    ],
    ids=str,
)
def test_a_medium_that_clients_send_is_understood(part: dict[str, Any], expected: Part) -> None:
    assert read_media(part, "here") == expected


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"type": "text", "text": "x"},
        {"type": "image_url"},
        {"type": "image_url", "image_url": {"url": None}},
        {"type": "document"},
        {"type": "document", "source": "x"},
        {"type": "file", "file": {}},
        build_audio(None, "wav"),
        build_audio("aGk=", 1),
        {"type": "input_audio", "input_audio": {"data": "aGk="}},
    ],
    ids=str,
)
def test_another_part_is_none_of_them(part: dict[str, Any]) -> None:
    assert read_media(part, "here") is None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "source": {}},
        {"type": "image", "source": {"type": "base64", "data": "aGk="}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "document", "source": {"type": "content", "content": []}},
    ],
    ids=str,
)
def test_a_source_that_is_not_inlined_is_refused(part: dict[str, Any]) -> None:
    assert "inline" in refuse_part(part)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "file_id": "f"},
        {"type": "input_file", "file_id": "f"},
        {"type": "file", "file": {"file_id": "f"}},
    ],
    ids=str,
)
def test_files_by_id_are_not_kept_here(part: dict[str, Any]) -> None:
    assert "files by id" in refuse_part(part)


# Documents


def test_a_document_has_a_title_and_may_be_cited() -> None:
    part = {"type": "document", "source": SOURCE, "title": "Rules", "citations": {"enabled": True}}
    assert read_media(part, "here") == Document("application/pdf", "aGk=", "Rules", citations=True)


@pytest.mark.parametrize(("wanted", "expected"), [(None, None), ({"enabled": False}, False), ({"enabled": None}, None)])
def test_citations_are_asked_for_or_not(wanted: object, expected: bool | None) -> None:
    found = read_media({"type": "document", "source": SOURCE, "citations": wanted}, "here")
    assert isinstance(found, Document)
    assert found.citations is expected


@pytest.mark.parametrize("wanted", [True, {}, {"enabled": 1}, {"enabled": "yes"}])
def test_citations_in_another_shape_are_refused(wanted: object) -> None:
    assert ".citations" in refuse_part({"type": "document", "source": SOURCE, "citations": wanted})


def test_a_plain_text_is_a_document() -> None:
    text = b64encode("Grüße".encode()).decode()
    source = {"type": "text", "media_type": "text/plain", "data": "Grüße"}
    expected = Document("text/plain", text, "document.txt")
    assert read_media({"type": "document", "source": source}, "here") == expected
    url = f"data:text/plain;charset=utf-8;base64,{text}"
    assert read_media({"type": "input_file", "file_data": url}, "here") == expected


def test_what_has_no_place_in_a_document_is_named() -> None:
    assert ".context" in refuse_part({"type": "document", "source": SOURCE, "context": "From 1990"})
    assert read_media({"type": "document", "source": SOURCE, "context": None}, "here") == DOCUMENT
    assert "name" in refuse_part({"type": "document", "source": SOURCE, "title": "n" * 201})


# Sound


@pytest.mark.parametrize("format_", sorted(AUDIO_FORMATS))
def test_sound_is_read_in_every_format_that_has_a_name(format_: str) -> None:
    assert read_media(build_audio(" aG\nk=", format_.upper()), "here") == Audio(format_, "aGk=")


@pytest.mark.parametrize(
    ("data", "format_", "phrase"),
    [
        ("aGk=", "midi", ".format"),
        ("aGk=", "", ".format"),
        ("", "wav", ".data"),
        ("a*b", "wav", "no base64"),
        (PNG, "wav", "no base64"),
    ],
)
def test_what_is_no_sound_is_refused(data: str, format_: str, phrase: str) -> None:
    assert phrase in refuse_part(build_audio(data, format_))


# Base64


@pytest.mark.parametrize("data", ["é", "a-b_", "a=Gk", "aG=k", "aa===", "aGk=?", "aGk=\x00", "a\u2003b", "=a"])
def test_what_no_decoder_would_read_is_refused(data: str) -> None:
    assert "no base64" in refuse_part(build_image(f"data:image/png;base64,{data}"))
    assert "no base64" in refuse_part(build_audio(data, "wav"))


@given(st.binary(), st.booleans())
def test_base64_of_anything_is_kept(data: bytes, broken_into_lines: bool) -> None:
    text = b64encode(data).decode()
    written = "\n".join(text[start : start + 7] for start in range(0, len(text), 7)) if broken_into_lines else text
    assert read_media(build_image(f"data:image/png;base64,{written}"), "here") == Image("image/png", text)


# Data URLs


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "heic", "heif"])
def test_every_kind_of_image_on_the_list_is_taken(kind: str) -> None:
    assert read_media(build_image(f"data:image/{kind};base64,aGk="), "here") == Image(f"image/{kind}", "aGk=")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:image/jpg;base64,aGk=", Image("image/jpeg", "aGk=")),
        ("data:IMAGE/PNG;base64,aGk=", IMAGE),
        ("data: image/png ;base64,aGk=", IMAGE),
        ("data:image/png;base64, aG\r\n\tk = ", IMAGE),
        ("data:image/png;base64,", Image("image/png", "")),
    ],
)
def test_a_data_url_is_put_in_order(url: str, expected: Image) -> None:
    assert read_media(build_image(url), "here") == expected


@pytest.mark.parametrize("url", ["http://x/a.png", "https://x/a,b.png", "HTTPS://x/a.png", "file:///etc/passwd", "//x"])
def test_remote_addresses_are_not_fetched(url: str) -> None:
    source = {"type": "url", "url": url}
    parts = [build_image(url), {"type": "image", "source": source}, {"type": "document", "source": source}]
    for part in [*parts, {"type": "input_file", "file_data": url}]:
        assert "remote addresses are not fetched" in refuse_part(part)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "aGk=",
        "data:",
        "data:image/png",
        "data:image/png,aGk=",
        "data:image/png;base64",
        "data:image/png;base32,aGk=",
        "data:text/html;base64,aGk=",
        "data:image/svg+xml;base64,aGk=",
        "data:application/pdf;base64,aGk=",
        "data:;base64,aGk=",
        "data:image/png;base64,é",
        "xdata:image/png;base64,aGk=",
    ],
)
def test_what_is_no_inlined_image_is_refused(url: str) -> None:
    refuse_part(build_image(url))


def test_an_image_is_no_document_and_a_document_no_image() -> None:
    assert "application/pdf" in refuse_part({"type": "document", "source": {"type": "url", "url": PNG}})
    assert "image/png" in refuse_part(build_image(PDF))


@given(st.text())
def test_any_address_is_an_image_or_refused(url: str) -> None:
    try:
        part = read_media(build_image(url), "here")
    except RequestInvalid:
        return
    assert isinstance(part, Image)


