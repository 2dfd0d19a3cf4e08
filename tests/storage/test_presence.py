"""The table of links on a real Redis: who is connected, who is fenced out, and that every end is told once."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import redis
import trio

from storage.presence import MAX_KNOWN, Expired, Gone, Link, PresenceTable, due_key, presence_key, since_key
from storage.redis import Redis
from tests.storage.device_event_log import DeviceEventLog, open_device_event_log

ANN = uuid4()
BOB = uuid4()
DESK = uuid4()
PHONE = uuid4()


@pytest.fixture
def table(client: Redis) -> PresenceTable:
    return PresenceTable(client)


@pytest.fixture
def fleeting(client: Redis) -> PresenceTable:
    """Its links are over at once: the next to look finds them expired."""
    return PresenceTable(client, ttl_seconds=0.001)


@pytest.fixture
def log(redis_url: str) -> Iterator[DeviceEventLog]:
    with open_device_event_log(redis_url) as log:
        yield log


def build_link(device_id: UUID = DESK, *, is_visible: bool = True, name: str = "Studio") -> Link:
    return Link(device_id, uuid4(), "here:1", "desktop", name, is_visible)


async def wait_a_moment() -> None:
    """Until a fleeting link is over, by a clock of milliseconds."""
    await trio.sleep(0.003)


async def test_a_link_is_listed_as_it_was_entered(table: PresenceTable) -> None:
    link = build_link(name='Ännchens "Mac" \\ 💻')
    entered = await table.enter(ANN, link)
    assert (entered.replaced, entered.away_seconds) == (None, None)
    [listed] = (await table.list(ANN)).values()
    assert listed == replace(link, connected_at=entered.link.connected_at, last_seen_at=listed.last_seen_at)
    assert abs(entered.link.connected_at / 1000 - datetime.now(UTC).timestamp()) < 60
    assert await table.list(BOB) == {}


async def test_a_newer_connection_replaces_the_older_one_and_nobody_hears_of_it(
    table: PresenceTable, log: DeviceEventLog
) -> None:
    older, newer = build_link(), build_link(name="New name")
    first = await table.enter(ANN, older)
    second = await table.enter(ANN, newer)
    assert second.replaced is not None
    assert second.replaced.connection_id == older.connection_id
    assert second.replaced.connected_at == first.link.connected_at
    assert second.away_seconds == 0
    assert (await table.list(ANN))[DESK].device_name == "New name"
    assert log.statuses() == [(DESK, "online")]


async def test_a_repeated_entry_replaces_nothing(table: PresenceTable, log: DeviceEventLog) -> None:
    link = build_link()
    first = await table.enter(ANN, link)
    await trio.sleep(0.005)
    again = await table.resume(ANN, link, 1)
    assert again.replaced is None
    assert again.link.connected_at == first.link.connected_at
    assert log.statuses() == [(DESK, "online")]


async def test_a_replaced_connection_is_fenced_out(table: PresenceTable, log: DeviceEventLog) -> None:
    older, newer = (await table.enter(ANN, build_link())).link, build_link()
    await table.enter(ANN, newer)
    log.read()
    assert await table.touch(ANN, older) == "replaced"
    assert (await table.resume(ANN, older, 1)).standing == "replaced"
    assert not await table.set_visible(ANN, DESK, older.connection_id, is_visible=False)
    assert not await table.leave(ANN, DESK, older.connection_id)
    assert (await table.list(ANN))[DESK].connection_id == newer.connection_id
    assert log.read() == []


async def test_it_stays_fenced_out_when_the_newer_one_has_left(table: PresenceTable) -> None:
    older = (await table.enter(ANN, build_link())).link
    newer = (await table.enter(ANN, build_link())).link
    assert await table.leave(ANN, DESK, newer.connection_id)
    assert await table.touch(ANN, older) == "replaced"
    assert (await table.resume(ANN, older, 1)).standing == "replaced"
    assert (await table.resume(ANN, newer, 1)).standing == "replaced"
    assert await table.list(ANN) == {}


async def test_leaving_is_told_once_and_why(table: PresenceTable, log: DeviceEventLog) -> None:
    link = build_link()
    await table.enter(ANN, link)
    log.read()
    assert await table.leave(ANN, DESK, link.connection_id)
    assert not await table.leave(ANN, DESK, link.connection_id)
    payload = {"deviceId": str(DESK), "status": "disconnected", "reason": "ws_closed"}
    assert log.read() == [(ANN, "device-status", payload)]


async def test_a_touch_keeps_a_link_alive_beyond_its_time(table: PresenceTable, fleeting: PresenceTable) -> None:
    link = build_link()
    await fleeting.enter(ANN, link)
    await wait_a_moment()
    assert await table.touch(ANN, link) == "kept"
    assert (await table.expire(10)).gone == []
    assert DESK in await table.list(ANN)


async def test_a_link_that_nobody_touches_is_not_listed_and_expires_once(
    fleeting: PresenceTable, log: DeviceEventLog
) -> None:
    link = build_link()
    entered = await fleeting.enter(ANN, link)
    await wait_a_moment()
    assert await fleeting.list(ANN) == {}
    at = entered.link.connected_at
    assert await fleeting.expire(10) == Expired([Gone(ANN, replace(entered.link, last_seen_at=at))], is_all=True)
    assert await fleeting.expire(10) == Expired([], is_all=True)
    assert log.statuses() == [(DESK, "online"), (DESK, "offline")]


async def test_a_link_that_was_refreshed_is_looked_at_again_when_it_is_due(
    client: Redis, table: PresenceTable, fleeting: PresenceTable
) -> None:
    """The index is not told of refreshes: the sweep finds out."""
    link = build_link()
    await fleeting.enter(ANN, link)
    await table.touch(ANN, link)
    await wait_a_moment()
    assert (await table.expire(10)).gone == []
    [(member, due)] = await client.zrange(due_key(), 0, -1, withscores=True)
    assert abs(due / 1000 - datetime.now(UTC).timestamp() - 90) < 20
    assert str(link.connection_id).encode() in member


async def test_the_index_forgets_links_that_have_ended(client: Redis, fleeting: PresenceTable) -> None:
    left, replaced = build_link(PHONE), build_link()
    await fleeting.enter(ANN, left)
    await fleeting.leave(ANN, PHONE, left.connection_id)
    await fleeting.enter(ANN, replaced)
    await PresenceTable(client).enter(ANN, build_link())
    await wait_a_moment()
    assert (await fleeting.expire(10)).gone == []
    assert await client.zcard(due_key()) == 1


async def test_the_index_lasts_while_links_do_though_none_is_entered_for_days(
    client: Redis, fleeting: PresenceTable
) -> None:
    await fleeting.enter(ANN, build_link())
    await client.pexpire(due_key(), 1000)
    await wait_a_moment()
    await fleeting.expire(0)
    assert await client.pttl(due_key()) > 1000


async def test_a_link_that_is_entered_while_a_sweep_looks_stays_in_the_index(
    client: Redis, fleeting: PresenceTable, table: PresenceTable
) -> None:
    link = build_link()
    await fleeting.enter(ANN, link)
    await wait_a_moment()
    claim, due = await fleeting._claim_due(10)
    await table.enter(ANN, link)
    await table.drop(ANN, DESK)
    await fleeting._expire(ANN, due, claim)
    assert await client.zcard(due_key()) == 1


async def test_an_expired_link_may_be_resumed_by_its_own_connection(
    table: PresenceTable, fleeting: PresenceTable, log: DeviceEventLog
) -> None:
    entered = await fleeting.enter(ANN, build_link())
    await wait_a_moment()
    await fleeting.expire(10)
    assert await table.touch(ANN, entered.link) == "lost"
    assert (await table.resume(ANN, entered.link, 1)).standing == "kept"
    assert (await table.list(ANN))[DESK].connected_at == entered.link.connected_at
    assert log.statuses() == [(DESK, "online"), (DESK, "offline"), (DESK, "online")]


async def test_a_link_may_be_resumed_that_redis_has_forgotten(
    table: PresenceTable, client: Redis, log: DeviceEventLog
) -> None:
    entered = await table.enter(ANN, build_link())
    await client.flushall()
    assert await table.touch(ANN, entered.link) == "lost"
    assert (await table.resume(ANN, entered.link, 1)).standing == "kept"
    assert (await table.list(ANN))[DESK].connection_id == entered.link.connection_id
    assert await client.zcard(due_key()) == 1


async def test_of_connections_that_resume_the_newest_has_the_link_whichever_comes_first(
    table: PresenceTable, client: Redis
) -> None:
    """Redis has forgotten which of them was fenced out."""
    older = (await table.enter(ANN, build_link())).link
    newer = (await table.enter(ANN, build_link())).link
    for first, other in ((older, newer), (newer, older)):
        await client.flushall()
        await table.resume(ANN, first, 1)
        if await table.touch(ANN, other) == "lost":
            await table.resume(ANN, other, 1)
        assert await table.touch(ANN, newer) == "kept"
        assert await table.touch(ANN, older) == "replaced"


async def test_a_connection_that_enters_late_does_not_replace_a_newer_one(table: PresenceTable) -> None:
    newer = (await table.enter(ANN, build_link())).link
    late = await table.resume(ANN, build_link(), 1)
    assert (late.standing, late.replaced) == ("replaced", None)
    assert await table.touch(ANN, newer) == "kept"
    await trio.sleep(0.05)
    later = await table.resume(ANN, build_link(), 0.02)
    assert later.replaced is not None
    assert later.replaced.connection_id == newer.connection_id


async def test_the_newest_connection_has_the_link_though_the_clock_went_back(table: PresenceTable) -> None:
    older = replace(build_link(), connected_at=2**42)
    await table.resume(ANN, older, 1)
    newer = (await table.enter(ANN, build_link())).link
    assert await table.touch(ANN, older) == "replaced"
    assert await table.touch(ANN, newer) == "kept"


async def test_a_device_that_was_dropped_has_no_link_until_it_connects_anew(
    table: PresenceTable, log: DeviceEventLog
) -> None:
    link = build_link()
    await table.enter(ANN, link)
    assert await table.drop(ANN, DESK)
    assert not await table.drop(ANN, DESK)
    assert await table.list(ANN) == {}
    assert await table.touch(ANN, link) == "dropped"
    assert (await table.resume(ANN, link, 1)).standing == "dropped"
    await table.enter(ANN, build_link())
    assert log.statuses() == [(DESK, "online"), (DESK, "offline"), (DESK, "online")]


async def test_a_device_that_was_dropped_while_its_link_had_expired_may_not_be_resumed(
    table: PresenceTable, fleeting: PresenceTable
) -> None:
    link = build_link()
    await fleeting.enter(ANN, link)
    await wait_a_moment()
    await fleeting.expire(10)
    await table.drop(ANN, DESK)
    assert (await table.resume(ANN, link, 1)).standing == "dropped"


async def test_nobody_drops_anothers_device(table: PresenceTable) -> None:
    await table.enter(ANN, build_link())
    assert not await table.drop(BOB, DESK)
    assert DESK in await table.list(ANN)


async def test_visibility_is_told_where_it_changes(table: PresenceTable, log: DeviceEventLog) -> None:
    link = build_link(is_visible=False)
    await table.enter(ANN, link)
    for is_visible in (False, True, True, False):
        assert await table.set_visible(ANN, DESK, link.connection_id, is_visible=is_visible)
    assert not (await table.list(ANN))[DESK].is_visible
    assert await table.leave(ANN, DESK, link.connection_id)
    assert log.statuses() == [(DESK, "online"), (DESK, "offline")]


async def test_a_replacement_that_is_not_visible_is_told_as_offline(table: PresenceTable, log: DeviceEventLog) -> None:
    await table.enter(ANN, build_link())
    await table.enter(ANN, build_link(is_visible=False))
    await table.enter(ANN, build_link())
    assert log.statuses() == [(DESK, "online"), (DESK, "offline"), (DESK, "online")]


async def test_a_device_that_comes_back_before_the_sweep_was_offline_too(
    table: PresenceTable, fleeting: PresenceTable, log: DeviceEventLog
) -> None:
    """Whoever listed it meanwhile saw that it was gone, and has to hear that it is back."""
    await fleeting.enter(ANN, build_link())
    await wait_a_moment()
    entered = await table.enter(ANN, build_link())
    assert entered.replaced is None
    assert entered.away_seconds is not None
    assert 0.001 <= entered.away_seconds < 5
    assert (await table.expire(10)).gone == []
    assert log.statuses() == [(DESK, "online"), (DESK, "offline"), (DESK, "online")]


async def test_how_long_a_device_was_away_is_known(table: PresenceTable) -> None:
    link = build_link()
    await table.enter(ANN, link)
    await table.leave(ANN, DESK, link.connection_id)
    await trio.sleep(0.05)
    entered = await table.enter(ANN, build_link())
    assert entered.away_seconds is not None
    assert 0.05 <= entered.away_seconds < 5
    assert (await table.enter(ANN, build_link(PHONE))).away_seconds is None


async def test_links_of_many_users_expire_in_batches(fleeting: PresenceTable) -> None:
    users = [uuid4() for _ in range(5)]
    for user_id in users:
        await fleeting.enter(user_id, build_link())
        await fleeting.enter(user_id, build_link(PHONE))
    await wait_a_moment()
    batches = [await fleeting.expire(4) for _ in range(3)]
    assert [len(batch.gone) for batch in batches] == [4, 4, 2]
    assert [batch.is_all for batch in batches] == [False, False, True]
    everyone = {(one.user_id, one.link.device_id) for batch in batches for one in batch.gone}
    assert everyone == {(user_id, device_id) for user_id in users for device_id in (DESK, PHONE)}


async def test_a_device_without_a_link_is_told_as_silent(table: PresenceTable, log: DeviceEventLog) -> None:
    assert await table.tell_silent(ANN, DESK, datetime.now(UTC))
    assert log.read() == [(ANN, "device-status", {"deviceId": str(DESK), "status": "offline"})]


async def test_a_linked_device_is_not_told_as_silent(table: PresenceTable, log: DeviceEventLog) -> None:
    await table.enter(ANN, build_link())
    assert not await table.tell_silent(ANN, DESK, datetime.now(UTC) - timedelta(hours=1))
    assert log.statuses() == [(DESK, "online")]


async def test_the_end_of_a_link_is_not_told_a_second_time(table: PresenceTable, log: DeviceEventLog) -> None:
    link = build_link()
    await table.enter(ANN, link)
    await table.leave(ANN, DESK, link.connection_id)
    log.read()
    assert not await table.tell_silent(ANN, DESK, datetime.now(UTC) - timedelta(minutes=1))
    assert await table.tell_silent(ANN, DESK, datetime.now(UTC) + timedelta(minutes=1))
    assert log.statuses() == [(DESK, "offline")]


async def test_redis_is_settled_when_it_has_known_links_for_a_while(client: Redis) -> None:
    table = PresenceTable(client, ttl_seconds=0.05)
    assert not await table.is_settled()
    await trio.sleep(0.06)
    assert await table.is_settled()
    await client.flushall()
    assert not await table.is_settled()


async def test_one_of_many_announces(table: PresenceTable) -> None:
    assert [await table.claim_announcement(ANN, DESK, 60) for _ in range(3)] == [True, False, False]
    assert await table.claim_announcement(ANN, PHONE, 60)
    assert await table.claim_announcement(BOB, DESK, 60)


async def test_every_key_expires_and_those_of_a_user_share_a_hash_tag(table: PresenceTable, redis_url: str) -> None:
    await table.enter(ANN, build_link())
    await table.claim_announcement(ANN, DESK, 60)
    await table.is_settled()
    with redis.Redis.from_url(redis_url) as looker:
        keys = {key.decode() for key in looker.keys("*")}
        assert all(looker.pttl(key) > 0 for key in keys)
    assert keys - {due_key(), since_key()} == {presence_key(ANN), f"{{{ANN}}}:announced:{DESK}"}


async def test_of_devices_that_come_and_go_the_newest_are_remembered(table: PresenceTable, client: Redis) -> None:
    stays = build_link()
    await table.enter(ANN, stays)
    for _ in range(MAX_KNOWN + 20):
        passing = build_link(uuid4())
        await table.enter(ANN, passing)
        await table.leave(ANN, passing.device_id, passing.connection_id)
    assert await client.hlen(presence_key(ANN)) == MAX_KNOWN
    assert DESK in await table.list(ANN)
    again = await table.enter(ANN, build_link(passing.device_id))
    assert again.away_seconds is not None
