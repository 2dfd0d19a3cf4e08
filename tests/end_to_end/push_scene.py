"""Phones with tokens, and desktops that tell of their jobs: what tests of pushes do with a server."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import trio

from server.auth.tokens import issue_token
from tests.end_to_end.asking import Reply, read_reply
from tests.end_to_end.caller import build_request, open_caller
from tests.end_to_end.cloche import SECRET, Cloche, Customer

Platform = Literal["ios", "android"]
Row = tuple[str, str, int]
"""Of a delivery: token, state, attempts."""

STATES = """
    SELECT token, state, attempts FROM notification_deliveries JOIN push_tokens ON push_tokens.id = token_id
"""


@dataclass(frozen=True, slots=True)
class Phone:
    """`owner` is the user on this device."""

    owner: Customer
    token: str


async def send(
    cloche: Cloche, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> Reply:
    """On a connection of its own. Names of headers come back in lower case."""
    encoded = b"" if body is None else json.dumps(body).encode()
    async with open_caller(cloche) as caller:
        sent_at = trio.current_time()
        await caller.stream.send_all(build_request(path, {**headers, "Connection": "close"}, encoded, method))
        text = await caller.read_all()
    return read_reply(text, sent_at, trio.current_time() - sent_at)


def move(owner: Customer) -> Customer:
    """The same user, signed in on another device."""
    device = str(uuid4())
    token = issue_token(
        SECRET, user_id=owner.user_id, email="ann@example.com", role="user", device_id=device, now=time.time(), days=1
    )
    return Customer(
        owner.user_id, {"Authorization": f"Bearer {token}", "X-Device-ID": device, "X-Token-Binding": device}
    )


def make_token() -> str:
    """As iOS writes its own."""
    return uuid4().hex + uuid4().hex


async def put_token(cloche: Cloche, owner: Customer, token: str, platform: Platform = "ios") -> None:
    headers = {**owner.headers, "X-Client-Type": "mobile"}
    body = {"platform": platform, "token": token}
    reply = await send(cloche, "PUT", "/api/devices/push-token", headers, body)
    assert (reply.status, reply.json) == (200, {"success": True}), reply


async def add_phone(cloche: Cloche, user: Customer, token: str = "", platform: Platform = "ios") -> Phone:
    """A further device of the user's, whose token has come."""
    phone = Phone(move(user), token or make_token())
    await put_token(cloche, phone.owner, phone.token, platform)
    return phone


async def notify(cloche: Cloche, user: Customer, kind: str = "job-completed", **members: Any) -> int:
    """What a desktop says of a job. How many phones it is on its way to."""
    body = {"jobId": "job-1", "title": "Done", "body": "It is done", **members}
    reply = await send(cloche, "POST", f"/api/notifications/{kind}", user.headers, body)
    assert reply.status == 200, reply
    assert reply.json["success"] is True
    assert reply.json["failedCount"] == 0
    return int(reply.json["sentCount"])


def find_deliveries(cloche: Cloche) -> list[Row]:
    """Of all tokens that are still there."""
    return [(token, state, attempts) for token, state, attempts in cloche.query(STATES)]


async def wait_none_due(cloche: Cloche, seconds: float = 15) -> None:
    """Until nothing is on its way any more."""
    with trio.fail_after(seconds):
        while cloche.query("SELECT 1 FROM notification_deliveries WHERE state = 'due' LIMIT 1"):
            await trio.sleep(0.02)
