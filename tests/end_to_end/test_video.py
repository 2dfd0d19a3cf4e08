"""Videos that clients upload, through the server to Google's stand-in: what arrives, what is left, the bill."""

import hashlib
import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.uploading import Upload, Uploader, open_uploader
from tests.fake_google_files import KEYS, FakeGoogleFiles, Ways, open_google_files
from tests.media_files import make_video

PATH = "/api/llm/video/analyze"
MODEL = "google/gemini-2.5-pro"
MEBIBYTE = 1024 * 1024
LARGE_BYTES = 300 * MEBIBYTE
MOST_GROWTH_BYTES = 16 * MEBIBYTE
ASKED = {"prompt": "What is to be seen?", "durationMs": "2000", "model": MODEL, "framerate": "5", "requestId": "job_1"}
COST_USD = Decimal("0.000585")
"""Of the stand-in's usage: 420 tokens of input at 1.25 and 6 of output at 10 dollars a million."""


@pytest.fixture
def upload_folder(tmp_path: Path) -> Path:
    """Where the server puts uploads; its journal is elsewhere."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@asynccontextmanager
async def open_house(
    stores: Stores, upload_folder: Path, ways: Ways | None = None, **settings: str
) -> AsyncIterator[tuple[FakeGoogleFiles, Cloche]]:
    async with open_google_files(ways) as google:
        named = {
            "GOOGLE_BASE_URL": google.base_url,
            "GOOGLE_API_KEY": KEYS[0],
            "UPLOAD_DIR": str(upload_folder),
            "MAX_VIDEO_BYTES": str(400 * MEBIBYTE),
        }
        async with open_cloche(stores, settings={**named, **settings}) as cloche:
            yield google, cloche


def build_upload(size_bytes: int = 0, fields: Mapping[str, str] = ASKED) -> Upload:
    """A film of two seconds, and if it is to be larger a box of zeros after it, which players pass over."""
    film = make_video("mp4", 2.0)
    size_bytes = size_bytes or len(film)
    padding = size_bytes - len(film)
    head = film + (struct.pack(">I4s", padding, b"free") if padding else b"")
    return Upload(PATH, "video", head, size_bytes, fields)


async def post(cloche: Cloche, customer: Customer, fields: Mapping[str, str] = ASKED) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=30) as client:
        film = {"video": ("clip.mkv", make_video("mp4", 2.0), "video/x-matroska")}
        return await client.post(PATH, data=dict(fields), files=film)


def find_open_files(cloche: Cloche, folder: Path) -> list[str]:
    """Of the server, in that folder: those without a name too."""
    names: list[str] = []
    for entry in Path(f"/proc/{cloche.process.pid}/fd").iterdir():
        try:
            names.append(str(entry.readlink()))
        except FileNotFoundError:  # closed while we looked
            continue
    return [name for name in names if name.startswith(f"{folder}/")]


async def wait_no_files(cloche: Cloche, folder: Path) -> None:
    with trio.fail_after(5):
        while find_open_files(cloche, folder):
            await trio.sleep(0.01)
    assert is_empty(folder)


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def read_memory(cloche: Cloche, name: str) -> int:
    """`VmRSS`, or `VmHWM`, the most that it has been, in bytes."""
    lines = Path(f"/proc/{cloche.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def forget_peak(cloche: Cloche) -> None:
    """https://docs.kernel.org/filesystems/proc.html: of `clear_refs`."""
    Path(f"/proc/{cloche.process.pid}/clear_refs").write_text("5")


@asynccontextmanager
async def open_upload(
    cloche: Cloche, customer: Customer, size_bytes: int = 20 * MEBIBYTE
) -> AsyncIterator[Uploader]:
    """All of it is on its way. Of this size it goes through Google's Files API."""
    async with open_uploader(cloche) as uploader:
        await uploader.upload(build_upload(size_bytes), customer)
        yield uploader


def read_answer(text: bytes) -> Any:
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), text[:2000]
    return json.loads(body)


async def read_whole(caller: Uploader) -> Any:
    await caller.read_until(b"}")
    length = int(caller.text.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    with trio.fail_after(20):
        while len(caller.text.partition(b"\r\n\r\n")[2]) < length:
            caller.text += await caller.stream.receive_some(65536)
    return read_answer(caller.text)


async def test_a_small_film_goes_within_the_request_and_costs_what_google_says(
    stores: Stores, upload_folder: Path
) -> None:
    async with open_house(stores, upload_folder) as (google, cloche):
        customer = await cloche.make_customer()
        answer = await post(cloche, customer)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["analysis"] == "A green field."
        assert told["usage"] == {"promptTokens": 420, "completionTokens": 6, "totalTokens": 426, "cachedTokens": 0}
        assert Decimal(str(told["cost"])) == COST_USD
        assert cloche.balance(customer) == (10 - COST_USD, 0)
        cloche.check_accounts()
        (asked,) = google.generated
        film, text = asked.body["contents"][0]["parts"]
        assert film == {"inlineData": {"mimeType": "video/mp4"}, "videoMetadata": {"fps": 5}}
        assert asked.inline_sha256 == hashlib.sha256(make_video("mp4", 2.0)).hexdigest()
        assert text == {"text": "What is to be seen?"}
        assert asked.model == "gemini-2.5-pro"
        await wait_no_files(cloche, upload_folder)
        assert cloche.find_logged('"level":"ERROR"') == []


async def test_300_mebibytes_pass_through_in_little_memory(stores: Stores, upload_folder: Path) -> None:
    """Uploaded, kept on disk, uploaded to Google, looked at, deleted; and every byte has arrived."""
    async with open_house(stores, upload_folder) as (google, cloche):
        customer = await cloche.make_customer()
        assert (await post(cloche, customer)).status_code == 200  # whatever is loaded at first use is there now
        forget_peak(cloche)
        before = read_memory(cloche, "VmRSS")
        upload = build_upload(LARGE_BYTES)
        async with open_uploader(cloche) as uploader:
            await uploader.upload(upload, customer)
            told = await read_whole(uploader)
        growth = read_memory(cloche, "VmHWM") - before
        print(f"the server grew by {growth / MEBIBYTE:.1f} MiB at most")
        assert growth < MOST_GROWTH_BYTES
        assert told["analysis"] == "A green field."
        (file,) = google.removed.values()
        expected = hashlib.sha256(upload.head)
        expected.update(bytes(LARGE_BYTES - len(upload.head)))
        assert (file.size_bytes, file.sha256, file.media_type) == (LARGE_BYTES, expected.hexdigest(), "video/mp4")
        assert google.files == {}
        await wait_no_files(cloche, upload_folder)
        assert cloche.balance(customer) == (10 - 2 * COST_USD, 0)


@pytest.mark.parametrize("manner", ["leave", "reset"])
async def test_who_leaves_in_mid_upload_leaves_no_file_and_no_hold(
    stores: Stores, upload_folder: Path, manner: str
) -> None:
    async with open_house(stores, upload_folder) as (google, cloche):
        customer = await cloche.make_customer()
        async with open_uploader(cloche) as uploader:
            await uploader.begin(build_upload(LARGE_BYTES), customer)
            await uploader.send_zeros(64 * MEBIBYTE)
            with trio.fail_after(5):
                while not find_open_files(cloche, upload_folder):
                    await trio.sleep(0.01)
            getattr(uploader, manner)()
            await wait_no_files(cloche, upload_folder)
        assert cloche.query("SELECT 1 FROM holds") == []
        assert google.asked == []
        assert cloche.balance(customer) == (10, 0)


async def test_a_film_above_the_limit_is_refused_in_mid_upload(stores: Stores, upload_folder: Path) -> None:
    async with open_house(stores, upload_folder, MAX_VIDEO_BYTES=str(MEBIBYTE)) as (google, cloche):
        customer = await cloche.make_customer()
        async with open_uploader(cloche) as uploader:
            await uploader.begin(build_upload(LARGE_BYTES), customer)
            await uploader.read_until(b"payload_too_large")
            assert uploader.text.startswith(b"HTTP/1.1 413")
        await wait_no_files(cloche, upload_folder)
        assert (google.asked, cloche.query("SELECT 1 FROM holds")) == ([], [])


async def test_who_leaves_while_google_works_on_the_file_pays_nothing_and_leaves_none_there(
    stores: Stores, upload_folder: Path
) -> None:
    async with open_house(stores, upload_folder, Ways(polls_until_ready=None)) as (google, cloche):
        customer = await cloche.make_customer()
        async with open_upload(cloche, customer) as uploader:
            await google.wait_begun("get")
            uploader.leave()
            await cloche.wait_settled()
        with trio.fail_after(5):
            while google.files:
                await trio.sleep(0.01)
        assert cloche.balance(customer) == (10, 0)
        await wait_no_files(cloche, upload_folder)


async def test_a_file_that_never_gets_ready_is_a_timeout_and_costs_nothing(stores: Stores, upload_folder: Path) -> None:
    ways = Ways(polls_until_ready=None)
    async with open_house(stores, upload_folder, ways, PROVIDER_TOTAL_SECONDS="2") as (google, cloche):
        customer = await cloche.make_customer()
        async with open_upload(cloche, customer) as uploader:
            await uploader.read_until(b"timeout_error")
            assert uploader.text.startswith(b"HTTP/1.1 504")
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10, 0)
        with trio.fail_after(5):
            while google.files:
                await trio.sleep(0.01)


async def test_a_file_that_google_does_not_delete_changes_neither_answer_nor_bill(
    stores: Stores, upload_folder: Path
) -> None:
    ways = Ways(refusals={"delete": [500] * 20})
    async with open_house(stores, upload_folder, ways) as (google, cloche):
        customer = await cloche.make_customer()
        async with open_upload(cloche, customer) as uploader:
            assert (await read_whole(uploader))["analysis"] == "A green field."
        assert cloche.balance(customer) == (10 - COST_USD, 0)
        await cloche.wait_logged("could not be", seconds=20)
        assert len(google.files) == 1


async def test_a_film_that_google_cannot_read_is_a_bad_request_and_costs_nothing(
    stores: Stores, upload_folder: Path
) -> None:
    async with open_house(stores, upload_folder, Ways(finds_it_unreadable=True)) as (google, cloche):
        customer = await cloche.make_customer()
        async with open_upload(cloche, customer) as uploader:
            await uploader.read_until(b"error_type")
            assert uploader.text.startswith(b"HTTP/1.1 400")
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10, 0)
        assert google.generated == []


async def test_a_killed_server_leaves_no_file_anywhere(stores: Stores, upload_folder: Path) -> None:
    """Its own are gone with it, and the next server takes away the one at Google's."""
    settings = {"HOLD_LEASE_SECONDS": "2"}
    async with open_house(stores, upload_folder, Ways(polls_until_ready=None), **settings) as (google, cloche):
        customer = await cloche.make_customer()
        async with open_upload(cloche, customer):
            await google.wait_begun("get")
            cloche.kill()
        assert is_empty(upload_folder)
        assert len(google.files) == 1
        named = {"GOOGLE_BASE_URL": google.base_url, "GOOGLE_API_KEY": KEYS[0], **settings}
        async with open_cloche(stores, settings=named) as next_cloche:
            await next_cloche.wait_settled(20)
            with trio.fail_after(20):
                while google.files:
                    await trio.sleep(0.05)
            assert next_cloche.balance(customer) == (10, 0)
            next_cloche.check_accounts()


REFUSED = [
    ({"prompt": " "}, "invalid_argument"),
    ({"durationMs": "0"}, "invalid_argument"),
    ({"model": "openai/gpt-4.1-mini"}, "bad_request"),
    ({"model": "google/none"}, "bad_request"),
    ({"framerate": "many"}, "invalid_argument"),
]


async def test_what_cannot_be_is_refused_before_anything_is_held(stores: Stores, upload_folder: Path) -> None:
    async with open_house(stores, upload_folder) as (google, cloche):
        customer = await cloche.make_customer()
        for changed, error_type in REFUSED:
            answer = await post(cloche, customer, ASKED | changed)
            assert (answer.status_code, answer.json()["error_type"]) == (400, error_type), changed
        assert (google.asked, cloche.query("SELECT 1 FROM holds")) == ([], [])


async def test_what_is_no_film_is_refused_whatever_it_calls_itself(stores: Stores, upload_folder: Path) -> None:
    async with open_house(stores, upload_folder) as (google, cloche):
        customer = await cloche.make_customer()
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers)) as client:
            files = {"video": ("film.mp4", b"#EXTM3U\nfile:///etc/passwd\n" * 200, "video/mp4")}
            answer = await client.post(PATH, data=ASKED, files=files)
        assert answer.status_code == 400
        assert google.asked == []
