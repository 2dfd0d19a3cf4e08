"""The socket of devices as a client in bytes has it, which does everything right, or wrong."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio

from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.raw_websocket import BINARY, PING, PONG, TEXT, RawSocket, build_close, build_frame, open_raw

PATH = "/ws/device-link"
MIB = 1024 * 1024


@asynccontextmanager
async def open_socket(
    cloche: Cloche, customer: Customer, headers: Mapping[str, str] | None = None
) -> AsyncIterator[RawSocket]:
    raw = await open_raw(cloche.port, PATH, {**customer.headers, "X-Client-Type": "desktop", **(headers or {})})
    async with raw.stream:
        assert raw.status == 101
        yield raw


def build_registration(customer: Customer) -> bytes:
    payload = {"deviceId": customer.headers["X-Device-ID"], "deviceName": "Größer"}
    return json.dumps({"type": "register", "payload": payload}, ensure_ascii=False).encode()


async def close_code(cloche: Cloche, customer: Customer, *frames: bytes) -> int | None:
    async with open_socket(cloche, customer) as raw:
        await raw.send(*frames)
        return await raw.read_close()


async def test_a_device_in_pieces_is_answered_as_a_whole_and_without_compression(stores: Stores) -> None:
    asked = {"Sec-WebSocket-Extensions": "permessage-deflate", "X-Request-ID": "mine"}
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer("0")
        async with open_socket(cloche, customer, asked) as raw:
            assert "sec-websocket-extensions" not in raw.headers
            assert raw.headers["x-request-id"] == "mine"
            text = build_registration(customer)
            cut = text.index("ö".encode()) + 1
            await raw.send(build_frame(TEXT, text[:cut], is_final=False), build_frame(PING, b"alive?"))
            assert await raw.read_frame() == (PONG, b"alive?")
            await raw.send(build_frame(0, text[cut:]))
            opcode, answer = await raw.read_frame()
            assert (opcode, json.loads(answer)["type"]) == (TEXT, "registered")
            await raw.send(build_close(1001))
            assert await raw.read_close() == 1001
        cloche.kill()  # it would wait for the device to be back


async def test_a_device_that_does_not_speak_the_protocol_is_told_so_and_its_next_socket_is_served(
    stores: Stores,
) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer("0")
        assert await close_code(cloche, customer, build_frame(TEXT, b"{}", is_masked=False)) == 1002
        assert await close_code(cloche, customer, build_frame(0x40 | TEXT, b"{}")) == 1002
        assert await close_code(cloche, customer, build_frame(TEXT, b'{"type":"\xff"}')) == 1007
        too_large = b"\x82\xff" + (32 * MIB + 1).to_bytes(8, "big")
        assert await close_code(cloche, customer, too_large) == 1009
        async with open_socket(cloche, customer) as raw:
            await raw.send(build_frame(BINARY, bytes(32 * MIB)), build_frame(TEXT, b'{"type":"ping"}'))
            assert await raw.read_frame() == (TEXT, b'{"type":"pong"}')
        assert not cloche.find_logged("Traceback")
        assert not cloche.find_logged('"level":"ERROR"')


async def test_a_device_that_takes_nothing_is_dropped(stores: Stores) -> None:
    async with open_cloche(stores, WRITE_DEADLINE_SECONDS="1") as cloche:
        customer = await cloche.make_customer("0")
        before = cloche.open_sockets()
        async with open_socket(cloche, customer) as raw:
            with trio.fail_after(15), pytest.raises(trio.BrokenResourceError):
                await ask_for_ever(raw)
        await wait_sockets(cloche, before)


async def ask_for_ever(raw: RawSocket) -> None:
    while True:
        await raw.send(build_frame(PING, bytes(125)) * 500)


async def test_handshakes_leave_nothing_behind(stores: Stores) -> None:
    await come_and_go(stores, 100)


@pytest.mark.soak
async def test_a_thousand_handshakes_leave_nothing_behind(stores: Stores) -> None:
    await come_and_go(stores, 1000)


async def come_and_go(stores: Stores, times: int) -> None:
    """Let in, refused, gone at once or after a word, in every manner."""
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer("0")
        before = cloche.open_sockets()
        for number in range(times):
            raw = await open_raw(cloche.port, PATH, customer.headers if number % 4 else {})
            async with raw.stream:
                assert raw.status == (101 if number % 4 else 401)
                if number % 4 == 1:
                    await raw.send(build_frame(TEXT, build_registration(customer)))
                    assert (await raw.read_frame())[0] == TEXT
                elif number % 4 == 2:
                    await raw.send(build_close(1000))
                    assert await raw.read_close() == 1000
        await wait_sockets(cloche, before)
        assert len(cloche.find_logged("a request has ended", PATH)) == times
        cloche.kill()  # it would wait for the device to be back


async def wait_sockets(cloche: Cloche, count: int) -> None:
    with trio.fail_after(15):
        while cloche.open_sockets() > count:
            await trio.sleep(0.01)
