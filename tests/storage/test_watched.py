"""Who is watched, on a real Redis: known to all processes, and for a while after the last watcher has gone."""

from uuid import uuid4

import trio

from storage.redis import Redis
from storage.watched import WatchedUsers, watched_key

ANN, BOB, CID = uuid4(), uuid4(), uuid4()


async def test_those_are_found_that_are_watched_and_were_asked_for(client: Redis) -> None:
    watched = WatchedUsers(client)
    await watched.renew([ANN, BOB])
    assert await watched.find([CID, BOB]) == {BOB}
    assert await watched.find([CID]) == set()
    assert await watched.find([]) == set()


async def test_nobody_is_watched_in_an_empty_redis(client: Redis) -> None:
    assert await WatchedUsers(client).find([ANN]) == set()


async def test_who_is_not_renewed_is_watched_no_more_and_leaves_nothing(client: Redis) -> None:
    await WatchedUsers(client, seconds=0.001).renew([ANN])
    await WatchedUsers(client).renew([BOB])
    await trio.sleep(0.003)
    assert await WatchedUsers(client).find([ANN, BOB]) == {BOB}
    await WatchedUsers(client).renew([BOB])
    assert await client.zrange(watched_key(), 0, -1) == (str(BOB).encode(),)


async def test_thousands_are_looked_for_at_once(client: Redis) -> None:
    many = [uuid4() for _ in range(5000)]
    watched = WatchedUsers(client)
    await watched.renew(many[:3000])
    assert await watched.find(many) == set(many[:3000])
