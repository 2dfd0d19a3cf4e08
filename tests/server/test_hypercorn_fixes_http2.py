"""HTTP/2 and TLS, over real sockets, and what upstream makes of two frames."""

import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import h2.errors
import h2.events
import pytest
import trio
import trio.testing
import trustme
from hyperframe.frame import DataFrame

from tests.server.fixes_client import (
    Http2Client,
    Served,
    ask,
    build_request,
    connect,
    read_answer,
    serve,
    wait_exit,
)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("mended")) as served:
        yield served


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a request of this test."""
    return f"{abs(hash(request.node.nodeid))}"


@pytest.mark.parametrize("path", ["/sleep/{name}", "/stream/{name}/1000000/1/100"])
async def test_a_reset_stream_is_noticed_at_once(server: Served, name: str, path: str) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        stream_id = await client.start(path.replace("{name}", name).encode())
        await ask(server, f"/begun/{name}")
        client.protocol.reset_stream(stream_id)
        await client.flush()
        assert await ask(server, f"/ending/{name}", within_seconds=0.5) == "left"
        assert await client.read_answer(await client.start(b"/hello/a")) == ("200", b"hello a")


async def test_an_http2_response_arrives_completely(server: Served) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        status, body = await client.read_answer(await client.start(b"/asgi/numbers"))
    assert (status, body) == ("200", b"".join(b"%07d" % number for number in range(MIB)))


async def test_an_http2_client_that_grants_no_window_loses_its_stream(server: Served, name: str) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        await client.start(f"/stream/{name}/100000/0/65536".encode())
        with trio.fail_after(4):
            while not isinstance(await client.next_event(), h2.events.StreamReset):
                pass
        assert await ask(server, f"/ending/{name}", within_seconds=1) == "left"


async def upload_on(served: Served) -> tuple[str, bytes]:
    """Send a body that was refused already, then ask for something else."""
    async with await connect(served) as stream:
        client = Http2Client(stream)
        refused = await client.start(b"/asgi/refuse", method="POST", ends=False)
        assert await client.read_answer(refused) == ("413", b"too large")
        for _ in range(3):  # not by its protocol, which might have heard that it need not
            await stream.send_all(DataFrame(refused, b"x" * 10_000).serialize())
        return await client.read_answer(await client.start(b"/hello/a"))


async def ask_for_bytes(served: Served) -> tuple[str, bytes]:
    async with await connect(served) as stream:
        client = Http2Client(stream)
        return await client.read_answer(await client.start(b"/\xff"))


async def test_an_http2_upload_goes_on_after_its_refusal(server: Served) -> None:
    assert await upload_on(server) == ("200", b"hello a")


async def list_resets(client: Http2Client) -> list[tuple[int, int | None]]:
    """Of what comes until the server answers a ping."""
    client.protocol.ping(b"whatever")
    await client.flush()
    resets: list[tuple[int, int | None]] = []
    with trio.fail_after(5):
        while not isinstance(event := await client.next_event(), h2.events.PingAckReceived):
            if isinstance(event, h2.events.StreamReset):
                resets.append((event.stream_id, event.error_code))
    return resets


async def test_who_is_answered_while_it_uploads_is_told_to_stop(server: Served) -> None:
    """https://www.rfc-editor.org/rfc/rfc9113#section-8.1-10"""
    async with await connect(server) as stream:
        client = Http2Client(stream)
        refused = await client.start(b"/asgi/refuse", method="POST", ends=False)
        await client.read_answer(refused)
        assert await list_resets(client) == [(refused, h2.errors.ErrorCodes.NO_ERROR)]
        assert await client.read_answer(await client.start(b"/hello/a")) == ("200", b"hello a")
        assert await list_resets(client) == []


async def test_a_path_that_is_no_text_is_refused(server: Served) -> None:
    assert (await ask_for_bytes(server))[0] == "400"


async def test_an_http2_connect_is_refused(server: Served) -> None:
    async with await connect(server) as stream:
        client = Http2Client(stream)
        stream_id = client.protocol.get_next_available_stream_id()
        client.protocol.send_headers(stream_id, [(b":method", b"CONNECT"), (b":authority", b"example.com:443")])
        await client.flush()
        assert (await client.read_answer(stream_id))[0] == "405"


@pytest.mark.parametrize("attack", [upload_on, ask_for_bytes])
async def test_upstream_dies_of_one_http2_frame(
    tmp_path: Path, attack: Callable[[Served], Awaitable[tuple[str, bytes]]]
) -> None:
    with serve(tmp_path, FIXES="0") as served:
        with pytest.raises(trio.BrokenResourceError):
            await attack(served)
        assert await wait_exit(served, within_seconds=5) != 0


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("secure")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key")
    issued.cert_chain_pems[0].write_to_path(folder / "cert")
    with serve(folder, "--certfile", str(folder / "cert"), "--keyfile", str(folder / "key")) as served:
        yield served


async def connect_securely(
    served: Served, authority: trustme.CA, protocol: str = "http/1.1"
) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols([protocol])
    stream = trio.SSLStream(await connect(served), context, server_hostname="localhost", https_compatible=True)
    await stream.do_handshake()
    assert stream.selected_alpn_protocol() == protocol
    return stream


async def test_a_response_arrives_completely_over_tls(secure: Served, authority: trustme.CA) -> None:
    async with await connect_securely(secure, authority) as stream:
        await stream.send_all(build_request("/asgi/numbers", "connection: close"))
        answer = await read_answer(stream)
        with trio.fail_after(1):
            assert await stream.receive_some() == b""
    assert answer.body == b"".join(b"%07d" % number for number in range(MIB))


async def test_an_http2_response_arrives_completely_over_tls(secure: Served, authority: trustme.CA) -> None:
    async with await connect_securely(secure, authority, "h2") as stream:
        client = Http2Client(stream)
        status, body = await client.read_answer(await client.start(b"/asgi/numbers"))
    assert (status, len(body)) == ("200", 7 * MIB)


async def test_a_client_that_takes_nothing_is_dropped_over_tls(
    secure: Served, authority: trustme.CA, name: str
) -> None:
    async with await connect_securely(secure, authority) as stream:
        await stream.send_all(build_request(f"/stream/{name}/100000/0/65536"))
        async with await connect_securely(secure, authority) as other:
            await other.send_all(build_request(f"/ending/{name}"))
            with trio.fail_after(4):
                assert (await read_answer(other)).body == b"left"
