"""Google's Files API: what it is asked, and what its answers mean."""

import json
import re

import pytest

from proxy.chat import Attached, ChatRequest, Message, Text
from proxy.dialects.gemini.attached import INLINE_BYTES
from proxy.dialects.gemini.files import build_remote_files, build_upload
from proxy.provider import RemoteFile, Target
from tests.proxy.file_calls import make_file

TARGET = Target("https://google.test/v1beta/", "AIza-key", "gemini-2.5-flash", {"video": True})
FILES = build_remote_files(TARGET)
ADDRESS = "https://google.test/upload/v1beta/files?upload_id=7"


def test_files_have_names_of_ours_that_google_takes() -> None:
    """https://ai.google.dev/api/files#File: at most 40 characters behind the slash."""
    names = {FILES.make_name() for _ in range(9)}
    assert len(names) == 9
    assert all(re.fullmatch(r"files/[a-z0-9][a-z0-9-]{0,38}[a-z0-9]", name) for name in names)


def test_an_upload_is_begun_with_its_name_type_and_size() -> None:
    built = FILES.build_start("files/a-1", "video/mp4", 12)
    assert (built.method, built.url) == ("POST", "https://google.test/upload/v1beta/files")
    headers = dict(built.headers)
    assert headers["x-goog-api-key"] == "AIza-key"
    assert headers["X-Goog-Upload-Protocol"] == "resumable"
    assert headers["X-Goog-Upload-Command"] == "start"
    assert headers["X-Goog-Upload-Header-Content-Length"] == "12"
    assert headers["X-Goog-Upload-Header-Content-Type"] == "video/mp4"
    assert json.loads(built.body) == {"file": {"name": "files/a-1", "display_name": "a-1"}}


def test_uploads_stand_before_the_version_wherever_the_service_is() -> None:
    files = build_remote_files(Target("https://proxy.test/google/v1beta", "k", ""))
    assert files.build_start("files/a", "video/mp4", 1).url == "https://proxy.test/google/upload/v1beta/files"
    assert files.build_delete("files/a").url == "https://proxy.test/google/v1beta/files/a"


@pytest.mark.parametrize("address", [ADDRESS, "https://google.test:443/upload?upload_id=7"])
def test_an_address_at_the_same_host_is_taken(address: str) -> None:
    assert FILES.read_address({"x-goog-upload-url": address}) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://google.test/upload",
        "https://google.test:8443/upload",
        "https://other.test/upload",
        "https://google.test.other.test/upload",
        "https://other.test@google.test/upload",
        "https://google.test:port/upload",
        "//google.test/upload",
        "/upload",
    ],
)
def test_an_address_elsewhere_is_none(address: str) -> None:
    assert FILES.read_address({"x-goog-upload-url": address} if address else {}) is None


def test_what_is_left_goes_up_at_its_place_and_never_twice() -> None:
    rest = make_file(5)
    built = FILES.build_upload(ADDRESS, rest, 7)
    headers = dict(built.headers)
    assert (headers["X-Goog-Upload-Command"], headers["X-Goog-Upload-Offset"]) == ("upload, finalize", "7")
    assert built.tail is not None
    assert (built.tail.file, built.tail.is_base64, built.body_bytes) == (rest, False, 5)
    assert not built.is_repeatable


@pytest.mark.parametrize(
    ("headers", "received"),
    [
        ({"x-goog-upload-status": "active", "x-goog-upload-size-received": "512"}, 512),
        ({"x-goog-upload-status": "final", "x-goog-upload-size-received": "512"}, None),
        ({"x-goog-upload-status": "active", "x-goog-upload-size-received": "-5"}, 0),
        ({"x-goog-upload-status": "active", "x-goog-upload-size-received": "9" * 99}, 0),
        ({"x-goog-upload-status": "active"}, 0),
        ({}, 0),
    ],
)
def test_how_far_an_upload_came(headers: dict[str, str], received: int | None) -> None:
    assert FILES.read_received(headers) == received


@pytest.mark.parametrize(("build", "command"), [(FILES.build_query, "query"), (FILES.build_cancel, "cancel")])
def test_an_upload_is_asked_about_and_called_off_at_its_address(build: object, command: str) -> None:
    built = build(ADDRESS)  # type: ignore[operator] # one of two functions of FILES
    assert (built.method, built.url, built.body) == ("POST", ADDRESS, b"")
    assert dict(built.headers)["X-Goog-Upload-Command"] == command


def test_a_file_is_looked_up_and_deleted_by_its_name() -> None:
    for built, method in ((FILES.build_lookup("files/a"), "GET"), (FILES.build_delete("files/a"), "DELETE")):
        assert (built.method, built.url) == (method, "https://google.test/v1beta/files/a")
        assert built.headers == (("x-goog-api-key", "AIza-key"),)


def told(**members: object) -> bytes:
    return json.dumps({"name": "files/a", "uri": "https://u", **members}).encode()


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (told(state="ACTIVE"), "ready"),
        (told(state="PROCESSING"), "processing"),
        (told(state="STATE_UNSPECIFIED"), "processing"),
        (told(), "processing"),
        (told(state="FAILED", error={"code": 3}), "failed"),
        (b'{"file": %s}' % told(state="ACTIVE"), "ready"),
    ],
)
def test_a_file_says_how_far_it_is(body: bytes, state: str) -> None:
    assert FILES.read_file(body) == RemoteFile("files/a", "https://u", state)  # type: ignore[arg-type] # one of three


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b"[]", b"<html>", b'{"file": null}', b'{"name": 1, "uri": ""}', told(name="files/../x")],
)
def test_what_is_no_file_is_none(body: bytes) -> None:
    assert FILES.read_file(body) is None


def test_only_large_files_are_uploaded() -> None:
    def asking(size_bytes: int) -> ChatRequest:
        part = Attached("video/quicktime", make_file(size_bytes), 4)
        return ChatRequest("google/x", (Message("user", (part, Text("Look"))),))

    assert build_upload(ChatRequest("google/x", (Message("user", (Text("Hi"),)),)), TARGET) is None
    assert build_upload(asking(5), TARGET) is None
    upload = build_upload(asking(INLINE_BYTES), TARGET)
    assert upload is not None
    assert (upload.media_type, upload.file.size_bytes) == ("video/mov", INLINE_BYTES)
