"""How a server ends: signals, a killed parent, an application whose lifespan fails. Real processes."""

import signal
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.server.fixes_client import (
    Served,
    ask,
    build_request,
    connect,
    read_rest,
    serve,
    wait_exit,
)

# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_streams_end_before_the_server_does(tmp_path: Path, workers: int, number: signal.Signals) -> None:
    with serve(tmp_path, workers=workers) as served:
        async with await connect(served) as one, await connect(served) as two:
            for stream in (one, two):
                await stream.send_all(build_request("/stream/a/10/100/10"))
                await stream.receive_some(10)
            served.process.send_signal(number)
            with trio.fail_after(4):
                bodies = [await read_rest(stream) for stream in (one, two)]
        assert await wait_exit(served, within_seconds=4) == 0
    assert all(body.endswith(b"0\r\n\r\n") for body in bodies)


async def test_a_second_interrupt_ends_the_server_at_once(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/sleep/a"))
            await ask(served, "/begun/a")
            for _ in range(2):
                served.process.send_signal(signal.SIGINT)
                await trio.sleep(0.1)
            await wait_exit(served, within_seconds=2)


async def test_the_grace_is_the_last_word(tmp_path: Path) -> None:
    with serve(tmp_path, grace=0.5) as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/sleep/a"))
            await ask(served, "/begun/a")
            served.process.send_signal(signal.SIGTERM)
            assert await wait_exit(served, within_seconds=3) == 0


async def test_workers_leave_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with serve(tmp_path, workers=1) as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/stream/a/10/100/10"))
            await stream.receive_some(10)
            served.process.kill()
            with trio.fail_after(4):
                assert (await read_rest(stream)).endswith(b"0\r\n\r\n")
        with pytest.raises(OSError, match="all attempts to connect"):
            await connect_until_refused(served)


async def connect_until_refused(served: Served) -> None:
    with trio.fail_after(4):
        while True:
            (await connect(served)).socket.close()
            await trio.sleep(0.05)


# Lifespan


@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_an_application_that_cannot_start_says_why_and_ends(tmp_path: Path, workers: int) -> None:
    with serve(tmp_path, workers=workers, LIFESPAN="failed") as served:
        assert await wait_exit(served, within_seconds=8) != 0
    assert "The database is missing.\nStart it.\n" in served.said()
    assert "Traceback" not in served.said()


async def test_an_application_that_breaks_at_its_start_ends_with_a_traceback(tmp_path: Path) -> None:
    with serve(tmp_path, LIFESPAN="raises") as served:
        assert await wait_exit(served, within_seconds=5) == 1
    assert "RuntimeError: a fault of the program" in served.said()


@pytest.mark.parametrize("workers", [0, 1])
async def test_an_application_whose_lifespan_dies_lets_streams_end(tmp_path: Path, workers: int) -> None:
    with serve(tmp_path, workers=workers, LIFESPAN="dies") as served:
        async with await connect(served) as stream:
            await stream.send_all(build_request("/stream/dying/10/100/10"))
            with trio.fail_after(6):
                assert (await read_rest(stream)).endswith(b"0\r\n\r\n")
        assert await wait_exit(served, within_seconds=4) != 0
    assert "RuntimeError: a loop has died" in served.said()


async def test_upstream_serves_on_without_its_lifespan(tmp_path: Path) -> None:
    with serve(tmp_path, FIXES="0", LIFESPAN="raises") as served:
        assert await ask(served, "/hello/a") == "hello a"
