"""Fifty users who chat with two servers as people do, and leave when they like; and what each chat must have cost.

What a chat costs is known here without asking the servers: of a finished answer from the usage that the provider
reported, of one that was cut from the pieces that its client has read. Clients that leave in mid-flow close their half
of the connection and read on until the server closes too: so they know what reached their socket, to the last byte.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import uuid4

import trio

from storage.bookings import Bookings
from storage.postgres import Database
from storage.spending_limits import NewLimit, set_spending_limit
from tests.end_to_end.caller import OPENAI, SHIPPED, Caller, build_chat, build_request, open_caller
from tests.end_to_end.cloche import Cloche, Customer
from tests.end_to_end.test_api_keys import make
from tests.end_to_end.test_leaving import deltas, price, price_of_deltas, prompt_tokens, read_number, says_and_waits
from tests.fakes import Pause, RecordedRequest, Reset, SendChunk, Step, WaitForClose, openai_stream, upto_chunks

Kind = Literal["stays", "flow", "cut", "breaks", "early", "taken"]
KINDS: dict[Kind, int] = {"stays": 45, "flow": 30, "cut": 10, "breaks": 5, "early": 5, "taken": 5}
"""In a hundred. `flow`: the client leaves while pieces come; `cut`: when no more come; `breaks`: the provider does;
`early`: nobody has answered; `taken`: the provider has begun and said nothing yet.
"""
USERS = 50
HOLD_USD = Decimal("0.0016")
"""What every chat holds, and a little more: a thousand tokens of output."""
MEAN_USD = Decimal("0.0004")
PIECE = b'"content":" '
RICH_USD = Decimal(20)


@dataclass(frozen=True, slots=True)
class Plan:
    """One chat. `pieces` is how many the provider says, or its client waits for."""

    kind: Kind
    pieces: int
    usage: tuple[int, int]
    path: str
    streams: bool
    delay_seconds: float
    resets: bool


@dataclass(frozen=True, slots=True)
class User:
    """`headers` are those of a person, or of an API key. `granted_usd` is free and paid credits together."""

    customer: Customer
    headers: dict[str, str] = field(repr=False)
    granted_usd: Decimal


@dataclass(slots=True)
class Recount:
    """What the chats of each user must have cost, one by one, and what came of them."""

    costs: defaultdict[int, list[Decimal]] = field(default_factory=lambda: defaultdict(list))
    uncertain: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Chats of the kind `taken`: only the server knows whether the provider had begun when the client left."""
    statuses: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, user: int, usd: Decimal) -> None:
        if usd:
            self.costs[user].append(usd)


def draw_plans(chats: int, chance: random.Random) -> list[Plan]:
    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=chats)
    return [
        Plan(
            kind=kind,
            pieces=chance.choice([1, 2, 3, 5, 8, 13, 20]),
            usage=(chance.randint(5, 400), chance.randint(1, 900)),
            path=chance.choice([SHIPPED, OPENAI]),
            streams=kind != "stays" or chance.random() < 0.8,
            delay_seconds=chance.uniform(0, 0.02),
            resets=chance.random() < 0.5,
        )
        for kind in kinds
    ]


@dataclass(frozen=True, slots=True)
class Provider:
    """Does as the plan of a chat says; its number stands in the prompt."""

    plans: Sequence[Plan]

    def respond(self, request: RecordedRequest) -> Iterable[Step]:
        number = read_number(request)
        plan = self.plans[number]
        match plan.kind:
            case "stays":
                return openai_stream(deltas(plan.pieces), usage=plan.usage)
            case "flow":
                return flow(random.Random(number))  # noqa: S311 - a test that can be repeated
            case "cut":
                return says_and_waits(plan.pieces)
            case "breaks":
                said = upto_chunks(openai_stream(deltas(plan.pieces)), plan.pieces + 1)
                return [*said, Pause(0.005), Reset()]
            case "early":
                return [WaitForClose()]
            case "taken":
                return says_and_waits(0)


def flow(chance: random.Random) -> Iterable[Step]:
    """Pieces without an end, now and then several at once."""
    count = 0
    for step in openai_stream(deltas(400)):
        yield step
        count += isinstance(step, SendChunk)
        if chance.random() < 0.7:
            yield Pause(chance.uniform(0, 0.002))
        if count == 400:
            break
    yield WaitForClose()


async def make_users(cloche: Cloche, database: Database, chats_each: int) -> list[User]:
    """Rich and poor, with free credits and paid ones; two in ten have a limit, and one of these is an API key's."""
    tight_usd = HOLD_USD + MEAN_USD * chats_each / 2
    return [await make_user(cloche, database, number % 10, tight_usd) for number in range(USERS)]


async def make_user(cloche: Cloche, database: Database, manner: int, tight_usd: Decimal) -> User:
    free_usd, paid_usd = {
        1: (RICH_USD, Decimal(0)),
        3: (tight_usd, RICH_USD),  # both
        4: (Decimal(0), tight_usd),  # runs dry
        5: (tight_usd, Decimal(0)),  # the same
        7: (tight_usd / 2, tight_usd / 2),  # the same
    }.get(manner, (Decimal(0), RICH_USD))
    customer = await cloche.make_customer(str(paid_usd))
    if free_usd:
        soon = datetime.now(UTC) + timedelta(days=1)
        key = f"bonus:{uuid4()}"
        await Bookings(database).grant_free(
            customer.user_id, free_usd, soon, idempotency_key=key, description="test"
        )
    headers, api_key_id = dict(customer.headers), None
    if manner == 0:
        made = await make(cloche, customer)
        headers, api_key_id = {"X-API-Key": made["key"]}, made["id"]
    if manner in {0, 6}:
        async with database.as_operator("test").transaction() as connection:
            await set_spending_limit(connection, customer.user_id, NewLimit(api_key_id, "day", tight_usd))
    return User(customer, headers, free_usd + paid_usd)


async def chat(cloche: Cloche, user: User, number: int, plan: Plan, owner: int, recount: Recount) -> None:
    """One chat on a connection of its own, as planned; notes what it must have cost."""
    async with open_caller(cloche) as caller:
        body = json.dumps(build_chat(f"Number {number}", stream=plan.streams)).encode()
        headers = {**user.headers, "Connection": "close"}
        await caller.stream.send_all(build_request(plan.path, headers, body))
        if plan.kind in {"early", "taken"}:
            await trio.sleep(plan.delay_seconds)
            recount.uncertain[owner] += plan.kind == "taken"
            recount.statuses[plan.kind] += 1
            leave(caller, plan)
            return
        if plan.kind == "cut":
            await read_pieces(caller, plan.pieces)
            is_refused = not caller.text.startswith(b"HTTP/1.1 200")
            leave(caller, plan)
        else:
            await read_and_leave(caller, plan)
            is_refused = not caller.text.startswith(b"HTTP/1.1 200")
    status = caller.text[9:12].decode() if is_refused else plan.kind
    recount.statuses[status] += 1
    recount.note(owner, Decimal(0) if is_refused else find_cost(caller.text, number, plan))


def find_cost(text: bytes, number: int, plan: Plan) -> Decimal:
    if plan.kind == "stays":
        assert not plan.streams or b"[DONE]" in text or b"stream_completed" in text, text[-2000:]
        return price(*plan.usage)
    seen = text.count(PIECE)
    return price_of_deltas(seen, prompt_tokens(number)) if seen else Decimal(0)


async def read_pieces(caller: Caller, count: int) -> None:
    """Until so many have come, or the connection ends: the chat was refused."""
    with trio.fail_after(30):
        while caller.text.count(PIECE) < count and (data := await caller.stream.receive_some(65536)):
            caller.text += data


async def read_and_leave(caller: Caller, plan: Plan) -> None:
    """To the end; a client that leaves in mid-flow says so by closing its half."""
    if plan.kind == "flow":
        await read_pieces(caller, plan.pieces)
        await caller.stream.send_eof()
    with trio.fail_after(30):
        while data := await caller.stream.receive_some(65536):
            caller.text += data


def leave(caller: Caller, plan: Plan) -> None:
    if plan.resets:
        caller.reset()
    else:
        caller.leave()
