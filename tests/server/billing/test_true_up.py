"""Charges by our own count are made exact by what the provider says afterwards."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from proxy.errors import UpstreamBroken
from proxy.events import Usage
from server.billing.true_up import TrueUp, build_settlement
from storage.credits import Credits
from storage.errors import DatabaseUnavailable
from storage.journal import Progress
from storage.postgres import Database, open_database
from storage.unchecked_usage import MAX_CHECKS, UncheckedUsage, UncheckedUsages
from tests.storage.calls import PRICE, build_hold, make_user
from tests.storage.calls import build_settlement as build_ending

COUNTED = Usage(input_tokens=1000, output_tokens=100)
COUNTED_USD = Decimal("0.002")
REPORTED = Usage(input_tokens=900, cache_read_tokens=200, output_tokens=150, reasoning_tokens=50)
REPORTED_USD = Decimal("0.00292")
"""A dollar a million for input, a tenth for what was cached, ten for output."""


@dataclass(slots=True)
class Oracle:
    """The provider: what it says, once for each lookup; the last for all that follow."""

    says: list[Usage | Exception | None]
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def look_up(self, provider_code: str, upstream_id: str) -> Usage | None:
        await trio.lowlevel.checkpoint()
        self.asked.append((provider_code, upstream_id))
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=4) as database:
            yield database


@pytest.fixture
async def user_id(database: Database) -> UUID:
    """Of somebody who left in mid-stream, and was charged by our count."""
    user_id = await make_user(database, "10")
    hold = replace(build_hold(user_id), provider_code="openai")
    await Credits(database).hold(hold)
    ending = build_ending(hold, str(COUNTED_USD), "cancelled", provisional=True)
    ending = replace(ending, usage=COUNTED, provider_code="openrouter", upstream_id="gen-1")
    assert await Credits(database).settle(ending)
    return user_id


def open_true_up(database: Database, *says: Usage | Exception | None) -> tuple[TrueUp, Oracle]:
    oracle = Oracle(list(says))
    return TrueUp(UncheckedUsages(database), Credits(database), oracle.look_up, ["openrouter"]), oracle


def fetch(owner_url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(owner_url) as connection:
        return connection.execute(statement.encode()).fetchall()


async def test_the_charge_follows_what_the_provider_says_and_so_do_ledger_and_usage(
    database: Database, user_id: UUID, owner_database_url: str
) -> None:
    true_up, oracle = open_true_up(database, REPORTED)
    assert await true_up.true_up() == 1
    assert oracle.asked == [("openrouter", "gen-1")]
    assert (await Credits(database).balance(user_id)).balance_usd == 10 - REPORTED_USD
    used = "SELECT outcome, provisional, cost_usd, input_tokens, cache_read_tokens, output_tokens, reasoning_tokens"
    rows = fetch(owner_database_url, f"{used}, provider_code, upstream_id FROM usage")
    assert rows == [("cancelled", False, REPORTED_USD, 900, 200, 150, 50, "openrouter", "gen-1")]
    booked = "SELECT kind, amount_usd FROM credit_ledger WHERE hold_id IS NOT NULL ORDER BY id"
    assert fetch(owner_database_url, booked) == [
        ("charge", -COUNTED_USD), ("correction", COUNTED_USD - REPORTED_USD)
    ]  # fmt: skip


async def test_a_charge_that_is_exact_is_not_asked_about_again(database: Database, user_id: UUID) -> None:
    true_up, oracle = open_true_up(database, REPORTED)
    assert [await true_up.true_up() for _ in range(3)] == [1, 0, 0]
    assert len(oracle.asked) == 1


async def test_less_than_was_charged_is_given_back(database: Database, user_id: UUID) -> None:
    true_up, _ = open_true_up(database, Usage(input_tokens=900))
    await true_up.true_up()
    counted_output = Decimal("0.001")  # zeros are no word
    assert (await Credits(database).balance(user_id)).balance_usd == 10 - Decimal("0.0009") - counted_output


@pytest.mark.parametrize(
    "trouble", [None, UpstreamBroken("gone"), Usage(input_tokens=10**15)], ids=["unknown", "gone", "impossible"]
)
async def test_a_provider_that_does_not_say_is_asked_again_later(
    database: Database, user_id: UUID, owner_database_url: str, trouble: Usage | Exception | None
) -> None:
    true_up, oracle = open_true_up(database, trouble, REPORTED)
    assert await true_up.true_up() == 0
    assert (await Credits(database).balance(user_id)).balance_usd == 10 - COUNTED_USD
    assert await true_up.true_up() == 0
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("UPDATE usage SET next_check_at = now()")
    assert await true_up.true_up() == 1
    assert len(oracle.asked) == 2


async def test_a_provider_that_never_says_is_given_up_and_that_is_told(
    database: Database, user_id: UUID, owner_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    true_up, oracle = open_true_up(database, None)
    for _ in range(MAX_CHECKS + 2):
        await true_up.true_up()
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("UPDATE usage SET next_check_at = now()")
    assert len(oracle.asked) == MAX_CHECKS
    assert fetch(owner_database_url, "SELECT provisional, cost_usd FROM usage") == [(True, COUNTED_USD)]
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["a charge stays as it was counted here: its provider does not say more"]


async def test_a_call_that_was_given_back_is_not_charged_after_all(
    database: Database, user_id: UUID, owner_database_url: str
) -> None:
    with psycopg.connect(owner_database_url) as owner:
        owner.execute("UPDATE holds SET refunded_usd = charged_usd")
    true_up, _ = open_true_up(database, REPORTED)
    assert await true_up.true_up() == 0
    assert (await Credits(database).balance(user_id)).balance_usd == 10 - COUNTED_USD


async def test_without_a_provider_that_can_be_asked_nobody_is(user_id: UUID, database: Database) -> None:
    true_up, oracle = open_true_up(database, REPORTED)
    assert await replace(true_up, provider_codes=[]).true_up() == 0
    assert oracle.asked == []


# The loop


async def test_the_loop_goes_on_after_a_store_was_away(
    database: Database, user_id: UUID, owner_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.billing.true_up.PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("storage.unchecked_usage.PAUSES_SECONDS", (0,))
    true_up, oracle = open_true_up(database, DatabaseUnavailable("away"), REPORTED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(true_up.keep_truing_up)
        with trio.fail_after(10):
            while fetch(owner_database_url, "SELECT provisional FROM usage") == [(True,)]:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert len(oracle.asked) == 2


async def test_a_provider_that_hangs_keeps_the_others_waiting_for_a_while_only(
    database: Database, user_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.billing.true_up.LOOK_UP_SECONDS", 0.05)

    async def hang(_provider_code: str, _upstream_id: str) -> Usage | None:
        await trio.sleep_forever()

    true_up, _ = open_true_up(database, None)
    with trio.fail_after(10):
        assert await replace(true_up, look_up=hang).true_up() == 0


# What is charged


def unchecked(price: str = PRICE) -> UncheckedUsage:
    progress = Progress(uuid4(), True, False, input_tokens=1000, output_tokens=100, searches=2)
    return UncheckedUsage(progress.hold_id, uuid4(), "openrouter", "gen-1", "cancelled", price, 1, progress)


def test_searches_that_were_counted_stay_though_the_provider_does_not_tell_of_them() -> None:
    settlement = build_settlement(unchecked(), REPORTED)
    assert settlement.usage == replace(REPORTED, searches=2)
    assert (settlement.outcome, settlement.provisional) == ("cancelled", False)


def test_the_price_is_that_of_the_hold() -> None:
    dearer = PRICE.replace('"input": "1"', '"input": "2"')
    more = build_settlement(unchecked(dearer), REPORTED).charge_usd - build_settlement(unchecked(), REPORTED).charge_usd
    assert more == Decimal("0.0009")
