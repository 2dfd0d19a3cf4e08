"""Who is connected, as a process knows it: without asking twice, never out of date, and without those that are gone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from server.relay.roster import KNOWN_SECONDS
from storage.presence import presence_key
from tests.server.presence_house import ANN, DESK
from tests.server.relay.bridges import wait_until
from tests.server.relay.members import BOB, PHONE, build_link, build_member, hold
from tests.server.relay.rosters import Home, open_home
from tests.storage.device_event_log import open_device_event_log


@pytest.fixture
async def home(redis_url: str) -> AsyncIterator[Home]:
    async with open_home(redis_url) as home:
        yield home


async def wait_listed(home: Home, *devices: UUID) -> None:
    with trio.fail_after(10):
        while await home.list() != set(devices):
            await trio.sleep(0.002)


async def test_links_of_all_processes_are_listed(home: Home) -> None:
    phone = build_link(PHONE, "elsewhere", "mobile", fresh_at=7)
    await home.table.enter(ANN, phone)
    await home.enter(build_link(DESK, "here"))
    await wait_listed(home, DESK, PHONE)
    listed = await home.roster.find(ANN, PHONE)
    assert listed is not None
    assert (listed.connection_id, listed.instance, listed.fresh_at) == (phone.connection_id, "elsewhere", 7)
    assert await home.roster.find(BOB, PHONE) is None


async def test_redis_is_asked_once(home: Home) -> None:
    await home.enter(build_link(DESK, "here"))
    await wait_listed(home, DESK)
    home.roster.note_changed(ANN)
    home.reads = 0
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(home.roster.list, ANN)
    for _ in range(50):
        await home.roster.find_primary(ANN)
    assert home.reads == 1


async def test_what_is_remembered_is_answered_without_a_pause(home: Home) -> None:
    await home.enter(build_link(DESK, "here"))
    await trio.testing.wait_all_tasks_blocked(0.01)
    await home.list()
    with trio.testing.assert_no_checkpoints():
        await home.roster.find_primary(ANN)


async def test_every_change_is_seen(home: Home) -> None:
    await home.enter(build_link(DESK, "here"))
    phone = (await home.table.enter(ANN, build_link(PHONE, "elsewhere", "mobile"))).link
    await wait_listed(home, DESK, PHONE)
    await home.table.leave(ANN, PHONE, phone.connection_id)
    await wait_listed(home, DESK)
    await home.table.enter(ANN, build_link(PHONE, "elsewhere", "mobile"))
    await wait_listed(home, DESK, PHONE)
    await home.table.drop(ANN, PHONE)
    await wait_listed(home, DESK)


async def test_who_asks_while_links_change_does_not_hear_what_was_before(home: Home) -> None:
    await home.enter(build_link(DESK, "here"))
    await trio.testing.wait_all_tasks_blocked(0.01)
    home.roster.note_changed(ANN)
    heard: list[set[UUID]] = []

    async def ask() -> None:
        heard.append(await home.list())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await home.table.enter(ANN, build_link(PHONE, "elsewhere", "mobile"))
        home.roster.note_changed(ANN)
        nursery.start_soon(ask)
    assert heard[-1] == {DESK, PHONE}


async def test_one_that_gives_up_reading_leaves_it_to_the_next(home: Home) -> None:
    await home.enter(build_link(DESK, "here"))
    home.roster.note_changed(ANN)
    heard: list[set[UUID]] = []

    async def ask() -> None:
        heard.append(await home.list())

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(ask)
            scope.cancel()
            await home.list()
    assert heard == [{DESK}]


async def test_the_newest_visible_desktop_is_the_primary_one(home: Home) -> None:
    first, second, third = sorted(uuid4() for _ in range(3))
    await home.table.enter(ANN, build_link(PHONE, "here", "mobile", fresh_at=9))
    assert await home.roster.find_primary(ANN) is None
    for device_id, fresh_at, is_visible in ((second, 5, True), (first, 5, True), (third, 6, False)):
        await home.table.enter(ANN, build_link(device_id, "here", fresh_at=fresh_at, is_visible=is_visible))
    primary = await home.roster.find_primary(ANN)
    assert primary is not None
    assert primary.device_id == second


async def test_links_of_processes_that_are_gone_do_not_count(home: Home) -> None:
    await home.enter(build_link(PHONE, "here", "mobile"))
    await home.table.enter(ANN, build_link(DESK, "elsewhere"))
    await wait_listed(home, DESK, PHONE)
    home.neighbours.dead.add("elsewhere")
    assert await home.list() == {PHONE}
    assert await home.roster.find_primary(ANN) is None


@pytest.mark.parametrize("is_known", [True, False])
async def test_while_redis_is_away_those_who_are_here_are_known(home: Home, is_known: bool) -> None:
    await home.table.enter(ANN, build_link(PHONE, "elsewhere", "mobile"))
    desk = await home.enter(build_link(DESK, "here"))
    desk.fresh_at = 12
    await wait_listed(home, DESK, PHONE)
    home.fails, home.neighbours.is_away = True, is_known
    home.roster.note_changed(ANN)
    reads = home.reads
    for _ in range(10):
        assert await home.roster.find_primary(ANN) == replace(desk.held.link, fresh_at=12)
        assert await home.list() == {DESK}
    assert home.reads - reads == (0 if is_known else 1)


async def test_one_whose_link_was_never_entered_is_known_here(home: Home) -> None:
    await home.table.enter(ANN, build_link(PHONE, "elsewhere", "mobile"))
    held = hold(ANN, build_link(DESK, "here"))
    held.has_entered = False
    home.admit(build_member(held))
    assert await home.list() == {DESK, PHONE}


async def test_one_whose_link_is_lost_is_to_enter_it_again(home: Home) -> None:
    """It may have been dropped too: then that is what it finds out."""
    desk = await home.enter(build_link(DESK, "here"))
    await home.house.redis.delete([presence_key(ANN)])
    home.roster.note_changed(ANN)
    assert await home.list() == set()
    assert desk.held.woken.is_set()
    assert desk.held.pulse.seconds_to_wait() <= 3


async def test_nothing_is_remembered_of_those_who_are_not_here(home: Home) -> None:
    await home.table.enter(BOB, build_link(DESK, "elsewhere"))
    await home.list(BOB)
    await home.list(BOB)
    assert home.reads == 2
    member = build_member(hold(BOB, build_link(PHONE, "here", "mobile")))
    with home.hub.admit(member):
        await home.list(BOB)
        await home.list(BOB)
        assert home.reads == 3
    assert home.roster._known == {}


async def test_what_is_remembered_is_read_anew_after_a_while(home: Home) -> None:
    now = [100.0]
    home.roster._clock = lambda: now[0]
    await home.enter(build_link(DESK, "here"))
    await wait_listed(home, DESK)
    await home.list()
    reads = home.reads
    now[0] += KNOWN_SECONDS + 1
    await home.list()
    assert home.reads == reads + 1


async def test_links_of_a_process_that_is_gone_are_ended_and_that_is_told_once(home: Home, redis_url: str) -> None:
    async with open_home(redis_url, "other") as other:
        await home.enter(build_link(PHONE, "here", "mobile"))
        await other.enter(build_link(uuid4(), "other", "mobile"))
        await home.table.enter(ANN, build_link(DESK, "dead"))
        await home.table.enter(BOB, build_link(DESK, "dead"))
        with open_device_event_log(redis_url) as log:
            home.neighbours.kill("dead")
            other.neighbours.kill("dead")
            await wait_until(lambda: not home.roster._gone and not other.roster._gone)
            assert log.read() == [
                (ANN, "device-status", {"deviceId": str(DESK), "status": "disconnected", "reason": "ws_closed"})
            ]
    assert home.house.history.devices + other.house.history.devices == [(ANN, DESK)]
    assert DESK not in await home.table.list(ANN)
    assert DESK in await home.table.list(BOB)


async def test_a_device_that_is_back_elsewhere_keeps_its_link(home: Home) -> None:
    await home.enter(build_link(PHONE, "here", "mobile"))
    await home.table.enter(ANN, build_link(DESK, "dead"))
    await home.table.enter(ANN, build_link(DESK, "other"))
    home.neighbours.kill("dead")
    await wait_until(lambda: not home.roster._gone)
    assert DESK in await home.table.list(ANN)


async def test_links_are_ended_when_redis_is_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.roster.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("server.relay.roster.AWAY_SECONDS", 0.01)
    await home.enter(build_link(PHONE, "here", "mobile"))
    await home.table.enter(ANN, build_link(DESK, "dead"))
    home.fails = True
    home.roster.note_changed(ANN)
    reads = home.reads
    home.neighbours.kill("dead")
    await wait_until(lambda: home.reads > reads + 1)
    assert DESK in await home.table.list(ANN)
    home.fails = False
    await wait_until(lambda: not home.roster._gone)
    assert DESK not in await home.table.list(ANN)


async def test_one_that_was_thought_gone_and_is_back_keeps_its_links(home: Home) -> None:
    await home.enter(build_link(PHONE, "here", "mobile"))
    await home.table.enter(ANN, build_link(DESK, "slow"))
    home.neighbours.kill("slow")
    home.neighbours.dead.clear()
    await wait_until(lambda: not home.roster._gone)
    assert DESK in await home.table.list(ANN)


async def test_who_was_written_off_enters_its_links_again(home: Home) -> None:
    desk = await home.enter(build_link(DESK, "here"))
    for listener in home.neighbours.written_off:
        listener()
    assert desk.held.woken.is_set()
