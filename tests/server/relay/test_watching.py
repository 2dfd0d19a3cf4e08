"""The whole life of a watcher: what it is told, what it may say, and every way in which it ends."""

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from werkzeug.datastructures import Headers

from server.auth.callers import Caller
from server.relay.balance_watch import BalanceWatch
from server.relay.chat_watch import ChatWatch
from server.relay.configuration_watch import ConfigurationWatch
from server.relay.event_lines import WatchWish
from server.relay.notification_watch import NotificationWatch
from server.relay.sign_in_check import list_names
from server.relay.watchers import LAST_WORDS_SECONDS, MOST_PER_USER, Watchers
from server.relay.watching import BEAT_SECONDS, SILENCE_SECONDS, STOP_SECONDS, Watching, answer
from server.websocket import Ping, Pong
from server.websocket_frames import build_ping
from storage.errors import RedisUnavailable
from tests.server.relay.audience import ANN, BOB, Socket, Told, Watched, build_caller, build_watcher, take_told

EVENT = b'{"type":"event","payload":{"eventType":"job:created","payload":{}},"eventId":7}'


@dataclass(slots=True)
class House:
    """A process with watchers, and nothing else."""

    told: Told = field(default_factory=Told)
    watched: Watched = field(default_factory=Watched)
    watchers: Watchers = field(default_factory=Watchers)
    ended: set[Caller] = field(default_factory=set)
    is_store_away: bool = False
    watching: Watching = field(init=False)

    def __post_init__(self) -> None:
        events: Any = self.told
        watched: Any = self.watched
        self.watching = Watching(
            events=events,
            channels=self.told,  # type: ignore[arg-type] # it keeps channels too
            watchers=self.watchers,
            watched=watched,
            balances=BalanceWatch(None, self.watchers),  # type: ignore[arg-type] # nobody reads a balance here
            configuration=ConfigurationWatch(self.watchers, {"regions"}),
            notifications=NotificationWatch(watched, None, events.publish),  # type: ignore[arg-type] # nor notifications
            chats=ChatWatch(watched),
            has_ended=self.has_ended,
        )

    async def has_ended(self, caller: Caller) -> bool:
        if self.is_store_away:
            raise RedisUnavailable("away")
        return caller.key_id in {ended.key_id for ended in self.ended}

    @asynccontextmanager
    async def open_socket(self, caller: Caller, **members: Any) -> AsyncIterator[Socket]:
        """Served for as long as the block lasts; at its end nothing of it is left."""
        socket = Socket(**members)
        async with trio.open_nursery() as nursery:
            live: Any = self.watching.serve
            nursery.start_soon(live, socket, caller)
            await wait_all_tasks_blocked()
            yield socket
            socket.says.close()
        assert self.told.following == []
        assert list(self.watchers.users) == []


@pytest.fixture
def house() -> House:
    return House()


async def test_a_socket_is_told_what_happens_and_what_it_missed(house: House) -> None:
    house.told.kept = [EVENT]
    async with house.open_socket(build_caller(), query={"lastEventId": "6"}) as socket:
        assert socket.frames.startswith(build_ping(b"heartbeat"))
        first, configuration = socket.read()
        assert first["eventId"] == 7
        assert configuration["payload"] == {"eventType": "configuration-changed", "payload": {"tables": ["regions"]}}
        house.told.following[0].put_text(b'{"type":"event"}')
        await wait_all_tasks_blocked()
        assert socket.read() == [{"type": "event"}]
    assert house.watched.users == {ANN}


async def test_without_an_id_nothing_is_replayed(house: House) -> None:
    house.told.kept = [EVENT]
    async with house.open_socket(build_caller()) as socket:
        assert socket.read() == []


async def test_a_ping_is_answered_and_other_words_are_refused(house: House) -> None:
    async with house.open_socket(build_caller()) as socket:
        for said in ('{"type":"ping"}', "{", b"\x00", '{"type":"event","payload":{}}', '["ping"]'):
            await socket.says.send(said)
        await wait_all_tasks_blocked()
        told = socket.read()
        assert [one["type"] for one in told] == ["pong", "error", "error", "error", "error"]
        assert told[1]["code"] == "readOnly"
        assert socket.close_code is None


async def test_who_never_stops_talking_is_sent_away(house: House, autojump_clock: MockClock) -> None:
    async with house.open_socket(build_caller()) as socket:
        for _ in range(110):
            await socket.says.send("x")
        await wait_all_tasks_blocked()
        assert socket.close_code == 1008


async def test_who_answers_pings_stays_and_who_is_silent_is_closed(house: House, autojump_clock: MockClock) -> None:
    async with house.open_socket(build_caller()) as socket:
        for _ in range(10):
            await trio.sleep(SILENCE_SECONDS - 1)
            await socket.says.send(Pong(b"heartbeat"))
        assert socket.close_code is None
        assert socket.frames.count(build_ping(b"heartbeat")) == 1 + int(10 * (SILENCE_SECONDS - 1) / BEAT_SECONDS)
        await socket.says.send(Ping())
        await trio.sleep(SILENCE_SECONDS + 1)
        assert socket.closed == (4002, "nothing was heard of you for too long")


async def test_a_client_that_closes_leaves_nothing_behind(house: House) -> None:
    async with house.open_socket(build_caller()) as socket:
        assert len(house.told.following) == 1
    assert socket.close_code is None


async def test_an_ended_sign_in_ends_its_sockets_and_no_others(house: House) -> None:
    ann, other = build_caller(), build_caller()
    async with house.open_socket(ann) as first, house.open_socket(other) as second:
        house.is_store_away = True  # who passes everybody's messages on does not wait for a store
        await house.watching.hear_ended(ANN, b"another key")
        await wait_all_tasks_blocked()
        assert (first.closed, second.closed) == (None, None)
        await house.watching.hear_ended(ANN, max(list_names(ann) - list_names(other)).encode())
        await wait_all_tasks_blocked()
        assert (first.closed, second.closed) == ((4401, "signed out"), None)
        first.says.close()
        second.says.close()


async def test_who_is_signed_out_and_reads_nothing_is_gone_at_once(house: House, autojump_clock: MockClock) -> None:
    async with house.open_socket(build_caller(), is_stuck=True) as socket:
        next(iter(house.watchers.list(ANN))).end(4401, "signed out")
        await trio.sleep(LAST_WORDS_SECONDS + 0.1)
        assert socket.close_code == 4401


async def test_an_end_that_nobody_heard_of_is_found_in_time(house: House, autojump_clock: MockClock) -> None:
    ann = build_caller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.watching.keep_checking)
        async with house.open_socket(ann) as socket:
            house.ended.add(ann)
            await trio.sleep(61)
            assert socket.closed == (4401, "signed out")
        nursery.cancel_scope.cancel()


async def test_an_end_that_was_told_while_nobody_could_hear_it_is_found_as_soon_as_somebody_can(
    house: House, autojump_clock: MockClock
) -> None:
    ann, bob = build_caller(), build_caller(BOB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.watching.keep_checking)
        async with house.open_socket(ann) as first, house.open_socket(bob) as second:
            house.ended |= {ann, bob}
            await house.watching.hear_lost(ANN)
            await trio.sleep(1)
            assert (first.closed, second.closed) == ((4401, "signed out"), None)
            await trio.sleep(60)
            assert second.closed == (4401, "signed out")
        nursery.cancel_scope.cancel()


async def test_who_reads_slowly_is_not_silent_though_it_answers_no_ping(
    house: House, autojump_clock: MockClock
) -> None:
    async with house.open_socket(build_caller()) as socket:
        socket.pace_seconds = SILENCE_SECONDS - 10
        for _ in range(3):
            house.told.following[0].put_text(b'{"text":"x"}')
            await trio.sleep(socket.pace_seconds + 1)
        assert socket.closed is None
        socket.pace_seconds = 3 * SILENCE_SECONDS
        house.told.following[0].put_text(b'{"text":"x"}')
        await trio.sleep(socket.pace_seconds + 1)
        assert socket.closed is None
        socket.pace_seconds = 0
        await trio.sleep(5 * SILENCE_SECONDS)
        assert socket.close_code == 4002


async def test_a_server_that_stops_sends_its_watchers_away_one_by_one(house: House, autojump_clock: MockClock) -> None:
    async with house.open_socket(build_caller()) as socket:
        socket.stopping[0]()
        assert socket.closed is None
        await trio.sleep(STOP_SECONDS + 0.1)
        assert socket.close_code == 1012
    socket.stopping[0]()


@pytest.mark.parametrize(("error", "code"), [(RedisUnavailable("away"), 1013), (ZeroDivisionError("ours"), 1011)])
async def test_what_keeps_events_away_ends_the_socket(house: House, error: Exception, code: int) -> None:
    house.told.error = error
    async with house.open_socket(build_caller()) as socket:
        assert socket.close_code == code


async def test_who_comes_while_redis_is_away_waits_for_it(house: House) -> None:
    house.watched.is_away = True
    async with house.open_socket(build_caller()) as socket:
        assert socket.closed is None
        assert len(house.told.following) == 1


async def test_a_wish_that_cannot_be_read_is_refused_with_a_reason(house: House) -> None:
    async with house.open_socket(build_caller(), headers=Headers({"Last-Event-ID": "x"})) as socket:
        assert socket.close_code == 1008
        assert socket.closed is not None
        assert "lastEventId" in socket.closed[1]


async def test_too_many_sockets_of_a_user_are_told_to_come_again_later(house: House) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_PER_USER):
            stack.enter_context(house.watchers.admit(build_watcher()))
        socket: Any = Socket()
        await house.watching.serve(socket, build_caller())
        assert socket.closed[0] == 1013


async def test_a_stream_is_told_heartbeats_and_events_and_ends_with_its_outbox(
    house: House, autojump_clock: MockClock
) -> None:
    stopping: list[Any] = []
    house.told.kept = [EVENT]
    caller = build_caller()
    async with house.watching.open_stream(caller, WatchWish(last_event_id=1), stopping.append) as watcher:
        await trio.sleep(BEAT_SECONDS + 1)
        first, event, _, second = await take_told(watcher)
        assert first["type"] == second["type"] == "heartbeat"
        assert first["userId"] == str(caller.user_id)
        assert first["timestamp"].endswith("+00:00")
        assert event["eventId"] == 7
        stopping[0]()
        with trio.fail_after(STOP_SECONDS + 1):
            assert await watcher.outbox.take() is None
    assert house.told.following == []


async def test_a_long_replay_reaches_a_stream_that_is_read(house: House) -> None:
    house.told.kept = [b'{"text":"' + b"x" * 1_000_000 + b'"}'] * 12
    async with house.watching.open_stream(build_caller(), WatchWish(last_event_id=1), lambda _: None) as watcher:
        received = 0
        with trio.fail_after(5):
            while received < 12_000_000:
                frames = await watcher.outbox.take()
                assert frames is not None
                watcher.outbox.note_written(len(frames))
                received += len(frames)


async def test_who_watches_here_is_told_to_all_processes_again_and_again(
    house: House, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        house.watched.is_away = True
        nursery.start_soon(house.watching.keep_renewing)
        await trio.sleep(1)
        house.watched.is_away = False
        with house.watchers.admit(build_watcher(BOB)):
            await trio.sleep(60)
        assert house.watched.users == {BOB}
        nursery.cancel_scope.cancel()


def test_what_is_answered_is_json() -> None:
    assert json.loads(answer('{"type":"heartbeat","payload":{}}')) == {"type": "pong"}
    assert json.loads(answer("[" * 100_000))["type"] == "error"


async def test_nothing_is_said_before_what_happens_is_heard(house: House) -> None:
    house.told.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        socket: Any = Socket()
        nursery.start_soon(house.watching.serve, socket, build_caller())
        await socket.says.send('{"type":"ping"}')
        await wait_all_tasks_blocked()
        assert socket.frames == b""
        house.told.gate.set()
        await wait_all_tasks_blocked()
        assert socket.read() == [{"type": "pong"}]
        socket.says.close()
