"""Messages and their parts: each shape that clients send, and the place named where one is wrong."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat import Document, Image, Message, Part, Refusal, Text, ToolCall
from server.dialects.messages import MAX_PIECES, WireMessage, read_messages
from server.errors import RequestInvalid

PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,aGk="
IMAGE, DOCUMENT = Image("image/png", "aGk="), Document("application/pdf", "aGk=")


def read(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return read_messages(msgspec.convert(list(messages), list[WireMessage]))


def read_part(part: dict[str, Any]) -> Part:
    (message,) = read({"role": "user", "content": [part]})
    (found,) = message.parts
    return found


def refuse(*messages: dict[str, Any]) -> str:
    with pytest.raises(RequestInvalid) as caught:
        read(*messages)
    return str(caught.value)


def refuse_part(part: dict[str, Any]) -> str:
    """The second part of the second message, to be named."""
    text = {"type": "text", "text": "x"}
    message = refuse({"role": "user"}, {"role": "user", "content": [text, part]})
    assert message.startswith("messages[1].content[1]")
    return message


# Messages


def test_content_may_be_a_string_or_parts_or_nothing() -> None:
    expected = Message("user", (Text("Hello"),))
    assert read({"role": "user", "content": "Hello"}) == (expected,)
    assert read({"role": "user", "content": [{"type": "text", "text": "Hello"}]}) == (expected,)
    assert read({"role": "user"}, {"role": "user", "content": None}, {"role": "user", "content": []}) == (
        Message("user"),
        Message("user"),
        Message("user"),
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [("system", "system"), ("developer", "system"), ("user", "user"), ("assistant", "assistant")],
)
def test_roles_are_those_of_the_field(name: str, role: str) -> None:
    assert read({"role": name, "content": "x"})[0].role == role


@pytest.mark.parametrize("role", ["", "User", "function", "x" * 1000])
def test_another_role_is_refused(role: str) -> None:
    message = refuse({"role": "user", "content": "x"}, {"role": role, "content": "x"})
    assert message.startswith("messages[1].role")
    assert len(message) < 200


def test_without_a_message_there_is_nothing_to_answer() -> None:
    assert "at least one message" in refuse()


def test_no_request_has_more_pieces_than_can_be_read_in_a_moment() -> None:
    part, call = {"type": "text", "text": "x"}, {"id": "c", "function": {"name": "f"}}
    message = {"role": "assistant", "content": [part], "tool_calls": [call, call]}
    assert len(read(*[message] * (MAX_PIECES // 4))) == MAX_PIECES // 4
    assert "messages and parts" in refuse(*[message] * (MAX_PIECES // 4), {"role": "user"})


def test_a_turn_with_tools_is_kept_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{not json"}}
    assistant, tool = read(
        {"role": "assistant", "content": None, "tool_calls": [call, {"id": "c2", "function": {"name": "f"}}]},
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
    )
    assert assistant.tool_calls == (ToolCall("c1", "look", "{not json"), ToolCall("c2", "f", ""))
    assert (tool.role, tool.tool_call_id, tool.parts) == ("tool", "c1", (Text("seen"),))


@pytest.mark.parametrize("id_", [None, ""])
def test_a_tools_message_names_its_call(id_: str | None) -> None:
    assert refuse({"role": "tool", "content": "x", "tool_call_id": id_}).startswith("messages[0].tool_call_id")


def test_a_name_and_a_refusal_are_kept() -> None:
    (message,) = read({"role": "assistant", "content": "Well", "name": "Bo", "refusal": "No"})
    assert (message.name, message.parts) == ("Bo", (Text("Well"), Refusal("No")))


# Parts


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": "x", "cache_control": {}}, Text("x")),
        ({"type": "input_text", "text": "x"}, Text("x")),
        ({"type": "output_text", "text": "x", "annotations": []}, Text("x")),
        ({"type": "refusal", "refusal": "no"}, Refusal("no")),
        ({"type": "image_url", "image_url": {"url": PNG}}, IMAGE),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}, Image("image/png", "aGk=", "low")),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": None}}, IMAGE),
        ({"type": "image_url", "image_url": PNG}, IMAGE),
        ({"type": "input_image", "image_url": PNG, "detail": "high"}, Image("image/png", "aGk=", "high")),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}, IMAGE),
        ({"type": "image", "source": {"type": "url", "url": PNG}}, IMAGE),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}, DOCUMENT),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk=", "file_name": "a.pdf"},
            },
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
def test_a_part_that_clients_send_is_understood(part: dict[str, Any], expected: Part) -> None:
    assert read_part(part) == expected


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"text": "x"},
        {"type": "text"},
        {"type": "text", "text": None},
        {"type": "text", "text": ["x"]},
        {"type": "video", "video": PNG},
        {"type": "image_url"},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url", "image_url": {"url": None}},
        {"type": "image", "source": {}},
        {"type": "image", "source": {"type": "base64", "data": "aGk="}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "document", "source": "x"},
        {"type": "file", "file": {}},
        {"type": None},
        {"type": {"type": "text"}},
    ],
    ids=str,
)
def test_a_part_that_is_not_understood_is_refused_by_its_place(part: dict[str, Any]) -> None:
    assert len(refuse_part(part)) < 300


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


# Data URLs


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "heic", "heif"])
def test_every_kind_of_image_on_the_list_is_taken(kind: str) -> None:
    assert read_part(build_image(f"data:image/{kind};base64,aGk=")) == Image(f"image/{kind}", "aGk=")


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
    assert read_part(build_image(url)) == expected


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
        part = read_part(build_image(url))
    except RequestInvalid:
        return
    assert isinstance(part, Image)


def build_image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}
