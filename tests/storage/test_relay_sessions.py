"""What a device resumes with, on a real Redis."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
import trio

import storage.redis
import storage.relay_sessions
from storage.errors import RedisUnavailable
from storage.redis import Redis
from storage.relay_sessions import (
    LIFE_SECONDS,
    MAX_SESSIONS,
    NewSession,
    RelaySessions,
    make_unkept,
    relay_sessions_key,
)

ANN, BOB = UUID(int=1), UUID(int=2)
DESK, PHONE = UUID(int=13), UUID(int=10)


@pytest.fixture
def sessions(client: Redis) -> RelaySessions:
    return RelaySessions(client)


async def resume(sessions: RelaySessions, made: NewSession, user: UUID = ANN, device: UUID = DESK) -> bool:
    found = await sessions.resume(user, device, made.session.id, made.resume_token)
    return found is not None


def is_near(at: datetime, seconds: float) -> bool:
    return abs(at - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(seconds=5)


async def test_a_session_is_resumed_by_its_id_and_token(sessions: RelaySessions) -> None:
    made = await sessions.create(ANN, DESK)
    assert re.fullmatch("[A-Za-z0-9]{32}", made.session.id)
    assert re.fullmatch("[A-Za-z0-9]{48}", made.resume_token)
    found = await sessions.resume(ANN, DESK, made.session.id, made.resume_token)
    assert found is not None
    assert (found.id, found.fresh_at) == (made.session.id, made.session.fresh_at)
    assert is_near(found.expires_at, LIFE_SECONDS)


async def test_every_part_has_to_be_right(sessions: RelaySessions) -> None:
    made, other = await sessions.create(ANN, DESK), await sessions.create(ANN, PHONE)
    assert not await resume(sessions, made, user=BOB)
    assert not await resume(sessions, made, device=PHONE)
    assert not await resume(sessions, made, device=uuid4())
    for session_id, token in [
        (made.session.id, other.resume_token),
        (other.session.id, made.resume_token),
        (made.session.id, made.resume_token[:-1]),
        (made.session.id, ""),
        ("", made.resume_token),
        (made.session.id.swapcase(), made.resume_token),
        (made.session.id, "\ud800"),
    ]:
        assert await sessions.resume(ANN, DESK, session_id, token) is None
    assert await resume(sessions, made)


async def test_a_device_has_one_session(sessions: RelaySessions) -> None:
    former, latter = await sessions.create(ANN, DESK), await sessions.create(ANN, DESK)
    assert not await resume(sessions, former)
    assert await resume(sessions, latter)
    assert former.session.id != latter.session.id


async def test_to_resume_keeps_the_rank_and_to_register_anew_does_not(sessions: RelaySessions) -> None:
    former = await sessions.create(ANN, DESK)
    await trio.sleep(0.003)
    found = await sessions.resume(ANN, DESK, former.session.id, former.resume_token)
    assert found is not None
    assert found.fresh_at == former.session.fresh_at
    assert (await sessions.create(ANN, DESK)).session.fresh_at > former.session.fresh_at


async def test_a_session_ends_unless_it_is_extended(client: Redis) -> None:
    short = RelaySessions(client, life_seconds=0.15)
    ends, goes_on = await short.create(ANN, PHONE), await short.create(ANN, DESK)
    for _ in range(4):
        await trio.sleep(0.05)
        assert await short.extend(ANN, DESK, goes_on.session.id) is not None
    assert not await resume(short, ends, device=PHONE)
    assert await short.extend(ANN, PHONE, ends.session.id) is None
    assert await resume(short, goes_on)


async def test_nobody_extends_a_session_that_was_replaced(sessions: RelaySessions) -> None:
    former = await sessions.create(ANN, DESK)
    await sessions.create(ANN, DESK)
    assert await sessions.extend(ANN, DESK, former.session.id) is None


async def test_a_session_may_be_dropped_alone_or_with_all_of_its_user(sessions: RelaySessions) -> None:
    desk, phone, bobs = (
        await sessions.create(ANN, DESK),
        await sessions.create(ANN, PHONE),
        await sessions.create(BOB, DESK),
    )
    await sessions.drop(ANN, DESK)
    assert not await resume(sessions, desk)
    assert await resume(sessions, phone, device=PHONE)
    await sessions.drop_all(ANN)
    assert not await resume(sessions, phone, device=PHONE)
    assert await resume(sessions, bobs, user=BOB)


async def test_the_token_is_kept_nowhere(sessions: RelaySessions, client: Redis) -> None:
    made = await sessions.create(ANN, DESK)
    kept = await client.hget(relay_sessions_key(ANN), str(DESK))
    assert kept is not None
    assert made.resume_token.encode() not in kept
    assert made.resume_token not in repr(made)
    assert len(msgspec.json.decode(kept)) == 4


async def test_of_too_many_sessions_those_go_that_end_first(
    sessions: RelaySessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.relay_sessions, "MAX_SESSIONS", 3)
    assert MAX_SESSIONS == 200
    devices = [uuid4() for _ in range(4)]
    made = []
    for device in devices[:3]:
        made.append(await sessions.create(ANN, device))
        await trio.sleep(0.002)
    await sessions.extend(ANN, devices[0], made[0].session.id)
    made.append(await sessions.create(ANN, devices[3]))
    live = [await resume(sessions, one, device=device) for one, device in zip(made, devices, strict=True)]
    assert live == [True, False, True, True]


async def test_everything_goes_a_day_after_it_was_used(sessions: RelaySessions, client: Redis) -> None:
    made = await sessions.create(ANN, DESK)
    await client.pexpire(relay_sessions_key(ANN), 1000)
    await sessions.extend(ANN, DESK, made.session.id)
    assert LIFE_SECONDS - 60 < await client.ttl(relay_sessions_key(ANN)) <= LIFE_SECONDS


async def test_without_redis_nothing_is_said(sessions: RelaySessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    with pytest.raises(RedisUnavailable):
        await sessions.create(ANN, DESK)
    with pytest.raises(RedisUnavailable):
        await sessions.resume(ANN, DESK, "id", "token")


def test_one_that_is_not_kept_looks_like_any_other() -> None:
    now = datetime.now(UTC)
    made = make_unkept(now)
    assert (len(made.session.id), len(made.resume_token)) == (32, 48)
    assert is_near(made.session.expires_at, LIFE_SECONDS)
    assert abs(made.session.fresh_at - now.timestamp() * 1000) < 2
