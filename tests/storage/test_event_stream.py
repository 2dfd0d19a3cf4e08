"""Events as Redis keeps them, on a real one."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from storage.event_stream import (
    Bounds,
    EventStream,
    Page,
    Teller,
    Track,
    cursors_key,
    events_key,
    events_meta_key,
    newest_key,
    read_message,
    tellers_key,
)
from storage.redis import Redis, open_redis
from tests.storage.told_messages import ToldMessages, open_told_messages

ANN = UUID("5b0e0000-0000-4000-8000-00000000000a")
DESK, PHONE = uuid4(), uuid4()
BODY = b'["desktop"]\nhead'


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
def stream(redis: Redis) -> EventStream:
    return EventStream(redis)


async def append(stream: EventStream, count: int = 1, track: Track = "desktop", body: bytes = BODY) -> list[int]:
    return [(await stream.append(ANN, track, body, str(n))).id for n in range(count)]


async def read_ids(stream: EventStream, after: int = 0) -> list[int]:
    ids: list[int] = []
    while True:
        page = await stream.read(ANN, after)
        ids += [entry.id for entry in page.entries]
        if page.is_all:
            return ids
        after = ids[-1]


async def test_numbers_increase_name_the_one_before_and_stay_exact_in_a_client(stream: EventStream) -> None:
    rows = [await stream.append(ANN, "desktop", BODY, "t") for _ in range(50)]
    assert [row.previous for row in rows] == [0, *[row.id for row in rows[:-1]]]
    assert sorted({row.id for row in rows}) == [row.id for row in rows]
    assert rows[-1].id < 2**53
    assert await stream.find_last(ANN) == rows[-1].id


async def test_a_number_is_greater_than_what_whoever_asks_has_seen(stream: EventStream) -> None:
    floor = 2**52
    assert (await stream.append(ANN, "desktop", BODY, "t", floor=floor)).id == floor + 1
    assert (await stream.append(ANN, "desktop", BODY, "t")).id == floor + 2


async def test_numbers_go_on_increasing_where_redis_was_emptied(stream: EventStream, redis: Redis) -> None:
    (before,) = await append(stream)
    await redis.flushall()
    (after,) = await append(stream)
    assert after > before


async def test_what_was_appended_is_read_in_order_page_by_page(stream: EventStream) -> None:
    ids = await append(stream, 150)
    assert await read_ids(stream) == ids
    assert await read_ids(stream, ids[99]) == ids[100:]
    assert [len((await stream.read(ANN, after)).entries) for after in (0, ids[99], ids[149])] == [64, 50, 0]


async def test_a_page_holds_about_a_megabyte(stream: EventStream) -> None:
    ids = await append(stream, 10, body=b"x" * 250_000)
    page = await stream.read(ANN, 0)
    assert (len(page.entries), page.is_all) == (4, False)
    assert await read_ids(stream) == ids


async def test_an_event_is_told_as_it_is_kept(stream: EventStream, redis_url: str) -> None:
    with open_told_messages(redis_url, ANN) as told:
        first = await stream.append(ANN, "desktop", BODY, "t")
        second = await stream.append(ANN, "others", b"with  spaces\n", "t")
        await stream.tell(ANN, b"passing", "t")
        assert read_events(told) == [(first.id, 0, BODY), (second.id, first.id, b"with  spaces\n"), (0, 0, b"passing")]


async def test_only_so_many_are_kept_and_what_went_is_known(redis: Redis) -> None:
    stream = EventStream(redis, Bounds(most_entries=10))
    ids = [*await append(stream, 5, "others"), *await append(stream, 20, "desktop")]
    page = await stream.read(ANN, ids[0])
    assert [entry.id for entry in page.entries] == ids[-10:]
    assert page.gone == {"desktop": ids[14], "others": ids[4], "watchers": page.before}
    assert (page.oldest, page.last) == (ids[15], ids[-1])


async def test_only_so_many_bytes_are_kept(redis: Redis) -> None:
    stream = EventStream(redis, Bounds(most_bytes=10_000))
    ids = await append(stream, 30, body=b"x" * 1_000)
    assert await read_ids(stream) == ids[-10:]
    assert await redis.hget(events_meta_key(ANN), "bytes") == b"10000"


async def test_a_large_event_that_takes_the_place_of_many_does_so_step_by_step(redis: Redis) -> None:
    """However much there is to take away, one event takes only so long."""
    stream = EventStream(redis, Bounds(most_bytes=20_000))
    await append(stream, 200, body=b"x" * 100)
    await append(stream, 1, body=b"x" * 18_000)
    assert len(await read_ids(stream)) == 201 - 64
    await append(stream, 5, body=b"x" * 100)
    assert len(await read_ids(stream)) == 21
    assert await redis.hget(events_meta_key(ANN), "bytes") == b"20000"


async def test_what_is_older_than_a_day_goes_with_the_next_event(redis: Redis) -> None:
    old = await append(EventStream(redis), 3)
    young = await append(EventStream(redis, Bounds(keep_seconds=0)), 1)
    assert await redis.exists([events_key(ANN)]) == 0  # it has expired with them
    page = await EventStream(redis).read(ANN, old[0])
    assert (page.last, page.gone["desktop"]) == (young[0], young[0])


async def test_of_events_that_replace_each_other_only_the_newest_is_kept(stream: EventStream, redis: Redis) -> None:
    ids = []
    for name in ("a", "b", "a", "", "a"):
        ids.append((await stream.append(ANN, "desktop", BODY, "t", newest_of=name)).id)
    assert await read_ids(stream) == [ids[1], ids[3], ids[4]]
    page = await stream.read(ANN, ids[0])
    assert page.gone["desktop"] == page.before
    assert await redis.hget(events_meta_key(ANN), "bytes") == b"%d" % (3 * len(BODY))


async def test_what_replaces_is_forgotten_with_the_event(redis: Redis) -> None:
    stream = EventStream(redis, Bounds(most_entries=5))
    for n in range(50):
        await stream.append(ANN, "desktop", BODY, "t", newest_of=f"chat {n}")
    assert await redis.hlen(newest_key(ANN)) == 5
    await append(stream, 10)
    assert await redis.hlen(newest_key(ANN)) == 0


async def test_an_event_that_is_too_large_is_told_by_its_name_and_counts_as_gone(
    stream: EventStream, redis_url: str
) -> None:
    body = b"x" * 300_000
    with open_told_messages(redis_url, ANN) as told:
        (first,) = await append(stream)
        large = await stream.append(ANN, "others", body, "its-name")
        await stream.tell(ANN, body, "another")
        messages = [read_message(said) for said in told.read("event")][1:]
    assert [(one.id, one.token) for one in messages] == [(large.id, "its-name"), (0, "another")]
    assert await stream.fetch_large(ANN, "its-name") == body
    assert await stream.fetch_large(ANN, "another") == body
    assert await stream.fetch_large(ANN, "nobody's") is None
    page = await stream.read(ANN, first)
    assert page.entries == []
    assert page.gone == {"desktop": page.before, "others": large.id, "watchers": page.before}


async def test_of_a_stream_that_has_expired_everything_is_gone_and_known(stream: EventStream, redis: Redis) -> None:
    ids = [*await append(stream, 2, "desktop"), *await append(stream, 1, "others")]
    await redis.delete([events_key(ANN)])
    page = await stream.read(ANN, ids[0])
    assert page == Page(
        ids[2], page.before, {"desktop": ids[1], "others": ids[2], "watchers": page.before}, 0, [], is_all=True
    )
    assert page.before == ids[0] - 1


async def test_what_has_expired_stays_gone_and_takes_no_room_when_others_follow(redis: Redis) -> None:
    stream = EventStream(redis, Bounds(most_bytes=1_000))
    ids = [*await append(stream, 2, "desktop", b"x" * 500), *await append(stream, 1, "others", b"x" * 500)]
    await redis.delete([events_key(ANN), newest_key(ANN)])
    young = await append(stream, 2, "desktop", b"x" * 500)
    page = await stream.read(ANN, ids[0])
    assert [entry.id for entry in page.entries] == young
    assert page.gone == {"desktop": ids[1], "others": ids[2], "watchers": page.before}
    assert await redis.hget(events_meta_key(ANN), "bytes") == b"1000"


async def test_of_a_user_without_a_history_nothing_is_known(stream: EventStream) -> None:
    gone: dict[Track, int] = {"desktop": 0, "others": 0, "watchers": 0}
    assert await stream.read(ANN, 7) == Page(0, 0, gone, 0, [], is_all=True)
    assert await stream.find_last(ANN) == 0


async def test_what_is_gone_is_known_longer_than_what_is_kept(stream: EventStream, redis: Redis) -> None:
    await append(stream)
    assert await redis.ttl(events_key(ANN)) == pytest.approx(86_400, abs=5)
    assert await redis.ttl(events_meta_key(ANN)) == pytest.approx(30 * 86_400, abs=5)


async def test_one_users_events_are_not_anothers(stream: EventStream) -> None:
    await append(stream)
    assert (await stream.read(uuid4(), 0)).entries == []


async def test_a_cursor_never_goes_back(stream: EventStream) -> None:
    phone, tablet = uuid4(), uuid4()
    await stream.note_cursors(ANN, {phone: 2**52 + 1, tablet: 3})
    await stream.note_cursors(ANN, {phone: 2**52, tablet: 4})
    assert await stream.find_cursor(ANN, phone) == 2**52 + 1
    assert await stream.find_cursor(ANN, tablet) == 4
    assert await stream.find_cursor(ANN, uuid4()) is None


async def test_who_has_seen_nothing_is_known_too(stream: EventStream) -> None:
    phone = uuid4()
    await stream.note_cursors(ANN, {phone: 0})
    assert await stream.find_cursor(ANN, phone) == 0


async def test_only_so_many_cursors_are_kept_the_newest(redis: Redis) -> None:
    stream = EventStream(redis, Bounds(most_cursors=10))
    devices = [uuid4() for _ in range(25)]
    for number, device in enumerate(devices):
        await stream.note_cursors(ANN, {device: number})
    assert await redis.hlen(cursors_key(ANN)) == 10
    assert await stream.find_cursor(ANN, devices[-1]) == 24
    assert await stream.find_cursor(ANN, devices[0]) is None


def test_a_body_never_shows() -> None:
    page = Page(1, 0, {"desktop": 0, "others": 0, "watchers": 0}, 0, [], is_all=True)
    assert "entries" not in repr(page)


def read_events(told: ToldMessages) -> list[tuple[int, int, bytes]]:
    messages = [read_message(said) for said in told.read("event")]
    return [(one.id, one.previous, one.body) for one in messages]


async def test_what_an_older_connection_tells_after_a_newer_one_is_nobodys(stream: EventStream) -> None:
    older, newer, other = Teller(DESK, 5), Teller(DESK, 7), Teller(PHONE, 1)
    told = [(await stream.append(ANN, "desktop", BODY, "t", teller=one)).id for one in (older, newer, newer, other)]
    assert await stream.append(ANN, "desktop", BODY, "t", teller=older) == (0, 0)
    again = await stream.append(ANN, "desktop", BODY, "t")
    assert again.previous == told[-1]
    assert await read_ids(stream) == [*told, again.id]


async def test_of_so_many_tellers_is_known_and_no_more(redis: Redis) -> None:
    stream = EventStream(redis, Bounds(most_tellers=3))
    for _ in range(5):
        await stream.append(ANN, "desktop", BODY, "t", teller=Teller(uuid4(), 5))
    assert await redis.hlen(tellers_key(ANN)) == 2
    assert 0 < await redis.ttl(tellers_key(ANN)) <= Bounds().keep_seconds
