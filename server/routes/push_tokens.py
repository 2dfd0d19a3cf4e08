"""Push tokens: where the caller's phones can be reached while their app is asleep. Told by the app, and to nobody."""

from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec
from quart import Blueprint, request

from server.device_registration import read_device_id
from server.errors import NotFound
from server.guard import caller
from server.operations import operation
from server.push_token_rules import check_environment, check_platform, check_push_token
from server.routes.devices import UNKNOWN
from server.services import services
from server.times import show_exact_time

DEVICE_ID = {"X-Device-ID": "The UUID of the device that calls."}

blueprint = Blueprint("push_tokens", __name__, url_prefix="/api/devices")


class PushTokenWish(msgspec.Struct, rename="camel"):
    """The token as APNs (in hexadecimal) or FCM gave it, under one of three names; the first counts. `platform` is
    `ios` or `android`; without it, it is what the device has said before, else `ios`. `environment` is `production`
    or `sandbox`, where APNs knows the token; without it both are tried.
    """

    token: str | None = None
    push_token: str | None = None
    device_token: str | None = None
    platform: str | None = None
    environment: str | None = None


class PushTokenAnswer(msgspec.Struct):
    success: bool


class DevicePushTokenAnswer(msgspec.Struct):
    """When it was saved, UTC."""

    status: Literal["push_token_saved"]
    timestamp: str


@blueprint.put("/push-token")
@blueprint.post("/push-token")
@blueprint.post("/push/register")
@operation("Say where pushes reach your device", headers=DEVICE_ID)
async def save_own(body: PushTokenWish) -> PushTokenAnswer:
    """The device's only token from now on; another device that had it has none. Safe to repeat."""
    await _save(read_device_id(request.headers), body, makes_device=True)
    return PushTokenAnswer(success=True)


@blueprint.put("/<uuid:device_id>/push-token")
@blueprint.post("/<uuid:device_id>/push-token")
@operation("Say where pushes reach one of your devices")
async def save(device_id: UUID, body: PushTokenWish) -> DevicePushTokenAnswer:
    """The device's only token from now on; another device that had it has none. Safe to repeat."""
    if not await _save(device_id, body, makes_device=False):
        raise NotFound(UNKNOWN)
    return DevicePushTokenAnswer("push_token_saved", show_exact_time(datetime.now(UTC)))


async def _save(device_id: UUID, body: PushTokenWish, *, makes_device: bool) -> bool:
    """False if a device that is not to be made is none of the caller's."""
    tokens, user_id = services().push.tokens, caller().user_id
    platform = check_platform(body.platform, await tokens.find_device_platform(user_id, device_id))
    token = check_push_token(body.token or body.push_token or body.device_token, platform)
    environment = check_environment(body.environment, platform)
    return await tokens.save(user_id, device_id, platform, token, environment, makes_device=makes_device)
