"""Devices that register over HTTP, as the shipped clients do."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from storage.accounts import User
from storage.presence import ClientType, Link
from tests.server.served import Answer, Served, token_headers

PATH = "/api/devices"
REGISTER = f"{PATH}/register"
MOBILE = f"{PATH}/mobile/register"
DEVICE = "d1d1d1d1-0000-4000-8000-00000000000d"
PHONE_ID = "a2a2a2a2-0000-4000-8000-00000000000a"
DESKTOP = {
    "deviceName": "Studio",
    "deviceType": "desktop",
    "platform": "macos",
    "platformVersion": "macos",
    "appVersion": "1.2.3",
    "relayEligible": True,
    "capabilities": {"supportsTerminal": True, "activeProjectDirectory": "/home/me/proj"},
}
PHONE = {"deviceName": "iPhone", "platform": "ios", "appVersion": "1.2.3"}


async def ask(
    served: Served, user: User, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return await served.ask(method, path, {**token_headers(user), **(headers or {})}, data)


async def register(served: Served, user: User, device_id: str = DEVICE, **changes: object) -> Answer:
    headers = {"X-Device-ID": device_id, "X-Token-Binding": device_id, "X-Client-Type": "desktop"}
    return await ask(served, user, "POST", REGISTER, {**DESKTOP, **changes}, headers)


async def register_phone(served: Served, user: User, **changes: object) -> Answer:
    return await ask(served, user, "POST", MOBILE, {**PHONE, **changes}, {"X-Device-ID": PHONE_ID.upper()})


async def show(served: Served, user: User, query: str = "") -> Any:
    answer = await ask(served, user, "GET", PATH + query)
    assert answer.status == 200, answer.body
    return answer.json


def link(device_id: str = DEVICE, client_type: ClientType = "desktop", *, is_visible: bool = True) -> Link:
    return Link(UUID(device_id), uuid4(), "here", client_type, "Studio", is_visible)


@asynccontextmanager
async def open_link(served: Served, user: User, one: Link) -> AsyncIterator[None]:
    """A connection of a device, which will not be back."""
    async with served.services.presence.open_link(user.id, one) as held:
        held.grace_seconds = 0
        yield


def tell_error(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.json["error_type"], answer.json["message"]
