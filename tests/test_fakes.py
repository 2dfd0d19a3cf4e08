"""The fakes, met by a client that is none of ours."""

import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import h11
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fakes import (
    Close,
    FakeUpstream,
    Pause,
    RecordedRequest,
    Reset,
    ScriptedToolCall,
    Send,
    SendChunk,
    Step,
    WaitFor,
    WaitForClose,
    build_tls,
    open_fake_upstream,
    openai_error,
    openai_stream,
    openai_whole,
    response,
    stream_head,
    upto_chunks,
)

REQUEST = b'POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nX-Name: Value\r\nContent-Length: 9\r\n\r\n{"n": 17}'


@asynccontextmanager
async def open_client(upstream: FakeUpstream) -> AsyncIterator[trio.SocketStream]:
    stream = await trio.open_tcp_stream("127.0.0.1", int(upstream.url.rpartition(":")[2]))
    async with stream:
        yield stream


async def read_answer(stream: trio.abc.Stream) -> tuple[int, bytes]:
    """Status and body, as h11 reads them."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    return status, body


async def talk(upstream: FakeUpstream) -> tuple[int, bytes]:
    async with open_client(upstream) as stream:
        await stream.send_all(REQUEST)
        return await read_answer(stream)


def read_events(body: bytes) -> list[dict[str, object]]:
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert events[-1] == b"[DONE]"
    return [json.loads(event) for event in events[:-1]]


def read_deltas(body: bytes) -> list[object]:
    choices = [event["choices"] for event in read_events(body)]
    return [choice[0]["delta"] for choice in choices if isinstance(choice, list) and choice]


async def test_a_request_is_recorded() -> None:
    async with open_fake_upstream(response(200, b"{}")) as upstream:
        assert await talk(upstream) == (200, b"{}")
    [request] = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/x?y=1")
    assert (request.headers["x-name"], request.json) == ("Value", {"n": 17})


async def test_a_connection_carries_one_request_after_the_other_also_pipelined() -> None:
    async with open_fake_upstream(response(200, b"{}")) as upstream, open_client(upstream) as stream:
        await stream.send_all(REQUEST + REQUEST[:30])
        assert await read_answer(stream) == (200, b"{}")
        await stream.send_all(REQUEST[30:])
        assert await read_answer(stream) == (200, b"{}")
        assert [len(connection.requests) for connection in upstream.connections] == [2]


async def test_every_request_may_have_a_script_of_its_own() -> None:
    def respond(request: RecordedRequest) -> Iterable[Step]:
        return openai_error(429, "requests", "rate_limit_exceeded", request.method, headers={"Retry-After": "3"})

    async with open_fake_upstream(respond) as upstream:
        status, body = await talk(upstream)
    assert status == 429
    assert json.loads(body)["error"] == {
        "message": "POST",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }


async def test_an_answer_is_streamed_in_openais_dialect() -> None:
    async with open_fake_upstream(openai_stream(["Hel", "lo"], usage=(7, 2), model="m")) as upstream:
        status, body = await talk(upstream)
    events = read_events(body)
    assert status == 200
    assert read_deltas(body) == [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {}]
    assert {event["model"] for event in events} == {"m"}
    usage = events[-1]["usage"]
    assert isinstance(usage, dict)
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (7, 2, 9)
    assert events[-1]["choices"] == []


async def test_tool_calls_are_streamed_by_index() -> None:
    call = ScriptedToolCall("call_1", "look_up", ['{"q":', '"x"}'])
    async with open_fake_upstream(openai_stream([], tool_calls=[call])) as upstream:
        _, body = await talk(upstream)
    function = {"name": "look_up", "arguments": ""}
    assert read_deltas(body)[1:-1] == [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"q":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"x"}'}}]},
    ]
    assert '"finish_reason":"tool_calls"' in body.decode()


async def test_an_answer_may_be_whole() -> None:
    async with open_fake_upstream(openai_whole("Hello", usage=(3, 1))) as upstream:
        status, body = await talk(upstream)
    answer = json.loads(body)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello")
    assert answer["usage"]["total_tokens"] == 4


async def test_a_script_may_be_cut_after_a_chunk() -> None:
    steps = upto_chunks(openai_stream(["a", "b"]), 2)
    assert isinstance(steps[-1], SendChunk)
    assert b'"content":"a"' in steps[-1].data
    assert sum(isinstance(step, SendChunk) for step in steps) == 2


@pytest.mark.parametrize(
    "script",
    [
        [WaitForClose()],
        [stream_head(), SendChunk(b"data: 1\n\n"), WaitForClose()],
        [Pause(1000)],
        [WaitFor(trio.Event())],
        [Send(bytes(50_000_000))],
    ],
    ids=["silent", "mid-stream", "pausing", "waiting", "blocked in a send"],
)
@pytest.mark.parametrize("with_reset", [False, True])
async def test_the_clients_end_is_noticed_at_once(script: list[Step], with_reset: bool) -> None:
    async with open_fake_upstream(script) as upstream, open_client(upstream) as stream:
        await stream.send_all(REQUEST)
        await upstream.requested.wait()
        await wait_all_tasks_blocked()
        [connection] = upstream.connections
        assert not connection.closed_by_client.is_set()
        closed_at = trio.current_time()
        if with_reset:
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        with trio.fail_after(1):
            await connection.closed_by_client.wait()
        assert connection.closed_at is not None
        assert connection.closed_at >= closed_at


async def test_what_was_sent_is_counted() -> None:
    script: list[Step] = [stream_head(), SendChunk(b"12345"), SendChunk(b"6"), WaitForClose()]
    async with open_fake_upstream(script) as upstream, open_client(upstream) as stream:
        await stream.send_all(REQUEST)
        await upstream.requested.wait()
        await wait_all_tasks_blocked()
        [connection] = upstream.connections
        assert connection.sent_chunks == 2
        assert connection.sent_bytes == len(stream_head().data) + len(b"5\r\n12345\r\n1\r\n6\r\n")
        assert upstream.open_connections == 1
    assert upstream.open_connections == 0


async def test_bytes_may_come_one_by_one() -> None:
    async with open_fake_upstream([Send(b"abc", split_bytes=1), Close()]) as upstream, open_client(upstream) as stream:
        await stream.send_all(REQUEST)
        assert b"".join([bytes(piece) async for piece in stream]) == b"abc"


async def test_a_pause_lasts(autojump_clock: MockClock) -> None:
    async with open_fake_upstream([Pause(60), *openai_whole("hi")]) as upstream:
        await talk(upstream)
        assert trio.current_time() == pytest.approx(60, abs=1)


async def test_a_provider_may_close_or_reset() -> None:
    for ending in (Close(), Reset()):
        async with open_fake_upstream([Send(b"HTTP/1.1 2"), ending]) as upstream, open_client(upstream) as stream:
            await stream.send_all(REQUEST)
            await wait_all_tasks_blocked(0.01)
            assert await stream.receive_some() == b"HTTP/1.1 2"
            if isinstance(ending, Close):
                assert await stream.receive_some() == b""
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            assert not upstream.connections[0].closed_by_client.is_set()


async def test_a_provider_that_reads_nothing_notices_a_reset() -> None:
    async with open_fake_upstream(manner="reads_nothing") as upstream, open_client(upstream) as stream:
        with trio.move_on_after(0.1):
            await stream.send_all(bytes(50_000_000))
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        with trio.fail_after(1):
            await upstream.connections[0].closed_by_client.wait()


async def test_a_provider_that_only_listens_never_says_a_word() -> None:
    async with (
        open_fake_upstream(openai_whole("hi"), manner="only_listens") as upstream,
        open_client(upstream) as stream,
    ):
        await stream.send_all(REQUEST)
        with trio.move_on_after(0.05):
            await stream.receive_some()
            raise AssertionError("it said something")
        await stream.aclose()
        with trio.fail_after(1):
            await upstream.connections[0].closed_by_client.wait()


@pytest.mark.parametrize("abruptly", [False, True])
async def test_over_tls_a_close_has_its_farewell_unless_it_is_abrupt(abruptly: bool) -> None:
    server, client = build_tls()
    script = [*openai_whole("hi"), Close(abruptly=abruptly)]
    async with open_fake_upstream(script, tls=server) as upstream, open_client(upstream) as stream:
        secure = trio.SSLStream(stream, client, server_hostname="127.0.0.1")
        await secure.send_all(REQUEST)
        assert (await read_answer(secure))[0] == 200
        if abruptly:
            with pytest.raises(trio.BrokenResourceError) as broken:
                await secure.receive_some()
            assert isinstance(broken.value.__cause__, ssl.SSLEOFError)
        else:
            assert await secure.receive_some() == b""


async def test_leaving_closes_every_connection() -> None:
    async with open_fake_upstream() as upstream:
        stream = await trio.open_tcp_stream("127.0.0.1", int(upstream.url.rpartition(":")[2]))
        await upstream.connected.wait()
    async with stream:
        with trio.fail_after(1):
            assert await stream.receive_some() == b""
