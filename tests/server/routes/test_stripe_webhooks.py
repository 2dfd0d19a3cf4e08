"""Where Stripe sends its events: believed by signature, stored before they are answered. Signed by Stripe's library."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import stripe
import trio

from server.billing.event_signature import TOLERANCE_SECONDS
from server.guard import SMALL_BODY_BYTES
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.rate_limits import RateLimits
from storage.stripe_events import StripeEvents
from tests.server.served import Answer, Served, open_served

PATH = "/webhooks/stripe"
SECRET, NEXT_SECRET = "whsec_0123456789", "whsec_9876543210"
SELLING = {"STRIPE_SECRET_KEY": "sk_test_0123456789", "STRIPE_WEBHOOK_SECRET": SECRET}
EVENT = '{"id": "evt_1", "type": "plan.created", "livemode": false, "data": {"object": {"name": "Zoë"}}}'


@dataclass(frozen=True, slots=True)
class Shop:
    served: Served

    async def send(self, payload: str | bytes = EVENT, secret: str = SECRET, age_seconds: float = 0) -> Answer:
        body = payload.encode() if isinstance(payload, str) else payload
        signed = body.decode("utf-8", "replace")
        at = int(time.time() - age_seconds)
        header = stripe.WebhookSignature.generate_signature_header(signed, secret, timestamp=at)
        return await self.post(body, {"Stripe-Signature": header})

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        return await self.served.ask("POST", PATH, headers, body)

    async def list_stored(self) -> list[tuple[str, bytes]]:
        rights = self.served.services.database.as_operator("test")
        return [(row[0], row[1]) for row in await rights.fetch("SELECT id, payload FROM stripe_events ORDER BY id")]


@asynccontextmanager
async def open_shop(database_url: str, redis_url: str, folder: Path, **settings: str) -> AsyncIterator[Shop]:
    """Nobody works on what it takes in."""
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, folder, **settings) as served:
        yield Shop(served)


@pytest.fixture
async def shop(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(database_url, redis_url, tmp_path, **SELLING) as shop:
        yield shop


async def test_an_event_is_stored_as_it_came_and_then_answered(shop: Shop) -> None:
    answer = await shop.send()
    assert (answer.status, answer.json) == (200, {"received": True})
    assert await shop.list_stored() == [("evt_1", EVENT.encode())]


async def test_an_event_that_comes_twenty_times_at_once_is_stored_once(shop: Shop) -> None:
    statuses = []

    async def send() -> None:
        statuses.append((await shop.send()).status)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(send)
    assert statuses == [200] * 20
    assert len(await shop.list_stored()) == 1


async def test_what_stripe_has_not_signed_is_a_400_and_not_stored(shop: Shop) -> None:
    answers = [
        await shop.send(secret=NEXT_SECRET),
        await shop.send(age_seconds=TOLERANCE_SECONDS + 2),
        await shop.send(age_seconds=-TOLERANCE_SECONDS - 2),
        await shop.send(b"\xff\xfe"),
        await shop.post(EVENT.encode(), {}),
        await shop.post(EVENT.encode(), {"Stripe-Signature": "t=1,v1=é"}),
        await shop.post(EVENT.encode(), {"Stripe-Signature": "v1=" * 3000}),
        await shop.post(b"", {"Stripe-Signature": ""}),
    ]
    assert [(answer.status, answer.json["error_type"]) for answer in answers] == [(400, "validation_error")] * 8
    assert await shop.list_stored() == []


async def test_what_is_signed_and_no_event_is_a_400(shop: Shop) -> None:
    for payload in ("", "[]", "{}", '{"id": 1}'):
        assert (await shop.send(payload)).status == 400
    assert await shop.list_stored() == []


async def test_a_body_is_bounded(shop: Shop) -> None:
    assert (await shop.send(" " * SMALL_BODY_BYTES + EVENT)).status == 413


async def test_while_postgresql_is_away_stripe_is_told_to_come_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> bool:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(StripeEvents, "store", fail)
        assert (await shop.send()).status == 503
    assert await shop.list_stored() == []
    assert (await shop.send()).status == 200


async def test_while_redis_is_away_stripe_is_told_to_come_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody counts who calls here then; Stripe tries again for three days."""

    async def fail(*_: object) -> None:
        raise RedisUnavailable("gone")

    monkeypatch.setattr(RateLimits, "take", fail)
    assert (await shop.send()).status == 503
    assert await shop.list_stored() == []


async def test_while_secrets_change_both_count(database_url: str, redis_url: str, tmp_path: Path) -> None:
    settings = {**SELLING, "STRIPE_WEBHOOK_SECRET": f"{SECRET}, {NEXT_SECRET}"}
    async with open_shop(database_url, redis_url, tmp_path, **settings) as shop:
        assert (await shop.send()).status == 200
        assert (await shop.send(secret=NEXT_SECRET)).status == 200
        assert (await shop.send(secret=settings["STRIPE_WEBHOOK_SECRET"])).status == 400


async def test_a_server_that_sells_nothing_takes_no_events(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with open_shop(database_url, redis_url, tmp_path) as shop:
        answer = await shop.send(secret="")
    assert (answer.status, answer.json["error_type"]) == (503, "configuration_error")


async def test_test_mode_buys_nothing_from_a_server_that_sells(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = {**SELLING, "STRIPE_SECRET_KEY": "sk_live_0123456789"}
    async with open_shop(database_url, redis_url, tmp_path, **settings) as shop:
        assert (await shop.send()).status == 200
        assert await shop.list_stored() == []
        assert (await shop.send(EVENT.replace("false", "true"))).status == 200
        assert len(await shop.list_stored()) == 1


async def test_real_money_that_our_key_cannot_see_is_not_answered_with_a_yes(shop: Shop) -> None:
    answer = await shop.send(EVENT.replace("false", "true"))
    assert (answer.status, answer.json["error_type"]) == (503, "configuration_error")


async def test_whoever_floods_this_address_is_stopped(database_url: str, redis_url: str, tmp_path: Path) -> None:
    settings = {**SELLING, "RATE_LIMIT_WEBHOOKS": "2"}
    async with open_shop(database_url, redis_url, tmp_path, **settings) as shop:
        statuses = [(await shop.post(b"{}", {})).status for _ in range(3)]
    assert statuses == [400, 400, 429]
