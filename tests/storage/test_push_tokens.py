"""Push tokens: each of one device, each device of one user, and whoever brought a token last has it."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import trio

from storage.accounts import Accounts
from storage.credits import UserUnknown
from storage.notifications import NewNotification, Notifications
from storage.postgres import Database, open_database
from storage.push_tokens import MAX_TOKENS, PushPlatform, PushTokens, remove_push_token
from tests.storage.people import Query, open_query

PHONE, TABLET, WATCH = UUID(int=1), UUID(int=2), UUID(int=3)
IOS: tuple[PushPlatform, ...] = ("ios",)
TOKENS = "SELECT user_id, device_id, platform, token, environment FROM push_tokens ORDER BY token"
MESSAGE = NewNotification("test", None, "Title", "Body", {}, is_silent=False, deliver_within_seconds=60)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=8) as database:
            yield database


@pytest.fixture
def tokens(database: Database) -> PushTokens:
    return PushTokens(database)


@pytest.fixture
async def ann(database: Database) -> UUID:
    return (await Accounts(database).make_user("ann@example.com")).id


@pytest.fixture
async def bob(database: Database) -> UUID:
    return (await Accounts(database).make_user("bob@example.com")).id


async def wait_until_so_many_wait(query: Query, count: int) -> None:
    """For locks, anywhere in the cluster."""
    with trio.fail_after(5):
        while query("SELECT count(*) FROM pg_locks WHERE NOT granted") != [(count,)]:
            await trio.sleep(0.01)


async def test_a_token_is_kept_with_a_device_that_is_listed_nowhere(
    tokens: PushTokens, ann: UUID, query: Query
) -> None:
    assert await tokens.save(ann, PHONE, "ios", "aa", "sandbox")
    assert query(TOKENS) == [(ann, PHONE, "ios", "aa", "sandbox")]
    assert query("SELECT device_name, device_type, platform, registered_at FROM devices") == [
        ("Mobile Device", "mobile", "ios", None)
    ]


async def test_the_same_token_again_is_the_same_row_brought_later(tokens: PushTokens, ann: UUID, query: Query) -> None:
    await tokens.save(ann, PHONE, "ios", "aa", "sandbox")
    ((token_id, earlier),) = query("SELECT id, registered_at FROM push_tokens")
    await tokens.save(ann, PHONE, "ios", "aa")
    ((same_id, later),) = query("SELECT id, registered_at FROM push_tokens")
    assert same_id == token_id
    assert later > earlier
    assert query(TOKENS) == [(ann, PHONE, "ios", "aa", "sandbox")]
    await tokens.save(ann, PHONE, "ios", "aa", "production")
    assert query(TOKENS) == [(ann, PHONE, "ios", "aa", "production")]


async def test_a_device_has_its_newest_token_alone(tokens: PushTokens, ann: UUID, query: Query) -> None:
    await tokens.save(ann, PHONE, "ios", "aa")
    await tokens.save(ann, TABLET, "ios", "bb")
    await tokens.save(ann, PHONE, "android", "cc")
    assert query(TOKENS) == [(ann, TABLET, "ios", "bb", None), (ann, PHONE, "android", "cc", None)]


async def test_two_phones_that_change_tokens_have_each_the_others(tokens: PushTokens, ann: UUID, query: Query) -> None:
    await tokens.save(ann, PHONE, "ios", "aa")
    await tokens.save(ann, TABLET, "ios", "bb")
    await tokens.save(ann, PHONE, "ios", "bb")
    assert query(TOKENS) == [(ann, PHONE, "ios", "bb", None)]
    await tokens.save(ann, TABLET, "ios", "aa")
    assert query(TOKENS) == [(ann, TABLET, "ios", "aa", None), (ann, PHONE, "ios", "bb", None)]


async def test_what_was_on_its_way_to_the_former_owner_goes_with_the_token(
    tokens: PushTokens, ann: UUID, bob: UUID, query: Query
) -> None:
    await tokens.save(ann, PHONE, "ios", "aa")
    await Notifications(tokens.database).store(ann, MESSAGE, IOS)
    await tokens.save(bob, PHONE, "ios", "aa")
    assert query(TOKENS) == [(bob, PHONE, "ios", "aa", None)]
    assert query("SELECT 1 FROM notification_deliveries") == []
    assert (await Notifications(tokens.database).store(ann, MESSAGE, IOS)).deliveries == 0


async def test_a_token_that_comes_again_keeps_what_is_on_its_way(tokens: PushTokens, ann: UUID, query: Query) -> None:
    await tokens.save(ann, PHONE, "ios", "aa")
    await Notifications(tokens.database).store(ann, MESSAGE, IOS)
    await tokens.save(ann, PHONE, "ios", "aa")
    assert query("SELECT user_id FROM notification_deliveries") == [(ann,)]


async def test_the_same_text_on_another_platform_is_another_token(
    tokens: PushTokens, ann: UUID, bob: UUID, query: Query
) -> None:
    await tokens.save(ann, PHONE, "ios", "aa")
    await tokens.save(bob, PHONE, "android", "aa")
    assert len(query(TOKENS)) == 2


async def test_a_device_that_is_not_known_is_made_only_if_it_may_be(
    tokens: PushTokens, ann: UUID, bob: UUID, query: Query
) -> None:
    await tokens.save(ann, PHONE, "ios", "aa")
    assert not await tokens.save(bob, PHONE, "ios", "aa", makes_device=False)
    assert query(TOKENS) == [(ann, PHONE, "ios", "aa", None)]
    assert query("SELECT user_id FROM devices") == [(ann,)]
    assert await tokens.save(ann, PHONE, "ios", "bb", makes_device=False)
    assert query(TOKENS) == [(ann, PHONE, "ios", "bb", None)]


async def test_a_registered_device_stays_what_it_said(tokens: PushTokens, ann: UUID, query: Query) -> None:
    query(
        "INSERT INTO devices (user_id, device_id, device_name, device_type, platform, registered_at)"
        " VALUES (%s, %s, 'Studio', 'desktop', 'macos', now())",
        *(ann, PHONE),
    )
    await tokens.save(ann, PHONE, "ios", "aa")
    assert query("SELECT device_name, device_type, platform FROM devices") == [("Studio", "desktop", "macos")]


async def test_the_platform_of_a_device_is_told_to_its_user_alone(tokens: PushTokens, ann: UUID, bob: UUID) -> None:
    await tokens.save(ann, PHONE, "android", "aa")
    assert await tokens.find_device_platform(ann, PHONE) == "android"
    assert await tokens.find_device_platform(bob, PHONE) is None
    assert await tokens.find_device_platform(ann, TABLET) is None


async def test_of_very_many_devices_those_that_came_last_have_tokens(
    tokens: PushTokens, ann: UUID, bob: UUID, query: Query
) -> None:
    await tokens.save(bob, PHONE, "ios", "bob")
    query(
        "INSERT INTO devices (user_id, device_id, device_type, platform, updated_at)"
        " SELECT %s, gen_random_uuid(), 'mobile', 'ios', now() - interval '1 day' FROM generate_series(1, %s)",
        *(ann, MAX_TOKENS + 1),
    )
    query(
        "INSERT INTO push_tokens (user_id, device_id, platform, token, registered_at)"
        " SELECT user_id, device_id, 'ios', number, now() - make_interval(hours => number::int)"
        " FROM (SELECT *, row_number() OVER () AS number FROM devices WHERE user_id = %s) AS devices",
        ann,
    )
    await tokens.save(ann, PHONE, "ios", "new")
    kept = {token for (token,) in query("SELECT token FROM push_tokens WHERE user_id = %s", ann)}
    assert kept == {"new"} | {str(number) for number in range(1, MAX_TOKENS)}
    assert query("SELECT count(*) FROM devices WHERE user_id = %s", ann) == [(MAX_TOKENS,)]
    assert query("SELECT count(*) FROM push_tokens WHERE user_id = %s", bob) == [(1,)]


async def test_devices_of_an_app_that_names_itself_anew_do_not_pile_up(
    tokens: PushTokens, ann: UUID, query: Query
) -> None:
    """Those that registered stay, and for a while all the others: somebody may be about to bring a token for them."""
    devices = "SELECT device_id FROM devices ORDER BY device_id"
    insert = "INSERT INTO devices (user_id, device_id, device_type, registered_at) VALUES (%s, %s, 'mobile', now())"
    query(insert, ann, WATCH)
    await tokens.save(ann, PHONE, "ios", "aa")
    await tokens.save(ann, TABLET, "ios", "aa")
    assert query(devices) == [(PHONE,), (TABLET,), (WATCH,)]
    query("UPDATE devices SET updated_at = now() - interval '1 day'")
    await tokens.save(ann, TABLET, "ios", "aa")
    assert query(devices) == [(TABLET,), (WATCH,)]


async def test_nobody_has_a_token_who_is_not_there(tokens: PushTokens) -> None:
    with pytest.raises(UserUnknown):
        await tokens.save(uuid4(), PHONE, "ios", "aa")


async def test_of_two_who_bring_one_token_at_once_the_later_one_has_it(
    tokens: PushTokens, ann: UUID, bob: UUID, query: Query, owner_database_url: str
) -> None:
    await tokens.save(ann, PHONE, "ios", "old")
    with open_query(owner_database_url) as other:
        other("BEGIN")
        other("SELECT FROM devices FOR UPDATE")
        async with trio.open_nursery() as nursery:
            for number, user_id in enumerate((ann, bob), 1):
                nursery.start_soon(tokens.save, user_id, PHONE, "ios", "new")
                await wait_until_so_many_wait(query, number)
            other("COMMIT")
    assert query(TOKENS) == [(bob, PHONE, "ios", "new", None)]


async def test_two_phones_that_change_tokens_at_once_do_not_stop_each_other(
    tokens: PushTokens, ann: UUID, query: Query, owner_database_url: str
) -> None:
    for _ in range(5):
        await tokens.save(ann, PHONE, "ios", "aa")
        await tokens.save(ann, TABLET, "ios", "bb")
        with open_query(owner_database_url) as other:
            other("BEGIN")
            other("SELECT FROM devices FOR UPDATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tokens.save, ann, PHONE, "ios", "bb")
                nursery.start_soon(tokens.save, ann, TABLET, "ios", "aa")
                await wait_until_so_many_wait(query, 2)
                other("COMMIT")
        assert query(TOKENS) == [(ann, TABLET, "ios", "aa", None), (ann, PHONE, "ios", "bb", None)]


async def test_saving_and_storing_do_not_stop_each_other(
    tokens: PushTokens, ann: UUID, bob: UUID, query: Query
) -> None:
    notifications = Notifications(tokens.database)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(notifications.store, (ann, bob)[number % 2], MESSAGE, IOS)
            nursery.start_soon(tokens.save, (ann, bob)[number % 2], (PHONE, TABLET)[number % 3 % 2], "ios", "a")
    strays = "SELECT 1 FROM notification_deliveries JOIN push_tokens ON id = token_id"
    assert query(f"{strays} WHERE notification_deliveries.user_id <> push_tokens.user_id") == []


async def test_a_device_that_signs_out_has_no_token(tokens: PushTokens, ann: UUID, bob: UUID, query: Query) -> None:
    await tokens.save(ann, PHONE, "ios", "aa")
    await tokens.save(ann, TABLET, "ios", "bb")
    await tokens.save(bob, PHONE, "ios", "cc")
    for _ in range(2):
        async with tokens.database.as_operator("test").transaction() as connection:
            await remove_push_token(connection, ann, PHONE)
    assert [(user_id, token) for user_id, _, _, token, _ in query(TOKENS)] == [(ann, "bb"), (bob, "cc")]
