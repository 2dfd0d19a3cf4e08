"""Cancelling and status as clients decode them; tests/end_to_end/test_cancelling.py has them at work."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import trio

from proxy.events import Usage
from server.operations import encode_answer
from server.routes import calls
from server.routes.calls import Name, describe, read_name
from storage.accounts import User
from storage.call_records import CallRecord, CallRecords, Ending
from storage.errors import DatabaseUnavailable
from tests.server.served import Answer, Served, open_served, token_headers
from tests.server.test_running_calls import Call
from tests.storage.calls import build_hold, build_settlement

ID = UUID("6b1f0000-0000-4000-8000-000000000000")
AT = datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
RECORD = CallRecord(ID, "openai", AT, None, None, None)
ENDING = Ending("completed", AT, Decimal("0.000120"), False, 100, 25, 30, 10)
USAGE = {
    "promptTokens": 100,
    "completionTokens": 25,
    "totalTokens": 125,
    "cacheReadTokens": 30,
    "cacheWriteTokens": 10,
}


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


@dataclass(eq=False, slots=True)
class EndlessCall(Call):
    async def cancel(self) -> bool:
        await trio.sleep_forever()
        raise AssertionError


class CallThatIsOver(Call):
    async def cancel(self) -> bool:
        return False


async def hold(served: Served, user: User, **settled: Any) -> UUID:
    """A call in the accounts, settled if a charge is given."""
    credits_ = served.services.billing.credits
    await credits_.grant(user.id, Decimal(9), idempotency_key=str(uuid4()), description="test")
    held = build_hold(user.id)
    await credits_.hold(held)
    if settled:
        await credits_.settle(build_settlement(held, **settled))
    return held.id


async def cancel(served: Served, user: User, request_id: object) -> Answer:
    body = msgspec.json.encode({"requestId": str(request_id)})
    return await served.ask("POST", "/api/llm/cancel", token_headers(user), body)


def show(record: CallRecord, running: Call | None = None) -> Any:
    return json.loads(encode_answer(describe(record, running)), parse_float=Decimal)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (str(ID), Name(ID, str(ID))),
        (str(ID).upper(), Name(ID, str(ID).upper())),
        ("mine", Name(None, "mine")),
    ],
)
def test_what_may_be_an_id_may_be_a_key_too(text: str, name: Name) -> None:
    assert read_name(text) == name


def test_a_running_call_tells_no_end() -> None:
    assert show(RECORD) == {
        "requestId": str(ID),
        "provider": "openai",
        "status": "active",
        "openaiResponseId": None,
        "createdAt": "2025-01-02T03:04:05.678Z",
    }


def test_a_call_that_runs_here_tells_what_it_has_used_so_far() -> None:
    usage = Usage(60, cache_read_tokens=30, cache_write_tokens=4, cache_write_1h_tokens=6, output_tokens=25)
    assert show(RECORD, Call(usage=usage))["usage"] == USAGE


@pytest.mark.parametrize("outcome", ["completed", "cancelled", "failed"])
def test_the_end_of_a_call_tells_what_it_used_and_cost(outcome: str) -> None:
    told = show(replace(RECORD, ending=replace(ENDING, outcome=outcome)))
    assert (told["status"], told["cost"], told["provisional"]) == (outcome, Decimal("0.000120"), False)
    assert (told["usage"], told["endedAt"]) == (USAGE, "2025-01-02T03:04:05.678Z")


@pytest.mark.parametrize(("provider", "told"), [("openai", "resp_1"), ("xai", None)])
def test_only_openais_own_id_is_told_as_openais(provider: str, told: str | None) -> None:
    assert show(replace(RECORD, upstream_provider=provider, upstream_id="resp_1"))["openaiResponseId"] == told


async def test_a_call_that_no_process_runs_any_more_is_said_to_be_charged_later(served: Served) -> None:
    user = await served.make_user()
    request_id = await hold(served, user)
    answer = await cancel(served, user, request_id)
    assert (answer.status, answer.json["success"], answer.json["status"]) == (200, True, "active")
    assert answer.json.keys() == {"success", "message", "requestId", "status"}


@pytest.mark.parametrize("is_run_here", [True, False])
async def test_a_call_that_is_just_beginning_is_ended(
    served: Served, monkeypatch: pytest.MonkeyPatch, is_run_here: bool
) -> None:
    """Its hold stands, and its process knows of it a moment later."""
    user = await served.make_user()
    call = Call(user.id, request_id=await hold(served, user))
    running, times_asked = served.services.running_calls, 0

    async def ask_others(*_: object) -> bool | None:
        nonlocal times_asked
        times_asked += 1
        if is_run_here:
            running.note_started(call)
            return None
        return await call.cancel() if times_asked > 1 else None

    monkeypatch.setattr(served.services.cancellations, "ask_others", ask_others)
    assert (await cancel(served, user, call.request_id)).status == 200
    assert call.was_cancelled


async def test_a_call_that_takes_long_to_end_is_said_to_be_charged_later(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "END_SECONDS", 0.05)
    user = await served.make_user()
    call = EndlessCall(user.id, request_id=await hold(served, user))
    served.services.running_calls.note_started(call)
    assert (await cancel(served, user, call.request_id)).json["status"] == "active"


@pytest.mark.parametrize("settled", [{"charge_usd": "0.25"}, {"charge_usd": "0.25", "outcome": "cancelled"}])
async def test_a_call_that_is_settled_is_over(served: Served, settled: dict[str, Any]) -> None:
    user = await served.make_user()
    assert (await cancel(served, user, await hold(served, user, **settled))).status == 404


async def test_a_call_that_is_just_ending_by_itself_is_over(served: Served) -> None:
    user = await served.make_user()
    call = CallThatIsOver(user.id, request_id=await hold(served, user))
    served.services.running_calls.note_started(call)
    assert (await cancel(served, user, call.request_id)).status == 404


async def test_accounts_that_are_away_make_no_failure_of_what_was_cancelled(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*_: object) -> None:
        raise DatabaseUnavailable("away")

    user = await served.make_user()
    call = Call(user.id)
    served.services.running_calls.note_started(call)
    monkeypatch.setattr(CallRecords, "find", find)
    answer = await cancel(served, user, call.request_id)
    assert (answer.status, answer.json["status"], call.was_cancelled) == (200, "active", True)
