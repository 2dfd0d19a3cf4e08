"""Keys kept fresh, on a clock that jumps: how often the issuer is asked, whatever the tokens are."""

import logging
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from server.auth.issuer_documents import Endpoints, Published
from server.auth.issuer_keys import (
    FRESH_SECONDS,
    LOOK_AGAIN_SECONDS,
    MAX_UNKNOWN,
    PAUSE_SECONDS,
    RETRY_SECONDS,
    WAIT_SECONDS,
    IssuerKeys,
)
from server.errors import IssuerUnavailable, NotAuthenticated
from tests.fake_issuer import build_key

ENDPOINTS = Endpoints("a", "t", "k", "u", "r")


class Issuer:
    """Publishes the keys of `names`, `seconds` after it was asked; or is away, or never answers."""

    def __init__(self, *names: str, seconds: float = 0) -> None:
        self.names = names
        self.seconds = seconds
        self.is_away = False
        self.asked = 0

    async def fetch(self) -> Published:
        self.asked += 1
        await trio.sleep(self.seconds)
        if self.is_away:
            raise IssuerUnavailable("away")
        return Published(ENDPOINTS, {name: build_key(name).public_key() for name in self.names})


async def is_found(keys: IssuerKeys, name: str) -> bool | None:
    """None if nothing can be said of the key."""
    try:
        await keys.find(name)
    except NotAuthenticated:
        return False
    except IssuerUnavailable:
        return None
    return True


async def find_all(keys: IssuerKeys, names: list[str]) -> list[bool | None]:
    found: dict[str, bool | None] = {}

    async def find(name: str) -> None:
        found[name] = await is_found(keys, name)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(find, name)
    return [found[name] for name in names]


async def test_the_issuer_is_asked_once_and_then_remembered(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    assert [await is_found(keys, "one") for _ in range(3)] == [True] * 3
    assert (await keys.read()).endpoints is ENDPOINTS
    assert issuer.asked == 1


async def test_many_who_come_at_once_ask_once(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one", seconds=1)
    keys = IssuerKeys(issuer.fetch)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(keys.find, "one")
    assert issuer.asked == 1


async def test_many_who_come_at_once_fail_at_once(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer(seconds=5)
    issuer.is_away = True
    started = trio.current_time()
    assert await find_all(IssuerKeys(issuer.fetch), [str(n) for n in range(100)]) == [None] * 100
    assert trio.current_time() - started == 5
    assert issuer.asked == 1


async def test_nobody_asks_for_a_moment_after_a_failure(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    issuer.is_away = True
    keys = IssuerKeys(issuer.fetch)
    assert [await is_found(keys, "one") for _ in range(5)] == [None] * 5
    assert issuer.asked == 1
    issuer.is_away = False
    await trio.sleep(PAUSE_SECONDS)
    assert await is_found(keys, "one")


async def test_whoever_leaves_hands_the_question_to_the_next(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one", seconds=3)
    keys = IssuerKeys(issuer.fetch)
    async with trio.open_nursery() as others, trio.open_nursery() as first:
        first.start_soon(keys.find, "one")
        await trio.testing.wait_all_tasks_blocked()
        others.start_soon(keys.find, "one")
        await trio.sleep(1)
        first.cancel_scope.cancel()
    assert issuer.asked == 2
    assert await is_found(keys, "one")
    assert issuer.asked == 2


async def test_whoever_waits_for_others_waits_no_longer_than_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each who asks leaves before there is an answer, and the next one asks anew."""
    keys = IssuerKeys(Issuer("one", seconds=4).fetch)

    async def ask_and_leave(after_seconds: float) -> None:
        with trio.move_on_after(after_seconds):
            await keys.find("one")

    async with trio.open_nursery() as nursery:
        for after_seconds in (3, 6):
            nursery.start_soon(ask_and_leave, after_seconds)
            await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        assert await is_found(keys, "one") is None
        assert trio.current_time() - started == WAIT_SECONDS


async def test_a_new_key_is_found_without_waiting_for_the_next_refresh(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    await keys.read()
    issuer.names = ("two",)
    await trio.sleep(LOOK_AGAIN_SECONDS)
    assert await find_all(keys, ["two", "invented"]) == [True, False]
    assert issuer.asked == 2


async def test_an_unknown_key_is_refused_if_the_issuer_was_asked_since(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    assert await is_found(keys, "invented") is False
    assert issuer.asked == 1


async def test_an_unknown_key_may_be_new_while_the_issuer_may_not_be_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    await keys.read()
    await trio.sleep(1)
    issuer.names = ("one", "two")
    assert await is_found(keys, "two") is None
    await trio.sleep(LOOK_AGAIN_SECONDS)
    assert await is_found(keys, "two") is True


async def test_who_comes_while_others_ask_waits_with_them(autojump_clock: trio.testing.MockClock) -> None:
    """Of a key that is not there either nothing can be said: the answer under way may be older than the key."""
    issuer = Issuer("one", seconds=1)
    keys = IssuerKeys(issuer.fetch)
    await keys.read()
    await trio.sleep(LOOK_AGAIN_SECONDS)
    issuer.names = ("one", "two", "three")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.find, "two")
        await trio.sleep(0.5)
        assert await find_all(keys, ["three", "four"]) == [True, None]
    assert issuer.asked == 2


async def test_each_unknown_key_is_looked_for_once(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    assert await is_found(keys, "invented") is False
    for _ in range(10):
        await trio.sleep(LOOK_AGAIN_SECONDS)
        assert await is_found(keys, "invented") is False
    assert issuer.asked == 1


async def test_a_key_that_was_unknown_is_found_once_it_is_published(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    assert await is_found(keys, "two") is False
    issuer.names = ("two",)
    await run_for(keys.keep_fresh, 1)
    assert await is_found(keys, "two") is True


async def test_a_storm_of_invented_keys_costs_the_issuer_a_question_in_ten_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    issuer = Issuer("one", seconds=0.1)
    keys = IssuerKeys(issuer.fetch)
    await keys.read()
    for n in range(300):
        await trio.sleep(0.1)
        assert True not in await find_all(keys, [f"invented {n} {m}" for m in range(10)])
        assert await is_found(keys, "one")
    assert 3 <= issuer.asked <= 5


async def test_a_new_key_is_found_in_the_middle_of_a_storm(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody is told that the new key does not hold: at worst that nothing can be said for some seconds."""
    issuer = Issuer("one", seconds=0.1)
    keys = IssuerKeys(issuer.fetch)
    await keys.read()
    issuer.names = ("one", "two")
    told = []
    for n in range(12):
        await trio.sleep(1)
        told += (await find_all(keys, [f"invented {n}", "two"]))[1:]
    assert False not in told
    assert told[-1] is True


async def test_what_is_remembered_of_unknown_keys_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    keys = IssuerKeys(Issuer("one", seconds=1).fetch)
    assert True not in await find_all(keys, [f"invented {n}" for n in range(MAX_UNKNOWN + 100)])
    assert len(keys._unknown) == MAX_UNKNOWN


async def test_an_outage_keeps_the_keys_that_are_known(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    await keys.read()
    issuer.is_away = True
    await run_for(keys.keep_fresh, 3600)
    assert await is_found(keys, "one") is True
    assert await is_found(keys, "two") is None


async def test_keys_are_asked_for_again_every_five_minutes(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one")
    keys = IssuerKeys(issuer.fetch)
    await run_for(keys.keep_fresh, 12 * FRESH_SECONDS + 1)
    assert issuer.asked == 13


async def test_a_key_that_is_withdrawn_counts_no_more(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Issuer("one", "two")
    keys = IssuerKeys(issuer.fetch)
    assert await is_found(keys, "two")
    issuer.names = ("one",)
    await run_for(keys.keep_fresh, 1)
    assert not await is_found(keys, "two")


async def test_a_failed_refresh_is_tried_again_sooner_and_told_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issuer = Issuer("one")
    issuer.is_away = True
    keys = IssuerKeys(issuer.fetch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.keep_fresh)
        await trio.sleep(10 * RETRY_SECONDS + 1)
        assert issuer.asked == 11
        issuer.is_away = False
        await trio.sleep(RETRY_SECONDS)
        nursery.cancel_scope.cancel()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert not any(record.exc_info for record in caplog.records), "an issuer that is away is no fault of ours"


async def run_for(loop: Callable[[], Awaitable[None]], seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()

