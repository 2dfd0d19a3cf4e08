"""One connection, against a server that nobody here wrote."""

from contextlib import suppress

import msgspec
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed
from wsproto.utilities import generate_accept_token

from scripts.device_link.link import Link, LinkEnded, LinkRefused, build_frame, open_link
from tests.scripts.device_link.relay_stand_in import Side, open_stand_in

GONE = 1006


async def echo(side: Side) -> None:
    while True:
        await side.connection.send_message(await side.connection.get_message())


async def test_texts_are_json_and_bytes_are_bytes() -> None:
    async with open_stand_in(echo) as (url, _), open_link(url, {}) as link:
        await link.send("heartbeat", {"a": 1})
        assert await link.receive() == {"type": "heartbeat", "payload": {"a": 1}}
        await link.send("pong")
        assert await link.receive() == {"type": "pong"}
        await link.send_bytes(b"\0\xff")
        assert await link.receive() == b"\0\xff"


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
async def test_a_frame_of_ones_own_is_one_that_a_server_understands(size: int) -> None:
    async with open_stand_in(echo) as (url, _), open_link(url, {}) as link:
        payload = bytes(range(256)) * 256 + bytes(size)
        await link.send_frame(2, payload[:size], is_final=False)
        await link.send_frame(0, b"end")
        assert await link.receive() == payload[:size] + b"end"


def test_a_frame_is_masked() -> None:
    frame = build_frame(1, b"Hello")
    assert frame[:2] == b"\x81\x85"
    assert bytes(one ^ frame[2 + index % 4] for index, one in enumerate(frame[6:])) == b"Hello"


async def test_a_refusal_has_its_status_and_body() -> None:
    async with open_stand_in(echo) as (url, _):
        with pytest.raises(LinkRefused) as caught:
            async with open_link(url, {"Authorization": "Bearer wrong"}):
                pass
        assert (caught.value.status, caught.value.body) == (401, b"{}")


async def test_nobody_there_is_a_refusal_too() -> None:
    with pytest.raises(LinkRefused, match="cannot be reached"):
        async with open_link("http://127.0.0.1:9", {}):
            pass


async def test_the_end_has_the_servers_code_and_comes_after_all_that_was_said() -> None:
    async def say_and_end(side: Side) -> None:
        for number in range(3):
            await side.say("event", number=number)
        await side.connection.aclose(4001, "replaced")

    async with open_stand_in(say_and_end) as (url, _), open_link(url, {}) as link:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert [await link.receive() for _ in range(3)] == [{"type": "event", "number": n} for n in range(3)]
        with pytest.raises(LinkEnded) as caught:
            await link.receive()
        assert (caught.value.code, caught.value.reason) == (4001, "replaced")
        with pytest.raises(LinkEnded):
            await link.send("pong")
        with pytest.raises(LinkEnded):
            await link.send_frame(1, b"")


@pytest.mark.parametrize("way", ["cut", "leave", "close"])
async def test_there_are_three_ways_to_lose_it(way: str) -> None:
    """The server hears of each: of a reset nothing, of the others what was said before."""
    codes: list[int] = []
    over = trio.Event()

    async def note_end(side: Side) -> None:
        try:
            await side.hear_away()
        except ConnectionClosed as error:
            codes.append(error.reason.code if error.reason is not None else 0)
        over.set()

    async with open_stand_in(note_end) as (url, heard), open_link(url, {}) as link:
        await link.send("heartbeat")
        if way == "cut":
            link.cut()
        elif way == "leave":
            await link.leave()
        else:
            await link.close(1001)
        with pytest.raises(LinkEnded):
            await link.receive()
        with trio.fail_after(5):
            await over.wait()
        assert codes == [1001 if way == "close" else GONE]
        assert way == "cut" or heard == [{"type": "heartbeat"}]


async def test_a_link_that_is_not_read_takes_no_more_and_answers_no_ping() -> None:
    is_sent, is_answered = trio.Event(), trio.Event()

    async def flood(side: Side) -> None:
        for _ in range(300):
            await side.connection.send_message(bytes(65536))
        is_sent.set()
        await side.connection.ping(b"after")
        is_answered.set()
        await side.hear_away()

    async with open_stand_in(flood) as (url, _), open_link(url, {}) as link:
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert not is_sent.is_set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, link, 300)
            with trio.fail_after(5):
                await is_answered.wait()


async def hear(link: Link, times: int) -> None:
    for _ in range(times):
        await link.receive()


async def test_what_is_no_json_is_told() -> None:
    async def babble(side: Side) -> None:
        await side.connection.send_message("{")
        await side.hear_away()

    async with open_stand_in(babble) as (url, _), open_link(url, {}) as link:
        with pytest.raises(msgspec.DecodeError):
            await link.receive()


async def ping_whoever_closes(stream: trio.SocketStream) -> None:
    """And give no other answer to it."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += await stream.receive_some()
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    await stream.send_all(b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + generate_accept_token(key), b"", b""]))
    await stream.receive_some()
    with suppress(trio.BrokenResourceError):
        await stream.send_all(b"\x89\x00")


@pytest.mark.parametrize("waits", [False, True])
async def test_a_ping_that_comes_while_a_link_closes_ends_it_as_any_end(waits: bool) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, ping_whoever_closes, [listener])
        port = listener.socket.getsockname()[1]
        codes: list[int] = []
        try:
            async with open_link(f"http://127.0.0.1:{port}", {}) as link:
                if waits:
                    with trio.fail_after(5):
                        async with trio.open_nursery() as closing:
                            closing.start_soon(link.close)
                            await trio.sleep_forever()
        except LinkEnded as ended:
            codes.append(ended.code)
        assert codes == [GONE] * waits
        nursery.cancel_scope.cancel()
