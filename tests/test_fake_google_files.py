"""The stand-in for Google's Files API refuses what the API refuses."""

import json
from collections.abc import AsyncIterator

import pytest

from proxy.dialects.gemini.files import build_remote_files
from proxy.provider import RemoteFiles, Target, UpstreamRequest
from proxy.transport import NetworkTransport, open_transport
from tests.fake_google_files import KEYS, FakeGoogleFiles, open_google_files
from tests.proxy.file_calls import make_file
from tests.proxy.upstreams import PATIENT


@pytest.fixture
async def google() -> AsyncIterator[FakeGoogleFiles]:
    async with open_google_files() as google:
        yield google


@pytest.fixture
async def transport() -> AsyncIterator[NetworkTransport]:
    async with open_transport(PATIENT) as transport:
        yield transport


async def ask(transport: NetworkTransport, request: UpstreamRequest) -> int:
    async with transport.open_exchange(request) as exchange:
        await exchange.receive_all(100_000)
        return exchange.status


def files_of(google: FakeGoogleFiles, key: str = KEYS[0]) -> RemoteFiles:
    return build_remote_files(Target(google.base_url, key, ""))


def asking_about(google: FakeGoogleFiles, name: str, key: str = KEYS[0]) -> UpstreamRequest:
    part = {"fileData": {"mimeType": "video/mp4", "fileUri": f"{google.base_url}/{name}"}}
    body = json.dumps({"contents": [{"role": "user", "parts": [part]}]}).encode()
    url = f"{google.base_url}/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    return UpstreamRequest(url, (("x-goog-api-key", key),), body)


async def begin(google: FakeGoogleFiles, transport: NetworkTransport, size_bytes: int) -> str:
    async with transport.open_exchange(files_of(google).build_start("files/a", "video/mp4", size_bytes)) as exchange:
        address = files_of(google).read_address(exchange.headers)
    assert address is not None
    return address


async def test_it_knows_its_keys(google: FakeGoogleFiles, transport: NetworkTransport) -> None:
    assert await ask(transport, files_of(google, "AIza-other").build_start("files/a", "video/mp4", 5)) == 400
    assert google.sessions == {}


@pytest.mark.parametrize(("size_bytes", "offset"), [(5, 1), (4, 0), (6, 0)])
async def test_an_upload_has_to_be_what_is_missing(
    google: FakeGoogleFiles, transport: NetworkTransport, size_bytes: int, offset: int
) -> None:
    address = await begin(google, transport, 5)
    assert await ask(transport, files_of(google).build_upload(address, make_file(size_bytes), offset)) == 400
    assert google.files == {}


async def test_a_file_is_its_keys_and_can_be_asked_about_when_it_is_ready(
    google: FakeGoogleFiles, transport: NetworkTransport
) -> None:
    files, others = files_of(google), files_of(google, KEYS[1])
    address = await begin(google, transport, 5)
    assert await ask(transport, files.build_upload(address, make_file(5), 0)) == 200
    assert await ask(transport, asking_about(google, "files/a")) == 400
    assert await ask(transport, others.build_lookup("files/a")) == 403
    assert await ask(transport, others.build_delete("files/a")) == 403
    assert await ask(transport, files.build_lookup("files/a")) == 200
    assert await ask(transport, asking_about(google, "files/a", KEYS[1])) == 403
    assert await ask(transport, asking_about(google, "files/a")) == 200
    assert await ask(transport, files.build_start("files/a", "video/mp4", 5)) == 400
    assert await ask(transport, files.build_delete("files/a")) == 200
    assert await ask(transport, files.build_delete("files/a")) == 403


async def test_an_upload_that_was_cancelled_takes_no_more(google: FakeGoogleFiles, transport: NetworkTransport) -> None:
    address = await begin(google, transport, 5)
    assert await ask(transport, files_of(google).build_cancel(address)) == 200
    assert google.open_sessions == []
    assert await ask(transport, files_of(google).build_upload(address, make_file(5), 0)) == 400
