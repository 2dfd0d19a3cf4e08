"""What the apps ask over HTTP before they connect."""

import httpx2

from scripts.device_link.device import Identity
from scripts.device_link.link import LinkRefused

DESKTOP = {
    "deviceType": "desktop",
    "platform": "linux",
    "platformVersion": "linux",
    "appVersion": "1.2.3",
    "relayEligible": True,
    "capabilities": {"supportsTerminal": True, "activeProjectDirectory": "/home/me/project"},
}
PHONE = {"platform": "ios", "appVersion": "1.2.3"}


class DeviceRefused(Exception):
    """401 or 403: the desktop stops until somebody signs in again."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server refuses this device: {status}")
        self.status = status


class Announcer:
    """Of as many devices as may be, by one client."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def announce(self, url: str, identity: Identity) -> None:
        """Raises DeviceRefused; or LinkRefused for what may be tried again."""
        path, body = build_announcement(identity)
        try:
            answer = await self._client.post(url + path, json=body, headers=identity.upgrade_headers)
        except httpx2.TransportError as error:
            raise LinkRefused(0, {}, str(error).encode()) from error
        if answer.status_code in {401, 403}:
            raise DeviceRefused(answer.status_code)
        if not (answer.is_success or answer.status_code == 409):
            raise LinkRefused(answer.status_code, dict(answer.headers), answer.content)


def build_announcement(identity: Identity) -> tuple[str, dict[str, object]]:
    """Path and body."""
    if identity.client_type == "desktop":
        return "/api/devices/register", {"deviceName": identity.name, **DESKTOP}
    return "/api/devices/mobile/register", {"deviceName": identity.name, **PHONE}
