"""The way to APNs, over real TLS: one connection for all, and what becomes of requests when it ends."""

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from h2.errors import ErrorCodes
from trio.testing import wait_all_tasks_blocked

from proxy.wire import Wire
from server.push.apns_connection import STOPPING, ApnsLink
from server.push.apns_streams import Unanswered
from tests.server.push.apns_asking import BODY, HEADERS, PATIENT, Askers, ask, is_accepted, open_askers, open_link
from tests.server.push.http2_peer import Http2Peer, Manner, PeerConnection, open_http2_peer


async def test_nobody_is_connected_to_before_somebody_asks() -> None:
    async with open_http2_peer(Manner(answers="200")) as peer, open_link(peer) as link:
        await wait_all_tasks_blocked()
        assert peer.connections == []
        assert is_accepted(await ask(link))
        [request] = peer.requests
        assert request.headers == {
            ":method": "POST",
            ":scheme": "https",
            ":authority": f"127.0.0.1:{peer.port}",
            ":path": "/3/device/0a",
            **dict(HEADERS),
        }
        assert request.body == BODY


async def test_all_ask_on_one_connection() -> None:
    async with open_http2_peer(Manner(answers="200")) as peer, open_askers(peer) as askers:
        askers.ask(500)
        assert all(map(is_accepted, await askers.wait(500)))
        assert (len(peer.connections), len(peer.requests)) == (1, 500)


async def test_no_more_are_asked_at_a_time_than_the_peer_allows() -> None:
    async with open_http2_peer(Manner(max_streams=1)) as peer, open_askers(peer) as askers:
        askers.ask(5)
        connection = await peer.wait_connection()
        [first] = await connection.wait_requests(1)
        await wait_all_tasks_blocked(0.01)
        assert len(peer.requests) == 1
        await connection.allow(3)
        await connection.wait_requests(3)
        await wait_all_tasks_blocked(0.01)
        assert len(peer.requests) == 3
        await connection.answer(first)
        await connection.wait_requests(4)


async def test_who_leaves_is_called_off_and_no_other() -> None:
    async with open_http2_peer(Manner(max_streams=2)) as peer, open_link(peer) as link, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def leave() -> None:
            with scope:
                await ask(link, "/left")

        askers = Askers(link, nursery)
        nursery.start_soon(leave)
        connection = await peer.wait_connection()
        [left] = await connection.wait_requests(1)
        askers.ask(2)
        await connection.wait_requests(2)
        scope.cancel()
        requests = await connection.wait_requests(3)  # the stream is free for who waited
        assert connection.resets == [left.stream_id]
        for request in requests[1:]:
            await connection.answer(request)
        assert all(map(is_accepted, await askers.wait(2)))


async def test_who_leaves_before_its_turn_is_never_sent() -> None:
    async with open_http2_peer(Manner(max_streams=1)) as peer, open_link(peer) as link, trio.open_nursery() as nursery:
        askers = Askers(link, nursery)
        askers.ask()
        connection = await peer.wait_connection()
        [first] = await connection.wait_requests(1)
        with trio.move_on_after(0.01):
            await ask(link, "/left")
        await connection.answer(first)
        await askers.wait(1)
        askers.ask()
        requests = await connection.wait_requests(2)
        await connection.answer(requests[1])
        assert [request.headers[":path"] for request in requests] == ["/3/device/0a"] * 2


async def test_a_storm_of_those_who_leave_leaves_nothing() -> None:
    async def ask_for(link: ApnsLink, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await ask(link)

    async with open_http2_peer(Manner(max_streams=7)) as peer, open_link(peer) as link:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(ask_for, link, number % 30 / 1000)
        peer.manner.answers = "200"
        assert is_accepted(await ask(link))
        assert len(peer.connections) == 1
        assert len(link._queue) == 0  # nobody else sees what waits


async def test_a_connection_that_is_cut_leaves_unanswered_what_was_sent_and_the_rest_goes_on() -> None:
    async with open_http2_peer(Manner(max_streams=3)) as peer, open_askers(peer) as askers:
        askers.ask(5)
        connection = await peer.wait_connection()
        [first, *_] = await connection.wait_requests(3)
        await connection.answer(first)
        await connection.wait_requests(4)
        peer.manner = Manner(answers="200")
        connection.cut()
        results = await askers.wait(5)
        assert sum(map(is_accepted, results)) == 2
        assert [result.reason for result in results if isinstance(result, Unanswered)] == [
            "the connection failed: ConnectionResetError"
        ] * 3
        assert len(peer.connections) == 2


async def test_what_was_not_looked_at_before_a_farewell_goes_out_at_once_again() -> None:
    async with open_http2_peer() as peer, open_askers(peer) as askers:
        askers.ask(3)
        connection = await peer.wait_connection()
        [first, *_] = await connection.wait_requests(3)
        peer.manner = Manner(answers="200")
        await connection.go_away(first, b'{"reason":"Shutdown"}')
        assert all(map(is_accepted, await askers.wait(2)))
        assert len(peer.connections[1].requests) == 2
        await connection.answer(first)
        assert all(map(is_accepted, await askers.wait(3)))
        await connection.ended.wait()
        assert connection.goodbyes == 1


async def test_a_connection_that_says_farewell_gets_no_more_requests() -> None:
    async with open_http2_peer() as peer, open_askers(peer) as askers:
        askers.ask()
        connection = await peer.wait_connection()
        [first] = await connection.wait_requests(1)
        peer.manner = Manner(answers="200")
        await connection.go_away(first)
        await wait_all_tasks_blocked(0.01)
        askers.ask(10)
        assert all(map(is_accepted, await askers.wait(10)))
        assert len(connection.requests) == 1
        assert len(peer.connections) == 2


async def test_a_refused_stream_is_sent_again_on_the_same_connection() -> None:
    async with open_http2_peer() as peer, open_askers(peer) as askers:
        askers.ask()
        connection = await peer.wait_connection()
        [request] = await connection.wait_requests(1)
        await connection.reset(request, ErrorCodes.REFUSED_STREAM)
        [_, again] = await connection.wait_requests(2)
        await connection.answer(again)
        assert is_accepted((await askers.wait(1))[0])
        assert len(peer.connections) == 1


async def test_while_nobody_can_be_connected_to_everybody_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with open_http2_peer(Manner(is_away=True)) as peer, open_askers(peer) as askers:
        with caplog.at_level(logging.WARNING):
            askers.ask(20)
            results = await askers.wait(20)
        assert all(isinstance(result, Unanswered) for result in results)
        assert {result.after_seconds for result in results if isinstance(result, Unanswered)} == {1}
        askers.ask(20)
        results = await askers.wait(40)
        assert all(isinstance(result, Unanswered) and (result.after_seconds or 0) > 0.5 for result in results)
        assert len(peer.connections) == 1
        assert [record.getMessage() for record in caplog.records] == ["APNs cannot be reached"]


async def test_pauses_between_attempts_double_up_to_the_longest_and_end_with_success() -> None:
    times = replace(PATIENT, first_pause=0.01, longest_pause=0.03)
    async with open_http2_peer(Manner(is_away=True)) as peer, open_link(peer, times) as link:
        pauses = []
        for _ in range(4):
            result = await ask(link)
            assert isinstance(result, Unanswered)
            pauses.append(result.after_seconds or 0)
            await trio.sleep(pauses[-1])
        assert pauses == [0.01, 0.02, 0.03, 0.03]
        peer.manner = Manner(answers="200")
        assert is_accepted(await ask(link))
        peer.connections[-1].cut()
        await wait_all_tasks_blocked(0.01)
        peer.manner = Manner(is_away=True)
        result = await ask(link)
        assert isinstance(result, Unanswered)
        assert result.after_seconds == 0.01


@pytest.mark.parametrize("protocol", ["http/1.1"])
async def test_a_peer_without_http2_is_told_as_such(protocol: str) -> None:
    async with open_http2_peer(protocol=protocol) as peer, open_link(peer) as link:
        result = await ask(link)
        assert isinstance(result, Unanswered)
        assert result.reason in {"the peer does not speak HTTP/2", "the connection failed: SSLError"}


async def test_a_peer_with_the_wrong_certificate_gets_nothing() -> None:
    async with open_http2_peer(Manner(answers="200")) as peer:
        link = ApnsLink(replace(peer.address, ssl_context=ssl.create_default_context()), PATIENT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.keep_connected)
            result = await ask(link)
            nursery.cancel_scope.cancel()
        assert isinstance(result, Unanswered)
        assert result.reason == "the connection failed: SSLCertVerificationError"
        assert peer.requests == []


@pytest.mark.parametrize("manner", [Manner(says_settings=False), Manner(says_settings=False, reads=False)])
async def test_a_peer_that_never_says_its_settings_is_given_up(manner: Manner) -> None:
    async with open_http2_peer(manner) as peer, open_link(peer, replace(PATIENT, connect=0.05)) as link:
        assert await ask(link) == Unanswered("the connection failed: TooSlowError", 1.0)


async def test_a_peer_that_stops_reading_is_given_up() -> None:
    manner = Manner(reads=False, window=2**30)
    async with open_http2_peer(manner) as peer, open_link(peer, replace(PATIENT, write=0.05)) as link:
        result = await link.ask("/3/device/0a", HEADERS, bytes(32 * 1024 * 1024))
    assert result == Unanswered("the connection failed: TooSlowError")


async def test_a_peer_that_answers_no_ping_is_given_up() -> None:
    times = replace(PATIENT, look=0.005, silence_while_asking=0.02, ping_answer=0.02)
    async with open_http2_peer(Manner(answers_pings=False)) as peer, open_link(peer, times) as link:
        assert await ask(link) == Unanswered("the peer did not answer a PING")


async def test_a_slow_peer_that_answers_pings_is_waited_for() -> None:
    times = replace(PATIENT, look=0.005, silence_while_asking=0.01, ping_answer=0.05)
    async with open_http2_peer() as peer, open_askers(peer, times) as askers:
        askers.ask()
        connection = await peer.wait_connection()
        [request] = await connection.wait_requests(1)
        while connection.pings < 2:
            await connection.wait_change()
        await connection.answer(request)
        assert is_accepted((await askers.wait(1))[0])


async def test_an_idle_connection_is_kept_alive_and_a_dead_one_is_not_asked() -> None:
    times = replace(PATIENT, look=0.005, silence_while_idle=0.02, ping_answer=0.02)
    async with open_http2_peer(Manner(answers="200", answers_pings=False)) as peer, open_link(peer, times) as link:
        assert is_accepted(await ask(link))
        await peer.connections[0].ended.wait()
        assert peer.connections[0].pings == 1
        assert is_accepted(await ask(link))
        assert len(peer.connections) == 2


async def test_a_connection_that_nobody_uses_is_closed_with_a_farewell() -> None:
    times = replace(PATIENT, look=0.005, unused=0.02)
    async with open_http2_peer(Manner(answers="200")) as peer, open_link(peer, times) as link:
        assert is_accepted(await ask(link))
        await peer.connections[0].ended.wait()
        assert peer.connections[0].goodbyes == 1
        await wait_all_tasks_blocked(0.01)
        assert link.open_connections == 0
        assert len(peer.connections) == 1


async def test_what_is_not_http2_ends_the_connection() -> None:
    async with open_http2_peer() as peer, open_askers(peer) as askers:
        askers.ask()
        connection = await peer.wait_connection()
        await connection.wait_requests(1)
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        [result] = await askers.wait(1)
        assert isinstance(result, Unanswered)
        await connection.ended.wait()


@asynccontextmanager
async def open_stopping(peer: Http2Peer, grace_seconds: float) -> AsyncIterator[tuple[Askers, PeerConnection]]:
    """A link that is told to stop while a request is under way, and whoever asks still waits."""
    link = ApnsLink(peer.address, replace(PATIENT, grace=grace_seconds))
    stopping = trio.CancelScope()

    async def keep() -> None:
        with stopping:
            await link.keep_connected()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            askers = Askers(link, nursery)
            askers.ask()
            connection = await peer.wait_connection()
            await connection.wait_requests(1)
            stopping.cancel()
            yield askers, connection
    assert link.open_connections == 0


async def test_at_the_end_what_is_under_way_still_gets_its_answer() -> None:
    async with open_http2_peer() as peer, open_stopping(peer, grace_seconds=5) as (askers, connection):
        await wait_all_tasks_blocked(0.01)
        await connection.answer(connection.requests[0])
        assert is_accepted((await askers.wait(1))[0])
        await connection.ended.wait()


async def test_at_the_end_nobody_waits_longer_than_the_grace() -> None:
    async with open_http2_peer() as peer, open_stopping(peer, grace_seconds=0.02) as (askers, connection):
        assert await askers.wait(1) == [Unanswered("the connection was closed")]
        await connection.ended.wait()


async def test_after_the_end_nobody_waits() -> None:
    async with open_http2_peer(Manner(max_streams=1)) as peer, open_stopping(peer, grace_seconds=0.02) as (askers, _):
        askers.ask()
        results = await askers.wait(2)
        assert set(results) == {Unanswered("the connection was closed"), Unanswered(STOPPING)}
        askers.ask()
        assert (await askers.wait(3))[2] == Unanswered(STOPPING)


async def test_a_fault_of_ours_ends_a_connection_and_not_the_server(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_http2_peer(Manner(answers="200")) as peer, open_link(peer) as link:
        assert is_accepted(await ask(link))

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr("server.push.apns_streams.ApnsStreams.receive", fail)
            result = await ask(link)
        assert isinstance(result, Unanswered)
        assert is_accepted(await ask(link))
    assert "a connection to APNs met a fault of ours" in caplog.messages


async def test_an_answer_that_came_before_the_connection_broke_counts_though_nobody_had_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_blind, wait_incoming = trio.Event(), Wire.wait_incoming

    async def look_away(wire: Wire) -> None:
        await wait_incoming(wire)
        if is_blind.is_set():
            await trio.sleep_forever()

    async def fail(wire: Wire, data: memoryview) -> int:
        raise BrokenPipeError(f"{len(data)} bytes for {wire}")

    monkeypatch.setattr(Wire, "wait_incoming", look_away)
    async with open_http2_peer(Manner()) as peer, open_askers(peer) as askers:
        askers.ask()
        connection = await peer.wait_connection()
        [first] = await connection.wait_requests(1)
        is_blind.set()
        await connection.answer(first)
        await wait_all_tasks_blocked(0.01)
        assert askers.results == []
        monkeypatch.setattr(Wire, "send_some", fail)
        askers.ask()
        results = await askers.wait(2)  # who is told first is trio's to choose
        assert sorted(map(is_accepted, results)) == [False, True]
