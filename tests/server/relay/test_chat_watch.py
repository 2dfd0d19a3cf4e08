"""Chats as their watchers hear of them, once a second; and what nobody watches costs nobody anything."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from trio.testing import MockClock

from proxy.events import Usage
from proxy.ledger import Settlement
from server.relay.chat_watch import MOST_ENDED, ChatWatch
from server.relay.event_frames import NewEvent
from storage.errors import RedisUnavailable
from storage.watched import WatchedUsers
from tests.proxy.calls import MODEL
from tests.server.relay.audience import ANN, BOB


@dataclass(slots=True)
class Call:
    user_id: UUID = ANN
    request_id: UUID = field(default_factory=uuid4)
    usage: Usage = field(default_factory=Usage)
    idempotency_key: str | None = None
    model = MODEL

    def usage_so_far(self) -> Usage:
        return self.usage

    async def cancel(self) -> bool:
        raise AssertionError("watchers cancel nothing")

    def settle(self) -> Settlement:
        return Settlement(self.request_id, self.user_id, "completed", Decimal("0.5"), self.usage, provisional=False)


@dataclass(slots=True)
class House:
    """Where Redis would be asked who is watched, and told of events."""

    watched: set[UUID] = field(default_factory=lambda: {ANN})
    asked: list[set[UUID]] = field(default_factory=list)
    told: list[tuple[UUID, NewEvent]] = field(default_factory=list)
    is_away: bool = False

    async def find(self, users: Collection[UUID]) -> set[UUID]:
        self.asked.append(set(users))
        if self.is_away:
            raise RedisUnavailable("away")
        return self.watched & set(users)

    async def publish(self, user_id: UUID, event: NewEvent) -> None:
        self.told.append((user_id, event))

    def take(self) -> list[tuple[str, Any]]:
        taken = [(event.event_type, json.loads(event.payload)) for _, event in self.told]
        self.told.clear()
        return taken

    def open_watch(self) -> ChatWatch:
        watched: WatchedUsers = self  # type: ignore[assignment] # it stands for Redis
        return ChatWatch(watched)


@pytest.fixture
def house() -> House:
    return House()


async def test_a_chat_is_told_from_its_start_to_its_end(house: House) -> None:
    watch, call = house.open_watch(), Call()
    watch.note_started(call)
    await watch.tell(house.publish)
    ((name, payload),) = house.take()
    assert (name, payload["requestId"], payload["model"]) == ("chat-started", str(call.request_id), MODEL.id)
    call.usage = Usage(input_tokens=3, output_tokens=5)
    await watch.tell(house.publish)
    await watch.tell(house.publish)
    ((name, payload),) = house.take()
    assert (name, payload["promptTokens"], payload["completionTokens"]) == ("chat-progress", 3, 5)
    watch.note_ended(call, call.settle())
    await watch.tell(house.publish)
    ((name, payload),) = house.take()
    assert (name, payload["outcome"], payload["cost"]) == ("chat-finished", "completed", "0.500000")


async def test_a_chat_of_less_than_a_round_is_told_whole(house: House) -> None:
    watch, call = house.open_watch(), Call()
    watch.note_started(call)
    watch.note_ended(call, call.settle())
    await watch.tell(house.publish)
    assert [name for name, _ in house.take()] == ["chat-started", "chat-finished"]


async def test_who_begins_to_watch_in_the_middle_hears_of_the_start_then(house: House) -> None:
    house.watched.clear()
    watch, call = house.open_watch(), Call(usage=Usage(output_tokens=5))
    watch.note_started(call)
    await watch.tell(house.publish)
    assert house.take() == []
    house.watched.add(ANN)
    await watch.tell(house.publish)
    assert [name for name, _ in house.take()] == ["chat-started", "chat-progress"]


async def test_chats_of_others_are_not_told(house: House) -> None:
    watch, call = house.open_watch(), Call(user_id=BOB)
    watch.note_started(call)
    await watch.tell(house.publish)
    watch.note_ended(call, call.settle())
    await watch.tell(house.publish)
    assert house.take() == []
    assert house.asked == [{BOB}, {BOB}]


async def test_a_call_whose_charge_nobody_knows_has_no_end_that_is_told(house: House) -> None:
    watch, call = house.open_watch(), Call()
    watch.note_started(call)
    watch.note_ended(call, None)
    await watch.tell(house.publish)
    assert house.take() == []


async def test_an_outage_is_outwaited_and_keeps_nothing(house: House, autojump_clock: MockClock) -> None:
    watch, early, late = house.open_watch(), Call(), Call()
    house.is_away = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.keep_telling, house.publish)
        watch.note_started(early)
        watch.note_ended(early, early.settle())
        await trio.sleep(5)
        assert len(house.asked) == 1, "nothing is left to tell, so nobody is asked again"
        house.is_away = False
        watch.note_started(late)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [payload["requestId"] for _, payload in house.take()] == [str(late.request_id)]


async def test_redis_is_not_asked_while_no_call_runs(house: House, autojump_clock: MockClock) -> None:
    watch, call = house.open_watch(), Call()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.keep_telling, house.publish)
        await trio.sleep(60)
        assert house.asked == []
        watch.note_started(call)
        await trio.sleep(2.5)
        watch.note_ended(call, call.settle())
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert len(house.asked) == 3


async def test_what_ends_in_one_round_is_bounded(house: House) -> None:
    watch = house.open_watch()
    for _ in range(MOST_ENDED + 10):
        call = Call()
        watch.note_started(call)
        watch.note_ended(call, call.settle())
    await watch.tell(house.publish)
    assert len(house.take()) == 2 * MOST_ENDED
