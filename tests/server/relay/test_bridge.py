"""Letters between processes over a real Redis: each once and in order, or known to be lost."""

import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
import trio

import server.relay.bridge
import server.relay.line
import storage.redis
from server.relay.letters import PIECE_BYTES
from server.relay.line import ROOM_BYTES
from server.relay.liveness import Tempo
from storage.errors import RedisUnavailable
from storage.relay_instances import instances_key
from storage.relay_streams import letters_key
from tests.server.relay.bridges import (
    ANN,
    QUICK,
    Note,
    Process,
    kill_connections,
    open_process,
    standing_still,
    wait_until,
)
from tests.storage.redis_server import RedisServer

PATIENT = Tempo(renew_seconds=0.02, expiry_seconds=60, undeliverable_seconds=60)


@pytest.fixture
async def one(redis_url: str) -> AsyncIterator[Process]:
    async with open_process(redis_url, PATIENT) as process:
        yield process


@pytest.fixture
async def other(one: Process, redis_url: str) -> AsyncIterator[Process]:
    async with open_process(redis_url, PATIENT) as process:
        yield process


async def wait_settled(*processes: Process) -> None:
    """Until they would call somebody gone."""
    await wait_until(lambda: all(trio.current_time() > each.bridge._liveness._settled_at for each in processes))


async def test_a_letter_is_read_as_it_was_sent(one: Process, other: Process) -> None:
    blob = bytes(range(256))
    assert one.write(other, "hallo", blob)
    await other.wait_letters(1)
    assert other.letters == [(one.name, "hallo", blob)]
    assert one.letters == []


async def test_letters_both_ways_keep_their_order(one: Process, other: Process) -> None:
    expected = [str(number) for number in range(1000)]
    for text in expected:
        one.write(other, text)
        other.write(one, text)
    await one.wait_letters(1000)
    await other.wait_letters(1000)
    assert one.texts == other.texts == expected


async def test_a_process_may_write_to_itself(one: Process) -> None:
    assert one.write(one, "memo")
    await one.wait_letters(1)


async def test_a_response_of_31_mebibytes_passes_and_what_follows_too(one: Process, other: Process) -> None:
    large = random.Random(1).randbytes(31 * 1024 * 1024)  # noqa: S311 - not for secrets
    one.write(other, "large", large)
    one.write(other, "small")
    await other.wait_letters(2)
    assert other.texts == ["large", "small"]
    assert other.letters[0][2] == large


async def test_events_are_brought_before_the_letter_that_comes_after_them(one: Process, other: Process) -> None:
    one.write(other, "first")
    one.write(other, "second", after_event=7)
    await other.wait_letters(2)
    assert other.caught_up == [(ANN, 7)]


async def test_a_letter_that_is_not_handled_does_not_keep_the_next_from_being_read(
    one: Process, other: Process, caplog: pytest.LogCaptureFixture
) -> None:
    other.fails_at = "bad"
    one.write(other, "bad")
    one.bridge.send(other.name, ANN, "of no kind", Note(""))
    one.write(other, "good")
    await other.wait_letters(1)
    assert other.texts == ["good"]
    assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [
        logging.ERROR,
        logging.WARNING,
    ]


def test_a_kind_has_one_handler() -> None:
    bridge = server.relay.bridge.Bridge.__new__(server.relay.bridge.Bridge)
    bridge._readers = {}

    async def read(letter: server.relay.bridge.Letter, note: Note) -> None: ...

    bridge.handle("note", Note, read)
    with pytest.raises(ValueError, match="have a handler"):
        bridge.handle("note", Note, read)


async def test_what_was_read_is_dropped(one: Process, other: Process, redis_url: str) -> None:
    for number in range(2000):
        one.write(other, str(number))
    await other.wait_letters(2000)
    one.write(other, "large", bytes(5 * PIECE_BYTES))
    await other.wait_letters(2001)
    with redis.Redis.from_url(redis_url) as looker:
        await wait_until(lambda: looker.memory_usage(letters_key(other.name)) < 5 * PIECE_BYTES)


async def test_who_sends_large_letters_waits_for_room(one: Process, other: Process) -> None:
    for _ in range(3):
        one.write(other, "large", bytes(ROOM_BYTES // 2))
    assert one.bridge._lines.open(other.name).waiting_bytes > ROOM_BYTES
    await one.bridge.wait_room(other.name)
    assert one.bridge._lines.open(other.name).waiting_bytes <= ROOM_BYTES
    await other.wait_letters(3)


async def test_far_too_much_is_refused(one: Process, other: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.relay.bridge, "MOST_BYTES", 1000)
    assert one.write(other, "a", bytes(800))
    assert not one.write(other, "b", bytes(800))
    assert one.write(other, "c")
    await other.wait_letters(2)
    assert other.texts == ["a", "c"]
    assert (one.lost, other.lost) == ([], [])


async def test_who_leaves_is_gone_at_once_and_what_it_said_before_arrives(one: Process, redis_url: str) -> None:
    async with open_process(redis_url, PATIENT) as leaving:
        leaving.write(one, "hallo")
        await one.wait_letters(1)
        leaving.write(one, "my last words")
    await wait_until(lambda: one.gone)
    assert one.texts == ["hallo", "my last words"]
    assert one.gone == one.lost == [leaving.name]
    assert not one.bridge.is_alive(leaving.name)
    assert not one.write(leaving, "too late")
    with redis.Redis.from_url(redis_url) as looker:
        assert {key.decode() for key in looker.keys("*relay:*")} & {letters_key(leaving.name)} == set()


async def test_who_dies_is_gone_once(redis_url: str) -> None:
    dead = "dead"
    async with open_process(redis_url) as one:
        with redis.Redis.from_url(redis_url) as clock:
            clock.zadd(instances_key(), {dead: int(clock.time()[0] * 1000) + 300})
        assert one.bridge.is_alive(dead)
        assert one.bridge.send(dead, ANN, "note", Note("never to arrive"))
        await wait_until(lambda: not one.bridge.is_alive(dead))
        await trio.sleep(0.1)
        assert one.gone == [dead]
        assert dead in one.lost
        await wait_until(lambda: not list(one.bridge._lines))
        assert one.bridge.find_last_sign(dead) == pytest.approx(trio.current_time(), abs=1)


async def test_one_that_nothing_is_known_of_is_looked_for_at_once(redis_url: str) -> None:
    """Though the next reading is a minute away."""
    async with open_process(redis_url, Tempo(renew_seconds=60, expiry_seconds=120)) as one:
        with redis.Redis.from_url(redis_url) as looker:
            before = looker.zscore(instances_key(), one.name)
            assert one.bridge.is_alive("dead")
            await wait_until(lambda: looker.zscore(instances_key(), one.name) != before)


async def test_connections_that_break_lose_nothing_and_repeat_nothing(
    one: Process, other: Process, redis_url: str
) -> None:
    chances = random.Random(8)  # noqa: S311 - not for secrets
    expected = [(one.name, str(number), b"x" * (number % 97)) for number in range(3000)]
    for number, (_, text, blob) in enumerate(expected):
        assert one.write(other, text, blob)
        if number % 30 == 0:
            await trio.sleep(0.001)
        if number % 300 == 150:
            kill_connections(redis_url, chances)
    await other.wait_letters(3000)
    assert other.letters == expected
    assert (one.lost, other.lost) == ([], [])


async def test_an_answer_that_is_lost_repeats_nothing(
    one: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has done what it was asked to do, and nobody was told."""
    streams, chances = one.bridge._streams, random.Random(3)  # noqa: S311 - not for secrets
    add = type(streams).add

    async def add_and_fail(self: object, instance: str, entries: object) -> object:
        outcome = await add(streams, instance, entries)  # type: ignore[arg-type] # as it came
        if chances.random() < 0.5:
            raise RedisUnavailable("nobody knows")
        return outcome

    monkeypatch.setattr(type(streams), "add", add_and_fail)
    for number in range(100):
        assert one.write(other, str(number))
        await trio.sleep(0.0005)
    await other.wait_letters(100)
    assert other.texts == [str(number) for number in range(100)]


@pytest.fixture
def own_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0.2)
    monkeypatch.setattr(server.relay.bridge, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(server.relay.bridge, "AWAY_SECONDS", 0.1)
    running = RedisServer(tmp_path)
    yield running
    running.kill()


async def open_two(stack: AsyncExitStack, own_redis: RedisServer, tempo: Tempo) -> tuple[Process, Process]:
    one = await stack.enter_async_context(open_process(own_redis.url, tempo))
    other = await stack.enter_async_context(open_process(own_redis.url, tempo))
    one.write(other, "before")
    other.write(one, "before")
    await one.wait_letters(1)
    await other.wait_letters(1)
    return one, other


async def test_a_redis_that_hangs_is_outwaited(own_redis: RedisServer) -> None:
    tempo = Tempo(renew_seconds=0.05, expiry_seconds=60, undeliverable_seconds=60)
    async with AsyncExitStack() as stack:
        one, other = await open_two(stack, own_redis, tempo)
        own_redis.hang()
        for number in range(10):
            assert one.write(other, str(number), bytes(1000))
        await wait_until(lambda: one.bridge.is_away)
        assert not one.write(other, "refused")
        assert one.bridge.is_alive(other.name)
        own_redis.go_on()
        await wait_until(lambda: len(other.letters) == 11)
        await wait_until(lambda: one.write(other, "after"))
        await other.wait_letters(12)
        assert other.texts == ["before", *map(str, range(10)), "after"]
        assert (one.lost, other.lost, one.gone) == ([], [], [])


async def test_nobody_is_gone_because_redis_was_away(own_redis: RedisServer) -> None:
    tempo = Tempo(renew_seconds=0.05, expiry_seconds=0.4, undeliverable_seconds=60)
    async with AsyncExitStack() as stack:
        one, other = await open_two(stack, own_redis, tempo)
        await wait_settled(one, other)
        own_redis.hang()
        await trio.sleep(0.6)
        own_redis.go_on()
        await wait_until(lambda: one.written_off and other.written_off)
        await wait_settled(one, other)
        assert (one.gone, other.gone) == ([], [])


async def test_a_redis_that_was_started_anew_knows_us_again_and_both_sides_hear_that_letters_may_be_lost(
    own_redis: RedisServer,
) -> None:
    async with AsyncExitStack() as stack:
        one, other = await open_two(stack, own_redis, QUICK)
        one.bridge._position = other.bridge._position = "9999999999999-0"  # its clock may have been ahead
        own_redis.kill()
        own_redis.start()
        await wait_until(lambda: other.name in one.lost and one.name in other.lost)
        await wait_until(lambda: one.write(other, "after"))
        await wait_until(lambda: other.write(one, "after"))
        await one.wait_letters(2)
        await other.wait_letters(2)
        assert (one.texts, other.texts) == (["before", "after"], ["before", "after"])
        assert (one.gone, other.gone) == ([], [])


async def test_what_is_missing_is_heard_of_and_what_follows_is_read(one: Process, other: Process) -> None:
    one.write(other, "a")
    one.write(other, "b")
    one.bridge._lines.open(other.name).drop()
    one.write(other, "c")
    await other.wait_letters(1)
    assert other.texts == ["c"]
    assert other.lost == [one.name]


async def test_what_cannot_leave_for_too_long_is_given_up(own_redis: RedisServer) -> None:
    tempo = Tempo(renew_seconds=0.05, expiry_seconds=60, undeliverable_seconds=0.2)
    async with AsyncExitStack() as stack:
        one, other = await open_two(stack, own_redis, tempo)
        with redis.Redis.from_url(own_redis.url) as breaker:
            breaker.client_pause(5000, all=False)
            one.write(other, "lost")
            await wait_until(lambda: one.lost == [other.name])
            await trio.sleep(0.3)  # as long as another try
            breaker.client_unpause()
        await wait_until(lambda: one.write(other, "after"))
        await wait_until(lambda: other.texts[-1] == "after")
        assert other.texts.count("lost") <= 1
        assert one.lost == [other.name]


async def test_a_process_that_stood_still_is_gone_and_then_back(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It finds out by itself, and takes for lost what it shared with the others."""
    async with open_process(redis_url) as one, open_process(redis_url) as still:
        one.write(still, "before")
        await still.wait_letters(1)
        await wait_settled(one, still)
        with standing_still(still):
            await wait_until(lambda: one.gone == [still.name] and not list(one.bridge._lines))
            assert not one.write(still, "refused")
        await wait_until(lambda: still.written_off)
        assert still.lost == [one.name]
        await wait_until(lambda: one.write(still, "after"))
        await still.wait_letters(2)
        assert still.texts == ["before", "after"]
        assert "letters of another process are missing" not in caplog.messages


async def test_one_that_was_gone_is_back_with_its_first_letter_and_can_be_answered(redis_url: str) -> None:
    """Though the next reading is a minute away."""
    slow = Tempo(renew_seconds=60, expiry_seconds=120)
    async with open_process(redis_url, slow) as one, open_process(redis_url, slow) as other:
        one.bridge._liveness.note_farewell(other.name)
        assert not one.write(other, "refused")
        other.write(one, "here I am")
        await one.wait_letters(1)
        assert one.write(other, "welcome")
        await other.wait_letters(1)


async def test_who_was_gone_and_says_goodbye_is_not_gone_twice(one: Process, redis_url: str) -> None:
    async with open_process(redis_url, Tempo(renew_seconds=60)) as other:
        joined_at = other.bridge._census_at
        await wait_until(lambda: other.bridge._census_at > joined_at)
        await other.bridge._instances.leave(other.name)
        one.bridge._liveness.note_farewell(other.name)
        one.bridge._note_gone(other.name)
        other.write(one, "last")
        other.bridge.send(one.name, ANN, server.relay.bridge.FAREWELL, server.relay.bridge.Farewell())
        other.write(one, "after")
        await one.wait_letters(2)
        assert one.gone == one.lost == [other.name]


async def test_a_line_that_is_forgotten_goes_on_where_it_ended(
    one: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.relay.line, "MOST_NUMBERS", 1)
    one.write(other, "before")
    await other.wait_letters(1)
    for name in (other.name, "another", "a third"):
        one.bridge.send(name, ANN, "note", Note("lost"))
        one.bridge._liveness.note_farewell(name)
        one.bridge._note_gone(name)
    await wait_until(lambda: not list(one.bridge._lines))
    assert len(one.bridge._lines._numbers) == 1
    one.bridge._liveness._gone.clear()
    one.write(other, "after")
    await wait_until(lambda: other.texts[-1] == "after")


async def test_a_listener_that_fails_does_not_keep_the_next_from_hearing(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(instance: str) -> None:
        raise ValueError(instance)

    async with open_process(redis_url) as one:
        one.bridge._lost.insert(0, fail)
        async with open_process(redis_url) as other:
            await wait_until(lambda: one.bridge._liveness.others)
        await wait_until(lambda: one.lost == [other.name])
        assert any(record.exc_info for record in caplog.records)
