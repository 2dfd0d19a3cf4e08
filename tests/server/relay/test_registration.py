"""Who a socket is: what a device has to say for that, and what becomes of it while a store is away."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import Raw
from werkzeug.datastructures import Headers

from server.relay.messages import MessageInvalid
from server.relay.registration import (
    MOST_NAME_CHARACTERS,
    NO_NAME,
    Registrar,
    Wish,
    build_unknown,
    read_client_type,
    read_wish,
)
from storage.accounts import Accounts
from storage.devices import Devices
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.postgres import open_database
from storage.redis import open_redis
from storage.relay_sessions import NewSession, RelaySession, RelaySessions

DESK = "d1d1d1d1-0000-4000-8000-00000000000d"
ANN = UUID(int=1)
WISH = Wish(UUID(DESK), "Studio", None, None, None)


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def refusal_of(payload: Raw, header: str | None = None) -> str:
    with pytest.raises(MessageInvalid) as caught:
        read_wish(payload, header)
    return caught.value.code


class NoSessions(RelaySessions):
    async def create(self, user_id: UUID, device_id: UUID) -> NewSession:
        raise RedisUnavailable("away")

    async def resume(self, user_id: UUID, device_id: UUID, session_id: str, token: str) -> RelaySession | None:
        raise RedisUnavailable("away")


class NoDevices(Devices):
    async def find(self, user_id: UUID, device_id: UUID) -> None:
        raise DatabaseUnavailable("away")


@pytest.mark.parametrize(
    ("told", "client_type"),
    [("desktop", "desktop"), (" Desktop ", "desktop"), ("MOBILE", "mobile"), ("web", "other"), ("", "other")],
)
def test_a_client_says_what_it_is(told: str, client_type: str) -> None:
    assert read_client_type(Headers({"X-Client-Type": told})) == client_type
    assert read_client_type(Headers()) == "other"


def test_faults_are_told_in_the_order_that_clients_know() -> None:
    assert refusal_of(Raw()) == refusal_of(raw(None)) == refusal_of(raw([])) == "invalidPayload"
    assert refusal_of(raw({})) == refusal_of(raw({"deviceId": 7})) == "missingDeviceId"
    assert refusal_of(raw({"deviceId": "desk"})) == refusal_of(raw({"deviceId": ""})) == "invalidDeviceId"
    assert refusal_of(raw({"deviceId": DESK}), str(uuid4())) == "invalidDeviceId"
    assert refusal_of(raw({"deviceId": DESK}), "desk") == "invalidDeviceId"


def test_ids_are_compared_whatever_their_case() -> None:
    wish = read_wish(raw({"deviceId": DESK.upper()}), f" {DESK} ")
    assert wish == replace(WISH, device_name=NO_NAME)


def test_who_does_not_bring_both_registers_anew() -> None:
    whole = {"deviceId": DESK, "sessionId": "s", "resumeToken": "t"}
    assert (read_wish(raw(whole), None).session_id, read_wish(raw(whole), None).resume_token) == ("s", "t")
    for missing in ({"sessionId": None}, {"resumeToken": None}, {"resumeToken": 7}):
        wish = read_wish(raw(whole | missing), None)
        assert (wish.session_id, wish.resume_token) == (None, None)
    assert "'t'" not in repr(read_wish(raw(whole), None))


@pytest.mark.parametrize(
    ("told", "event_id"), [(0, 0), (118, 118), (None, None), ("118", None), (-1, None), (1.5, None)]
)
def test_the_last_event_is_a_number_or_none(told: object, event_id: int | None) -> None:
    assert read_wish(raw({"deviceId": DESK, "lastEventId": told}), None).last_event_id == event_id


@pytest.mark.parametrize(
    ("told", "name"),
    [("Studio", "Studio"), ("", NO_NAME), (" ", NO_NAME), (None, NO_NAME), (7, NO_NAME), ("a\0b", "ab")]
)
def test_a_name_can_be_kept(told: object, name: str) -> None:
    assert read_wish(raw({"deviceId": DESK, "deviceName": told}), None).device_name == name


def test_a_long_name_is_cut() -> None:
    assert len(read_wish(raw({"deviceId": DESK, "deviceName": "x" * 999}), None).device_name) == MOST_NAME_CHARACTERS


@pytest.mark.parametrize("client_type", ["desktop", "mobile", "other"])
async def test_an_unknown_device_is_made_known(database_url: str, redis_url: str, client_type: Any) -> None:
    async with open_database(database_url, size=1) as database, open_redis(redis_url) as redis:
        user = await Accounts(database).make_user("ann@example.com")
        devices = Devices(database)
        registered = await Registrar(RelaySessions(redis), devices).register(user.id, client_type, WISH)
        device = await devices.find(user.id, WISH.device_id)
        assert device is not None
        assert registered.is_visible
        assert device.device_name == "Studio"
        assert [one.device_id for one in await devices.list_desktops(user.id)] == (
            [WISH.device_id] if client_type == "desktop" else []
        )


async def test_a_desktop_that_may_not_be_reached_is_not_visible(database_url: str, redis_url: str) -> None:
    async with open_database(database_url, size=1) as database, open_redis(redis_url) as redis:
        user, devices = await Accounts(database).make_user("ann@example.com"), Devices(database)
        known = replace(build_unknown(WISH, "desktop"), relay_eligible=False, platform="macos")
        await devices.register(user.id, known)
        registrar = Registrar(RelaySessions(redis), devices)
        assert not (await registrar.register(user.id, "desktop", WISH)).is_visible
        assert (await registrar.register(user.id, "mobile", WISH)).is_visible
        found = await devices.find(user.id, WISH.device_id)
        assert found is not None
        assert found.platform == "macos"


async def test_a_session_is_made_resumed_or_refused(database_url: str, redis_url: str) -> None:
    async with open_database(database_url, size=1) as database, open_redis(redis_url) as redis:
        user = await Accounts(database).make_user("ann@example.com")
        registrar = Registrar(RelaySessions(redis), Devices(database))
        made = await registrar.register(user.id, "desktop", WISH)
        told = json.loads(made.reply)
        again = replace(WISH, session_id=told["sessionId"], resume_token=told["resumeToken"], last_event_id=7)
        resumed = await registrar.register(user.id, "desktop", again)
        assert (made.is_resumed, resumed.is_resumed, resumed.is_kept, resumed.last_event_id) == (False, True, True, 7)
        assert json.loads(resumed.reply)["type"] == "resumed"
        assert resumed.session.fresh_at == made.session.fresh_at
        with pytest.raises(MessageInvalid) as caught:
            await registrar.register(user.id, "desktop", replace(again, resume_token="wrong"))
        assert caught.value.code == "invalidResume"


async def test_while_the_stores_are_away_a_device_registers_nevertheless() -> None:
    registrar = Registrar(NoSessions(None), NoDevices(None))  # type: ignore[arg-type] # nothing is asked
    wishes = [WISH, replace(WISH, session_id="s", resume_token="t")]
    for registered in [await registrar.register(ANN, "desktop", wish) for wish in wishes]:
        told = json.loads(registered.reply)
        assert (told["type"], len(told["sessionId"]), len(told["resumeToken"])) == ("registered", 32, 48)
        assert not registered.is_kept
        assert not registered.is_resumed
        assert abs(registered.session.fresh_at / 1000 - datetime.now(UTC).timestamp()) < 60
        assert told["resumeToken"] not in repr(registered)
