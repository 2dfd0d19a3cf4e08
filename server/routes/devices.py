"""Devices of the caller: what they say of themselves, which of them are there, and how they can be reached. Nobody sees
or changes the devices of somebody else: an id of theirs is as unknown as any other.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import trio
from quart import Blueprint, request

from server.connection_descriptor import ConnectionDescriptorAnswer, build_descriptor, derive_key, is_reachable
from server.device_registration import (
    DesktopRegistrationWish,
    HeartbeatWish,
    MobileRegistrationWish,
    check_desktop,
    check_mobile,
    read_device_id,
    read_push_platform,
    read_vitals,
)
from server.errors import NotFound
from server.guard import caller
from server.operations import operation
from server.push_token_rules import check_push_token
from server.services import services
from server.times import show_exact_time
from storage.devices import Device, Status
from storage.errors import RedisUnavailable
from storage.presence import Link

DEVICE_ID = {"X-Device-ID": "The UUID of the device that calls."}
DESKTOP = {
    **DEVICE_ID,
    "X-Client-Type": "`desktop`.",
    "X-Token-Binding": "The device's UUID again, if it is sent at all.",
}
UNKNOWN = "you have no such device; GET /api/devices lists your desktops"

Flag = Annotated[str, msgspec.Meta(pattern="^(true|false|1|0)$")]

blueprint = Blueprint("devices", __name__, url_prefix="/api/devices")


class DevicesQuery(msgspec.Struct):
    """Each parameter has two spellings; the first counts if both are there."""

    type_camel: str | None = msgspec.field(default=None, name="deviceType")
    type_snake: str | None = msgspec.field(default=None, name="device_type")
    connected_camel: Flag | None = msgspec.field(default=None, name="connectedOnly")
    connected_snake: Flag | None = msgspec.field(default=None, name="connected_only")


class DeviceAnswer(msgspec.Struct, rename="camel"):
    """`status` and `isConnected` tell whether it can be reached at this moment; all else is what it told of itself.
    Usage is in percent; times are UTC, with six digits of a second.
    """

    device_id: UUID
    device_name: str
    device_type: str
    platform: str
    platform_version: str | None
    app_version: str
    status: Literal["online", "offline"]
    is_connected: bool
    last_heartbeat: str | None
    cpu_usage: Decimal | None
    memory_usage: Decimal | None
    disk_space_gb: int | None
    active_jobs: int
    capabilities: Any
    created_at: str
    updated_at: str


class DesktopRegisteredAnswer(msgspec.Struct, rename="camel"):
    """`status` is `online` if the desktop may be reached through the relay. Times are UTC."""

    device_id: UUID
    status: Status
    created_at: str
    updated_at: str


class MobileRegisteredAnswer(msgspec.Struct, rename="camel"):
    device_id: UUID
    device_name: str
    device_type: str
    platform: str
    app_version: str
    is_connected: bool


class HeartbeatAnswer(msgspec.Struct):
    """`timestamp` is when it was noted, UTC."""

    status: str
    timestamp: str


@blueprint.get("")
@operation("List your desktops")
async def show(query: DevicesQuery) -> list[DeviceAnswer]:
    """Those that have registered; the one that was heard of last comes first. Phones are not listed, so that any other
    `deviceType` than `desktop` has none.
    """
    who = caller()
    wanted = query.type_camel or query.type_snake
    is_connected_only = (query.connected_camel or query.connected_snake) in {"true", "1"}
    found = await services().devices.list_desktops(who.user_id)
    links = await services().presence.list_links(who.user_id) if found else {}
    described = [_describe(device, links) for device in found if wanted in {None, device.device_type}]
    return [device for device in described if device.is_connected or not is_connected_only]


@blueprint.post("/register")
@operation("Register a desktop", status=201, headers=DESKTOP)
async def register(body: DesktopRegistrationWish) -> DesktopRegisteredAnswer:
    """Everything that it says replaces what it said before. Safe to repeat. You have a hundred devices at most: the one
    that was heard of longest ago is unlinked for one more.
    """
    registration = check_desktop(body, request.headers)
    device = await services().devices.register(caller().user_id, registration)
    return DesktopRegisteredAnswer(
        device.device_id, device.status, show_exact_time(device.created_at), show_exact_time(device.updated_at)
    )


@blueprint.post("/mobile/register")
@operation("Register a phone", status=201, headers=DEVICE_ID)
async def register_mobile(body: MobileRegistrationWish) -> MobileRegisteredAnswer:
    """Everything that it says replaces what it said before; a push token stays until another one comes. Safe to repeat.
    You have a hundred devices at most: the one that was heard of longest ago is unlinked for one more.
    """
    who = caller()
    registration = check_mobile(body, request.headers)
    platform = read_push_platform(body.platform)
    token = check_push_token(body.push_token, platform) if body.push_token and platform else None
    device = await services().devices.register(who.user_id, registration)
    if token and platform:
        await services().push.tokens.save(who.user_id, device.device_id, platform, token)
    return MobileRegisteredAnswer(
        device_id=device.device_id,
        device_name=device.device_name,
        device_type=device.device_type,
        platform=device.platform,
        app_version=device.app_version,
        is_connected=False,
    )


@blueprint.delete("/<uuid:device_id>")
@operation("Unlink a device")
async def unlink(device_id: UUID) -> None:
    """It is listed no more, can be reached no more, and gets no more pushes, until it registers again. Your devices are
    told of it.
    """
    if not await _unlink(caller().user_id, device_id):
        raise NotFound(UNKNOWN)


@blueprint.post("/<uuid:device_id>/heartbeat")
@operation("Say how a device is")
async def note_heartbeat(device_id: UUID, body: HeartbeatWish) -> HeartbeatAnswer:
    return await _note_heartbeat(device_id, body)


@blueprint.post("/heartbeat")
@operation("Say how the device that calls is", headers=DEVICE_ID)
async def note_own_heartbeat(body: HeartbeatWish | None) -> HeartbeatAnswer:
    return await _note_heartbeat(read_device_id(request.headers), body)


@blueprint.get("/<uuid:device_id>/connection-descriptor")
@operation("Show how a desktop can be reached")
async def show_descriptor(device_id: UUID) -> ConnectionDescriptorAnswer:
    """Of a desktop that has registered and may be reached. Holds for a day."""
    device = await services().devices.find(caller().user_id, device_id)
    if device is None or not is_reachable(device):
        raise NotFound("you have no such desktop that may be reached; GET /api/devices lists your desktops")
    config = services().config
    return build_descriptor(device, config.server_url, derive_key(config.jwt_secret), datetime.now(UTC))


def is_online(link: Link | None) -> bool:
    """Whether a desktop is there for others: one that hides is not, and no other kind of client stands in for it."""
    return link is not None and link.client_type == "desktop" and link.is_visible


async def _unlink(user_id: UUID, device_id: UUID) -> bool:
    """To its end, also if the client leaves meanwhile. Every step has a deadline of its own. Whoever repeats it after a
    crash finds a link without a row.
    """
    with trio.CancelScope(shield=True):
        was_known = await services().devices.unlink(user_id, device_id)
        was_linked = await services().presence.drop(user_id, device_id)
        with suppress(RedisUnavailable):  # a session that is left resumes a link, and no row
            await services().relay.forget_device(user_id, device_id)
        if was_known or was_linked:
            await services().presence.tell(user_id, "device-unlinked", {"deviceId": str(device_id)})
    return was_known or was_linked


async def _note_heartbeat(device_id: UUID, body: HeartbeatWish | None) -> HeartbeatAnswer:
    noted_at = await services().devices.note_heartbeat(caller().user_id, device_id, read_vitals(body))
    if noted_at is None:
        raise NotFound(UNKNOWN)
    return HeartbeatAnswer("heartbeat_updated", show_exact_time(noted_at))


def _describe(device: Device, links: Mapping[UUID, Link]) -> DeviceAnswer:
    is_connected = is_online(links.get(device.device_id))
    return DeviceAnswer(
        device_id=device.device_id,
        device_name=device.device_name,
        device_type=device.device_type,
        platform=device.platform,
        platform_version=device.platform_version,
        app_version=device.app_version,
        status="online" if is_connected else "offline",
        is_connected=is_connected,
        last_heartbeat=None if device.last_heartbeat is None else show_exact_time(device.last_heartbeat),
        cpu_usage=device.cpu_usage,
        memory_usage=device.memory_usage,
        disk_space_gb=device.disk_space_gb,
        active_jobs=device.active_jobs,
        capabilities=device.capabilities,
        created_at=show_exact_time(device.created_at),
        updated_at=show_exact_time(device.updated_at),
    )
