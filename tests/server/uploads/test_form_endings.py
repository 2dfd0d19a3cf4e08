"""Files that do not come to their end: too slow, no room for them, or the client leaves. Nothing is left of them."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from quart import Response

from server.connection import keep_open
from server.guard import access
from server.uploads import stored_file
from server.uploads.form import open_form
from tests.server.served import Served, build_head
from tests.server.uploads.uploading import (
    END,
    FORM,
    MEBIBYTE,
    MOST_BYTES,
    PIECE,
    START,
    Witness,
    chunk,
    connect,
    head_of,
    length_of,
    open_files,
    read_rest,
    reset,
    wait_clean,
)

# What takes too long, or finds no room


async def test_who_falls_silent_is_told_so(served: Served, folder: Path) -> None:
    served.services.uploads.silence_seconds = 0.2
    async with await connect(served) as stream:
        await stream.send_all(head_of(length_of(MOST_BYTES)) + START + PIECE)
        answer = await read_rest(stream)
    assert (answer.status, answer.json["error_type"]) == (408, "timeout_error")
    await wait_clean(served, folder)


async def test_who_drips_is_told_so(served: Served, folder: Path) -> None:
    served.services.uploads.upload_seconds = 0.3
    async with await connect(served) as stream:
        await stream.send_all(head_of(length_of(MOST_BYTES)) + START)
        answer = b""
        with trio.fail_after(5):
            while not answer:
                await stream.send_all(b"x")
                with trio.move_on_after(0.01):
                    answer = bytes(await stream.receive_some())
    assert answer.startswith(b"HTTP/1.1 408")
    await wait_clean(served, folder)


async def test_files_of_all_together_are_bounded(served: Served, folder: Path) -> None:
    served.services.uploads.most_bytes = 2 * MEBIBYTE
    declared = await served.send(head_of(length_of(3 * MEBIBYTE)))
    chunks = b"".join(chunk(piece) for piece in [START, *[PIECE] * 48])
    grown = await served.send(head_of({"Transfer-Encoding": "chunked"}) + chunks)
    for answer in (declared, grown):
        assert (answer.status, answer.headers["retry-after"]) == (503, "30")
        assert "MAX_UPLOADS_BYTES" not in answer.json["message"]
    await wait_clean(served, folder)


async def test_a_disk_that_is_full_is_a_503_and_leaves_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A device of Linux which is always full stands for it: https://man7.org/linux/man-pages/man4/full.4.html"""
    monkeypatch.setattr(stored_file, "_open_nameless", lambda _: os.open("/dev/full", os.O_RDWR))
    answer = await served.ask("POST", f"/upload/{MOST_BYTES}", FORM, START + PIECE + END)
    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    assert "No space left on device" in caplog.text
    assert served.services.uploads.kept_bytes == 0


async def test_a_folder_that_is_gone_is_a_503(served: Served, folder: Path) -> None:
    os.rmdir(folder)  # noqa: PTH106 # ruff takes a Path's own for blocking
    assert (await served.ask("POST", f"/upload/{MOST_BYTES}", FORM, START + PIECE + END)).status == 503


# What is left


@pytest.mark.parametrize("leave", [trio.SocketStream.aclose, reset], ids=["close", "reset"])
async def test_who_leaves_in_mid_upload_leaves_no_file(
    served: Served, folder: Path, witness: Witness, leave: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    async with await connect(served) as stream:
        await stream.send_all(head_of(length_of(MOST_BYTES)) + START + PIECE * 32)
        with trio.fail_after(5):
            while served.services.uploads.kept_bytes == 0:
                await trio.lowlevel.checkpoint()
        assert len(open_files(folder)) == 1
        assert os.listdir(folder) == []  # noqa: PTH208 # as is_clean() does
        await leave(stream)
        with trio.fail_after(5):
            await witness.left.wait()
        await wait_clean(served, folder)
    assert witness.words == ["cancelled"]


async def test_who_leaves_after_its_file_is_there_cancels_the_request_at_once(
    served: Served, folder: Path, witness: Witness
) -> None:
    hold_on(served, witness)
    async with await connect(served) as stream:
        await stream.send_all(build_head("POST", "/hold", {**FORM, **length_of(len(PIECE))}) + START + PIECE + END)
        with trio.fail_after(5):
            await witness.entered.wait()
        assert len(open_files(folder)) == 1
    with trio.fail_after(5):
        await witness.left.wait()
    await wait_clean(served, folder)


def hold_on(served: Served, witness: Witness) -> None:
    @access(is_public=True, takes_upload=True)
    async def hold() -> str:
        await keep_open(open_form("file", MOST_BYTES))
        witness.entered.set()
        try:
            await trio.sleep_forever()
        finally:
            witness.left.set()

    served.app.add_url_rule("/hold", "hold", hold, methods=["POST"])


async def test_who_leaves_an_answer_is_heard_behind_what_nobody_has_read(served: Served, witness: Witness) -> None:
    answer_on(served, witness)
    body = START + PIECE * 64
    with trio.fail_after(5):
        async with await connect(served) as stream, trio.open_nursery() as nursery:
            await stream.send_all(build_head("POST", "/answer", {**FORM, "Content-Length": str(len(body))}))
            nursery.start_soon(stream.send_all, body)
            while not (await stream.receive_some()).endswith(b"begun\r\n"):
                pass
        await witness.left.wait()


def answer_on(served: Served, witness: Witness) -> None:
    async def write() -> AsyncIterator[bytes]:
        try:
            yield b"begun"
            await trio.sleep_forever()
        finally:
            witness.left.set()

    @access(is_public=True, takes_upload=True)
    async def answer() -> Response:
        return Response(write())

    served.app.add_url_rule("/answer", "answer", answer, methods=["POST"])
