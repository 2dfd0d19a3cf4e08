"""Files that come over a real socket: what arrives, and what is refused and when."""

import json
from collections.abc import Mapping
from pathlib import Path

import h2.errors
import pytest
import trio

from server.uploads.form_reader import MAX_BESIDE_FILE_BYTES
from tests.server.fixes_client import Http2Client
from tests.server.served import Served
from tests.server.uploads.uploading import (
    END,
    FORM,
    MEBIBYTE,
    MOST_BYTES,
    PIECE,
    START,
    chunk,
    connect,
    digest_of,
    head_of,
    length_of,
    read_rest,
    resident_bytes,
    send_all_http2,
    send_file,
    send_until_reset,
    start_http2,
    wait_clean,
)

# What arrives


async def test_a_file_arrives_as_it_was_sent_and_is_gone_when_it_is_answered(served: Served, folder: Path) -> None:
    async with await connect(served) as stream:
        await stream.send_all(head_of(length_of(MOST_BYTES)) + START)
        await send_file(stream, MOST_BYTES)
        await stream.send_all(END)
        answer = await read_rest(stream)
    assert answer.status == 200
    fields = {"fields": {"model": ["whisper"]}, "name": "a.mp3", "type": "audio/mpeg"}
    assert answer.json == {**fields, "sha256": digest_of(MOST_BYTES)}
    await wait_clean(served, folder)


async def test_a_file_may_come_in_chunks(served: Served, folder: Path) -> None:
    body = b"".join(chunk(piece) for piece in [START, *[PIECE] * 8, END])
    answer = await served.send(head_of({"Transfer-Encoding": "chunked"}) + body + b"0\r\n\r\n")
    assert (answer.status, answer.json["sha256"]) == (200, digest_of(8 * len(PIECE)))
    await wait_clean(served, folder)


async def test_a_client_that_waits_for_a_word_gets_it(served: Served) -> None:
    """curl does with large files: https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1"""
    async with await connect(served) as stream:
        await stream.send_all(head_of({**length_of(len(PIECE)), "Expect": "100-continue"}))
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(START + PIECE + END)
        answer = await read_rest(stream)
    assert (answer.status, answer.json["sha256"]) == (200, digest_of(len(PIECE)))


async def test_three_hundred_mebibytes_are_not_in_memory(served: Served, folder: Path) -> None:
    size_bytes = 300 * MEBIBYTE
    most_resident = before = resident_bytes()
    async with await connect(served) as stream:
        await stream.send_all(head_of(length_of(size_bytes), size_bytes) + START)
        for _ in range(300):
            await send_file(stream, MEBIBYTE)
            most_resident = max(most_resident, resident_bytes())
        await stream.send_all(END)
        answer = await read_rest(stream)
    print(f"grew by {(most_resident - before) / MEBIBYTE:.1f} MiB")
    assert (answer.status, answer.json["sha256"]) == (200, digest_of(size_bytes))
    assert most_resident - before < 16 * MEBIBYTE
    await wait_clean(served, folder)


async def test_http2_brings_files_too(served: Served, folder: Path) -> None:
    async with await connect(served) as stream:
        client = Http2Client(stream)
        stream_id = await start_http2(client)
        await send_all_http2(client, stream_id, START + PIECE * 32 + END)
        status, answer = await client.read_answer(stream_id)
    assert (status, json.loads(answer)["sha256"]) == ("200", digest_of(32 * len(PIECE)))
    await wait_clean(served, folder)


# What is refused


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({"Content-Type": "application/json"}, b"{}", "send the file as multipart/form-data"),
        ({"Content-Type": "multipart/form-data"}, END, "needs a boundary"),
        ({}, b"", "broken or incomplete"),
        ({}, START + PIECE, "broken or incomplete"),
        ({}, START + b"\r\n" + START + END, "send one file"),
    ],
)
async def test_what_is_no_whole_form_is_a_400(
    served: Served, folder: Path, headers: Mapping[str, str], body: bytes, message: str
) -> None:
    answer = await served.ask("POST", f"/upload/{MOST_BYTES}", {**FORM, **headers}, body)
    assert (answer.status, answer.json["error_type"]) == (400, "validation_error")
    assert message in answer.json["message"]
    await wait_clean(served, folder)


async def test_a_length_that_is_too_large_is_refused_before_anything_is_sent(served: Served, folder: Path) -> None:
    headers = {"Content-Length": str(MOST_BYTES + MAX_BESIDE_FILE_BYTES + 1)}
    answer = await served.send(head_of(headers))
    assert (answer.status, answer.json["error_type"]) == (413, "payload_too_large")
    await wait_clean(served, folder)


async def test_a_file_that_grows_too_large_is_refused_while_it_comes(served: Served, folder: Path) -> None:
    """And whoever goes on sending for a while finds the answer, for it is not thrown away by a reset."""
    async with await connect(served) as stream:
        await stream.send_all(head_of({"Transfer-Encoding": "chunked"}) + chunk(START))
        for _ in range(10 * MOST_BYTES // len(PIECE)):
            await stream.send_all(chunk(PIECE))
        answer = await read_rest(stream)
    assert (answer.status, answer.json["error_type"]) == (413, "payload_too_large")
    assert (answer.headers["connection"], "x-request-id" in answer.headers) == ("close", True)
    await wait_clean(served, folder)


async def test_a_client_that_listens_hears_of_it_in_mid_upload(served: Served, folder: Path) -> None:
    sent = 0
    async with await connect(served) as stream, trio.open_nursery() as nursery:

        async def go_on_sending() -> None:
            nonlocal sent
            while True:
                await stream.send_all(chunk(PIECE))
                sent += len(PIECE)
                await trio.lowlevel.checkpoint()

        await stream.send_all(head_of({"Transfer-Encoding": "chunked"}) + chunk(START))
        nursery.start_soon(go_on_sending)
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 413")
        nursery.cancel_scope.cancel()
    print(f"sent {sent / MEBIBYTE:.1f} MiB, of which {MOST_BYTES / MEBIBYTE} were allowed")
    assert sent > MOST_BYTES
    await wait_clean(served, folder)


async def test_http2_is_told_to_stop_in_mid_upload_and_its_connection_goes_on(served: Served, folder: Path) -> None:
    """https://www.rfc-editor.org/rfc/rfc9113#section-8.1-10"""
    body = START + PIECE * (4 * MOST_BYTES // len(PIECE))
    async with await connect(served) as stream:
        client = Http2Client(stream)
        stream_id = await start_http2(client)
        with trio.fail_after(10):
            status, reason, unsent_bytes = await send_until_reset(client, stream_id, body)
        assert (status, reason) == ("413", h2.errors.ErrorCodes.NO_ERROR)
        assert unsent_bytes > MOST_BYTES
        assert (await client.read_answer(await client.start(b"/health")))[0] == "200"
    await wait_clean(served, folder)
