"""Which processes live, on a real Redis."""


import pytest
import redis
import trio

from storage.redis import Redis
from storage.relay_instances import Census, RelayInstances, instances_key

SHORT_SECONDS = 0.04


@pytest.fixture
def instances(client: Redis) -> RelayInstances:
    return RelayInstances(client)


async def test_who_renews_lives_and_knows_who_else_does(instances: RelayInstances) -> None:
    assert await instances.renew("one") == Census(None, {"one": 10})
    living = (await instances.renew("other")).living
    assert living == {"one": pytest.approx(10, abs=5), "other": 10}
    assert living["one"] <= 10
    again = await instances.renew("one")
    assert again.left_seconds is not None
    assert 5 < again.left_seconds <= 10


async def test_who_has_left_is_gone_at_once(instances: RelayInstances) -> None:
    await instances.renew("one")
    await instances.leave("one")
    await instances.leave("one")
    assert await instances.renew("other") == Census(None, {"other": 10})


async def test_who_does_not_renew_is_gone_and_hears_of_it_when_it_is_back(client: Redis) -> None:
    instances, hasty = RelayInstances(client), RelayInstances(client, SHORT_SECONDS)
    await hasty.renew("one")
    await trio.sleep(SHORT_SECONDS + 0.005)
    assert set((await instances.renew("other")).living) == {"other"}
    again = await hasty.renew("one")
    assert again.left_seconds is not None
    assert -5 < again.left_seconds < 0
    assert set(again.living) == {"one", "other"}


async def test_the_set_does_not_grow_and_expires(client: Redis, redis_url: str) -> None:
    hasty = RelayInstances(client, expiry_seconds=0.001)
    for name in range(20):
        await hasty.renew(str(name))
    await trio.sleep(0.03)
    with redis.Redis.from_url(redis_url) as looker:
        assert looker.exists(instances_key()) == 0
        await hasty.renew("last")
        assert looker.pttl(instances_key()) > 0
        assert await client.zcard(instances_key()) == 1
