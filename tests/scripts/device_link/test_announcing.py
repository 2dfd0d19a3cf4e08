"""What the apps ask before they connect, and what they make of the answer."""

import httpx2
import pytest

from scripts.device_link.announcing import Announcer, DeviceRefused, build_announcement
from scripts.device_link.device import Identity
from scripts.device_link.link import LinkRefused

STUDIO = Identity("d-1", "desktop", "Studio", {"X-Device-ID": "d-1"})


async def announce(status: int) -> list[httpx2.Request]:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(status)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        await Announcer(client).announce("http://127.0.0.1:9", STUDIO)
    return asked


def test_a_desktop_and_a_phone_say_what_they_are() -> None:
    path, body = build_announcement(STUDIO)
    assert (path, body["deviceName"], body["deviceType"]) == ("/api/devices/register", "Studio", "desktop")
    path, body = build_announcement(Identity("d-2", "mobile", "iPhone", {}))
    assert (path, body) == (
        "/api/devices/mobile/register",
        {"deviceName": "iPhone", "platform": "ios", "appVersion": "1.2.3"},
    )


@pytest.mark.parametrize("status", [200, 201, 409])
async def test_a_device_that_is_known_already_is_welcome_too(status: int) -> None:
    (request,) = await announce(status)
    assert (request.headers["X-Client-Type"], request.headers["X-Device-ID"]) == ("desktop", "d-1")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_for_good(status: int) -> None:
    with pytest.raises(DeviceRefused):
        await announce(status)


async def test_anything_else_may_be_tried_again() -> None:
    with pytest.raises(LinkRefused):
        await announce(503)
    async with httpx2.AsyncClient(trust_env=False) as client:
        with pytest.raises(LinkRefused):
            await Announcer(client).announce("http://127.0.0.1:9", STUDIO)
