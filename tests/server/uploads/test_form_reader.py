"""multipart/form-data at every split of the bytes, and what is too much, broken, or in the wrong place."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BodyTooLarge, RequestInvalid
from server.uploads.form_reader import (
    MAX_BESIDE_FILE_BYTES,
    MAX_FIELD_BYTES,
    MAX_PARTS,
    FormReader,
    find_boundary,
)

BOUNDARY = "----bound"
END = b"------bound--\r\n"
HEAD = b'Content-Disposition: form-data; name="file"; filename="a.webm"\r\nContent-Type: Audio/WebM;codecs=opus\r\n'
WORST = {
    "fragments of the boundary": b"\r\n--BOUNDARY",
    "line feeds": b"\n",
    "carriage returns": b"\r",
    "dashes": b"-",
    "ends of lines": b"\r\n--",
}


def part(content: bytes, head: bytes = HEAD) -> bytes:
    return b"------bound\r\n" + head + b"\r\n" + content + b"\r\n"


def text_part(name: str, content: bytes) -> bytes:
    return part(content, f'Content-Disposition: form-data; name="{name}"\r\n'.encode())


def build_reader(most_bytes: int = 1_000_000) -> FormReader:
    return FormReader(BOUNDARY, "file", most_bytes)


def read(pieces: Iterable[bytes]) -> tuple[bytes, FormReader]:
    reader = build_reader()
    content = b"".join([piece for data in pieces for piece in reader.read(data)])
    reader.close()
    return content, reader


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise(sorted({0, *places, len(data)}))]


@pytest.mark.parametrize("content", [b"sound", b"", b"\r", b"\r\n", b"\r\n------boun", b"--bound\r\n\r\n------boun\r"])
def test_a_form_is_the_same_at_every_split(content: bytes) -> None:
    data = text_part("model", b"whisper") + part(content) + text_part("include[]", b"a") + END
    for place in range(1, len(data)):
        got, reader = read(cut(data, [place]))
        assert (got, reader.fields) == (content, {"model": ["whisper"], "include[]": ["a"]}), place
    assert read([bytes([byte]) for byte in data])[0] == content


@given(content=st.binary(max_size=200), places=st.lists(st.integers(0, 500), max_size=8))
def test_whatever_is_in_a_file_comes_out_again(content: bytes, places: list[int]) -> None:
    data = part(content) + END
    got, _ = read(cut(data, [min(place, len(data)) for place in places]))
    assert got == content


def test_what_the_client_says_of_its_file_is_kept() -> None:
    _, reader = read([part(b"x") + END])
    assert (reader.has_file, reader.file_name, reader.file_type) == (True, "a.webm", "audio/webm")


def test_values_of_one_name_stay_in_order_and_words_of_every_language_stay_what_they_are() -> None:
    values = ["ä", "日本", ""]
    _, reader = read([b"".join(text_part("known[]", value.encode()) for value in values) + END])
    assert (reader.fields, reader.has_file) == ({"known[]": values}, False)


def test_a_file_without_a_name_of_its_own_is_one_all_the_same() -> None:
    content, reader = read([text_part("file", b"sound") + END])
    assert (content, reader.has_file, reader.file_name, reader.file_type) == (b"sound", True, "", "")


@pytest.mark.parametrize("name", ["text/plain", "", "multipart/mixed; boundary=x", "application/json"])
def test_what_is_no_form_is_told_to_send_one(name: str) -> None:
    with pytest.raises(RequestInvalid, match="as multipart/form-data"):
        find_boundary(name)


@pytest.mark.parametrize("options", ["", "; boundary=", f"; boundary={'x' * 71}", '; boundary="é"'])
def test_a_form_needs_a_boundary(options: str) -> None:
    with pytest.raises(RequestInvalid, match="boundary"):
        find_boundary("multipart/form-data" + options)


def test_the_boundary_may_be_quoted() -> None:
    assert find_boundary('Multipart/Form-Data; charset=utf-8; boundary="a b"') == "a b"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing",
        END[:-4],
        part(b"x"),
        part(b"x")[:-10],
        b"------bound\r\n\r\n\r\n" + END,
        b"------bound\r\nContent-Disposition: form-data\r\n\r\nx",
        b"------bound\r\nnonsense\r\n\r\n" + END,
        b"------bound\nContent-Disposition: form-data\n\n" + END,
        part(b"x", b'Content-Disposition: form-data; name="\xff"\r\n') + END,
        part(b"x", b"Content-Disposition: form-data; name=x; " + b"y" * 5000) + END,
        part(b"x", HEAD + b"X-A: b\r\n" * 10) + END,
        text_part("x", b"") * (MAX_PARTS + 1) + END,
    ],
    ids=range(13),
)
def test_what_is_broken_or_incomplete_is_refused(data: bytes) -> None:
    with pytest.raises(RequestInvalid, match="broken or incomplete"):
        read([data])


def test_text_that_is_not_utf8_is_refused_by_its_name() -> None:
    with pytest.raises(RequestInvalid, match="prompt: send text in UTF-8"):
        read([text_part("prompt", b"\xff") + END])


def test_a_second_file_and_a_file_in_another_field_are_refused_by_name() -> None:
    with pytest.raises(RequestInvalid, match="file: send one file"):
        read([part(b"x") * 2 + END])
    with pytest.raises(RequestInvalid, match="image: the file belongs into the field file"):
        read([part(b"x", b'Content-Disposition: form-data; name="image"; filename="a"\r\n') + END])


def test_a_file_is_refused_with_its_first_byte_too_many() -> None:
    reader = build_reader(most_bytes=10)
    start = b"------bound\r\n" + HEAD + b"\r\n"
    assert list(reader.read(start + b"x" * 10)) == [b"x" * 10]
    with pytest.raises(BodyTooLarge, match="file: the file may have 10 bytes"):
        list(reader.read(b"x"))


def test_fields_are_bounded_each_and_together() -> None:
    text = b"x" * MAX_FIELD_BYTES
    assert len(read([text_part("a", text) * 4 + END])[1].fields["a"]) == 4
    with pytest.raises(BodyTooLarge, match="a: a field may have"):
        read([text_part("a", text + b"x") + END])
    with pytest.raises(BodyTooLarge, match="b: a field may have"):
        read([text_part("a", text) * 4 + text_part("b", b"x") + END])


@pytest.mark.parametrize("data", [b"x" * 65536, b"\r\n" * 32768], ids=["preamble", "lines"])
def test_what_stands_before_the_first_part_is_bounded(data: bytes) -> None:
    with pytest.raises(BodyTooLarge, match="beside its file"):
        read([data] * (MAX_BESIDE_FILE_BYTES // len(data) + 1))


def test_what_stands_behind_the_last_part_is_bounded() -> None:
    with pytest.raises(BodyTooLarge, match="beside its file"):
        read([part(b"x") + END, *[b"x" * 65536] * (MAX_BESIDE_FILE_BYTES // 65536 + 1)])


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("boundary", [BOUNDARY, "-" * 70])
def test_no_bytes_are_much_slower_than_others(name: str, boundary: str) -> None:
    """Sixteen mebibytes in pieces as a socket gives them."""
    reader = FormReader(boundary, "file", 1 << 30)
    list(reader.read(f"--{boundary}\r\n".encode() + HEAD + b"\r\n"))
    piece = (WORST[name].replace(b"BOUNDARY", boundary[:-1].encode()) * 65536)[:65536]
    began = time.process_time()
    for _ in range(256):
        assert b"".join(reader.read(piece)) != b""
    seconds = time.process_time() - began
    print(f"{name}, boundary of {len(boundary)}: {seconds * 6.25:.2f} s for 100 MiB")
    assert seconds < 2


def test_fields_of_a_form_show_in_no_message() -> None:
    messages: Mapping[str, bytes] = {"header": part(b"", b"\xffhunter2: x\r\n"), "end": text_part("a", b"hunter2")}
    for data in messages.values():
        with pytest.raises(RequestInvalid) as refused:
            read([data])
        assert "hunter2" not in str(refused.value)
