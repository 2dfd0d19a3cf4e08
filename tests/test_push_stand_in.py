"""The stand-ins for APNs and FCM keep their word: what they check, what they book, and every way to misbehave."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from h2.settings import SettingCodes

from tests.push_stand_in import (
    Cut,
    GoAway,
    Held,
    PushStandIn,
    ResetStream,
    Say,
    Silence,
    open_push_stand_in,
    refuse_apns,
)
from tests.push_stand_in.raw_client import (
    ALERT,
    TOKEN,
    RawClient,
    build_headers,
    build_provider_token,
    open_raw_client,
)

OTHER = "ffee0011" * 8


@pytest.fixture
async def push() -> AsyncIterator[PushStandIn]:
    async with open_push_stand_in() as push:
        yield push


@pytest.fixture
async def client(push: PushStandIn) -> AsyncIterator[RawClient]:
    async with open_raw_client(push.apns.urls["production"]) as client:
        yield client


async def test_a_push_that_keeps_all_rules_is_acknowledged_and_booked(push: PushStandIn, client: RawClient) -> None:
    push_id = "0b0e6a2c-5f6d-4d0c-9a43-6f9d2a3c7a11"
    answer = await client.ask({"apns-collapse-id": "job:1", "apns-id": push_id})
    assert (answer.status, answer.headers["apns-id"], answer.body) == (200, push_id, b"")
    (seen,) = push.apns.book.acknowledged
    assert (seen.number, seen.connection, seen.environment) == (1, 1, "production")
    assert (seen.token, seen.push_id, seen.collapse_id) == (TOKEN, push_id, "job:1")
    assert seen.payload["aps"]["alert"]["title"] == "Done"
    assert seen.provider_token == client.provider_token


BROKEN_RULES: list[tuple[dict[str, str | None], int, str]] = [
    ({":method": "GET"}, 405, "MethodNotAllowed"),
    ({":path": "/2/device/00"}, 404, "BadPath"),
    ({":path": "/3/device/"}, 400, "MissingDeviceToken"),
    ({":path": "/3/device/nothexnothex"}, 400, "BadDeviceToken"),
    ({"apns-topic": None}, 400, "MissingTopic"),
    ({"apns-topic": "com.example.other"}, 400, "TopicDisallowed"),
    ({"apns-push-type": None}, 400, "InvalidPushType"),
    ({"apns-push-type": "shout"}, 400, "InvalidPushType"),
    ({"apns-collapse-id": "x" * 65}, 400, "BadCollapseId"),
    ({"apns-expiration": "tomorrow"}, 400, "BadExpirationDate"),
    ({"apns-priority": "7"}, 400, "BadPriority"),
    ({"apns-push-type": "background"}, 400, "BadPriority"),
    ({"apns-push-type": "background", "apns-priority": "10"}, 400, "BadPriority"),
    ({"apns-id": "1"}, 400, "BadMessageId"),
    ({"authorization": None}, 403, "MissingProviderToken"),
    ({"authorization": "bearer x.y.z"}, 403, "InvalidProviderToken"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), BROKEN_RULES)
async def test_a_broken_rule_is_refused_in_apples_words(
    push: PushStandIn, client: RawClient, changes: dict[str, str | None], status: int, reason: str
) -> None:
    answer = await client.ask(changes)
    assert (answer.status, answer.reason) == (status, reason)
    assert [(each.status, each.reason) for each in push.apns.book.refused] == [(status, reason)]
    assert push.apns.book.acknowledged == []


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "PayloadEmpty"),
        (b"{", 400, "PayloadEmpty"),
        (b'{"aps":[]}', 400, "PayloadEmpty"),
        (b'{"aps":{},"x":"%s"}' % (b"x" * 4081), 413, "PayloadTooLarge"),
    ],
)
async def test_a_payload_that_is_none_or_too_large_is_refused(
    client: RawClient, body: bytes, status: int, reason: str
) -> None:
    answer = await client.ask(body=body)
    assert (answer.status, answer.reason) == (status, reason)


async def test_a_payload_of_4096_bytes_and_a_push_in_the_background_are_taken(client: RawClient) -> None:
    body = b'{"aps":{},"x":"%s"}' % (b"x" * 4079)
    assert len(body) == 4096
    assert (await client.ask(body=body)).status == 200
    quiet = b'{"aps":{"content-available":1}}'
    assert (await client.ask({"apns-push-type": "background", "apns-priority": "5"}, body=quiet)).status == 200


@pytest.mark.parametrize(
    ("age_seconds", "changes", "reason"),
    [
        (3700, {}, "ExpiredProviderToken"),
        (-9000, {}, "InvalidProviderToken"),
        (0, {"iss": "ANOTHER123"}, "InvalidProviderToken"),
        (0, {"exp": 4_000_000_000}, "InvalidProviderToken"),
        (0, {"key_id": "ANOTHER123"}, "InvalidProviderToken"),
        (0, {"key": ec.generate_private_key(ec.SECP256R1())}, "InvalidProviderToken"),
    ],
    ids=["old", "of tomorrow", "of another team", "with another claim", "of another key id", "of another key"],
)
async def test_provider_tokens_are_looked_at(
    client: RawClient, age_seconds: int, changes: dict[str, Any], reason: str
) -> None:
    token = build_provider_token(iat=int(time.time()) - age_seconds, **changes)
    answer = await client.ask({"authorization": f"bearer {token}"})
    assert (answer.status, answer.reason) == (403, reason)


async def test_a_second_provider_token_within_twenty_minutes_is_one_too_many(
    push: PushStandIn, client: RawClient
) -> None:
    assert (await client.ask()).status == 200
    fresh = f"bearer {build_provider_token()}"
    assert (await client.ask({"authorization": fresh})).reason == "TooManyProviderTokenUpdates"
    assert (await client.ask()).status == 200
    push.apns.read_time = lambda: time.time() + 20 * 60 + 1
    assert (await client.ask({"authorization": fresh})).status == 200


async def test_after_one_that_was_called_expired_another_is_expected(push: PushStandIn, client: RawClient) -> None:
    push.apns.script.play(TOKEN, refuse_apns(403, "ExpiredProviderToken"))
    assert (await client.ask()).reason == "ExpiredProviderToken"
    assert (await client.ask({"authorization": f"bearer {build_provider_token()}"})).status == 200


async def test_one_stream_is_allowed_until_a_good_provider_token_was_seen_then_a_thousand(
    push: PushStandIn, client: RawClient
) -> None:
    assert client.allowed == 1
    assert (await client.ask({"authorization": None})).status == 403
    assert client.allowed == 1
    assert (await client.ask()).status == 200
    assert client.allowed == 1000


async def test_a_stream_too_many_is_a_violation_and_ends_the_connection(push: PushStandIn, client: RawClient) -> None:
    client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 5  # as if the server had said so
    client.h2.remote_settings.acknowledge()
    push.apns.script.play(TOKEN, Silence())
    await client.start()
    await client.start()
    await client.read_to_the_end()
    assert push.apns.violations == ["Max inbound streams is 1, 1 open"]


async def test_a_token_is_at_home_in_one_environment(push: PushStandIn, client: RawClient) -> None:
    push.apns.homes[TOKEN] = "sandbox"
    answer = await client.ask()
    assert (answer.status, answer.reason) == (400, "BadDeviceToken")
    async with open_raw_client(push.apns.urls["sandbox"]) as other:
        assert (await other.ask()).status == 200
    assert [seen.environment for seen in push.apns.book.acknowledged] == ["sandbox"]


async def test_a_token_that_is_gone_says_since_when(push: PushStandIn, client: RawClient) -> None:
    push.apns.gone[TOKEN] = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    answer = await client.ask()
    assert (answer.status, answer.body) == (410, b'{"reason":"Unregistered","timestamp":1770091506000}')


async def test_scripted_answers_come_by_token_by_number_and_by_choice(push: PushStandIn, client: RawClient) -> None:
    script = push.apns.script
    script.play(TOKEN, refuse_apns(429, "TooManyRequests", retry_after="7"), Say(502, b"<html>"))
    script.by_number[4] = refuse_apns(500, "InternalServerError")
    script.otherwise = lambda seen: refuse_apns(503, "Shutdown") if seen.token == OTHER else Say(200)
    first = await client.ask()
    assert (first.status, first.reason, first.headers["retry-after"]) == (429, "TooManyRequests", "7")
    assert [(await client.ask()).status for _ in range(3)] == [502, 200, 500]
    assert (await client.ask(token=OTHER)).reason == "Shutdown"
    assert [seen.number for seen in push.apns.book.acknowledged] == [3]


async def open_up(client: RawClient) -> None:
    """So that many streams may be open."""
    assert (await client.ask(token="99" * 32)).status == 200


async def test_a_cut_answers_neither_this_push_nor_those_that_wait(push: PushStandIn, client: RawClient) -> None:
    await open_up(client)
    push.apns.script.play(TOKEN, Silence(), Cut())
    waiting, cut = await client.start(), await client.start()
    await client.read_to_the_end()
    assert not client.answers[waiting].is_whole
    assert not client.answers[cut].is_whole
    assert [seen.number for seen in push.apns.book.acknowledged] == [1]
    assert [seen.number for seen in push.apns.book.cut] == [2, 3]


async def test_a_reset_stream_leaves_the_others_alone(push: PushStandIn, client: RawClient) -> None:
    await open_up(client)
    held = trio.Event()
    push.apns.script.play(TOKEN, Held(held), ResetStream(7))
    first, second = await client.start(), await client.start()
    while second not in client.resets:
        await client.read()
    held.set()
    assert (await client.wait_answer(first)).status == 200
    assert client.resets == {second: 7}


async def test_goaway_says_why_and_answers_what_came_before(push: PushStandIn, client: RawClient) -> None:
    await open_up(client)
    held = trio.Event()
    push.apns.script.play(TOKEN, Held(held), GoAway("Shutdown"))
    first, *_ = [await client.start() for _ in range(3)]
    while not client.goodbyes:
        await client.read()
    assert client.goodbyes == [(0, first, b'{"reason": "Shutdown"}')]
    held.set()
    await client.read_to_the_end()
    assert client.late
    assert [seen.number for seen in push.apns.book.acknowledged] == [1, 2]
    assert [seen.number for seen in push.apns.book.cut] == [3]


async def test_a_connection_may_be_told_to_go_at_any_time(push: PushStandIn, client: RawClient) -> None:
    await open_up(client)
    await push.apns.connections[0].go_away("IdleTimeout")
    await client.read_to_the_end()
    assert client.goodbyes == [(0, 1, b'{"reason": "IdleTimeout"}')]


async def test_an_answer_that_is_held_comes_later(push: PushStandIn, client: RawClient) -> None:
    held = trio.Event()
    push.apns.script.play(TOKEN, Held(held, refuse_apns(500, "InternalServerError")))
    stream = await client.start()
    await push.apns.book.wait_received(1)
    with trio.move_on_after(0.02):
        await client.wait_answer(stream)
    assert not client.answers[stream].is_whole
    held.set()
    assert (await client.wait_answer(stream)).status == 500


async def test_one_that_is_away_resets_every_connection(push: PushStandIn) -> None:
    push.apns.is_away = True
    with pytest.raises((trio.BrokenResourceError, AssertionError)):
        async with open_raw_client(push.apns.urls["sandbox"]):
            pass


async def test_a_push_that_is_called_off_in_the_same_breath_is_lost_alone(push: PushStandIn, client: RawClient) -> None:
    assert (await client.ask()).status == 200
    stream_id = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream_id, build_headers(OTHER, client.provider_token, {}))
    client.h2.send_data(stream_id, ALERT, end_stream=True)
    client.h2.reset_stream(stream_id)
    assert (await client.ask()).status == 200
    assert [seen.token for seen in push.apns.book.acknowledged] == [TOKEN, TOKEN]
    await trio.aclose_forcefully(client.stream)
    await push.apns.book.wait_until(lambda book: [seen.token for seen in book.cut] == [OTHER])
