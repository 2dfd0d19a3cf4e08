"""What devices say of themselves, checked as the shipped clients expect it, down to the words of refusals. Pure."""

import ipaddress
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec

from server.auth.tokens import Headers
from server.dialects.bounds import check_passed_on
from server.errors import DeviceInvalid, RequestInvalid
from storage.devices import Registration, Status, Vitals
from storage.push_tokens import PushPlatform

DESKTOP_PLATFORMS = ("macos", "windows", "linux")
NO_NAME = "unknown"
MAX_CAPABILITIES_BYTES = 64 * 1024
MAX_ADDRESSES = 64
MAX_PORT = 65535
MAX_NUMBER = 2**63 - 1
"""Of capabilities. PostgreSQL writes a larger one out in full, and readers of JSON stumble over its digits."""
MAX_JOBS = 2**31 - 1
MAX_TOKEN = 4096

NO_NUL = r"^[^\u0000]*$"
"""PostgreSQL keeps none: https://www.postgresql.org/docs/current/datatype-character.html"""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

ShortText = Annotated[str, msgspec.Meta(max_length=50, pattern=NO_NUL)]
VersionText = Annotated[str, msgspec.Meta(max_length=100, pattern=NO_NUL)]
NameText = Annotated[str, msgspec.Meta(max_length=255, pattern=NO_NUL)]
TokenText = Annotated[str, msgspec.Meta(max_length=MAX_TOKEN, pattern=NO_NUL)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Port = Annotated[int, msgspec.Meta(ge=0, le=MAX_PORT)]
Gigabytes = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
Jobs = Annotated[int, msgspec.Meta(ge=0, le=MAX_JOBS)]
Addresses = Annotated[list[VersionText], msgspec.Meta(max_length=MAX_ADDRESSES)]
Ports = Annotated[list[Port], msgspec.Meta(max_length=MAX_ADDRESSES)]


class DesktopRegistrationWish(msgspec.Struct, rename="camel"):
    """A desktop, as it is now. `platform` is `macos`, `windows` or `linux`. Members of `capabilities` are what they
    like, but have no underscore in their names. Null counts as absent.
    """

    device_name: NameText
    platform: str
    app_version: ShortText
    device_type: str | None = None
    platform_version: VersionText | None = None
    local_ips: Addresses | None = None
    public_ip: str | None = None
    relay_eligible: bool | None = None
    available_ports: Ports | None = None
    capabilities: Any = None


class MobileRegistrationWish(msgspec.Struct, rename="camel"):
    """A phone, as it is now. A `pushToken` is kept for platforms `ios` and `android`. Null counts as absent."""

    device_name: NameText
    platform: ShortText
    app_version: ShortText
    capabilities: Any = None
    push_token: TokenText | None = None

    def __repr__(self) -> str:
        return f"MobileRegistrationWish(platform={self.platform!r})"


class HeartbeatWish(msgspec.Struct, rename="camel"):
    """How a device is. What is absent or null stays as it was told before; `status` is `online` then, and `activeJobs`
    0. Usage is in percent.
    """

    cpu_usage: Percent | None = None
    memory_usage: Percent | None = None
    disk_space_gb: Gigabytes | None = None
    active_jobs: Jobs | None = None
    status: Status | None = None


def read_device_id(headers: Headers) -> UUID:
    """Of the device that calls. Raises DeviceInvalid."""
    device_id = _read_uuid(headers.get("X-Device-ID"))
    if device_id is None:
        raise DeviceInvalid("X-Device-ID must be the UUID of your device")
    return device_id


def check_desktop(wish: DesktopRegistrationWish, headers: Headers) -> Registration:
    """Raises DeviceInvalid, with the one word that clients know, and RequestInvalid; the first of several faults is
    told, in the order in which clients have always been told them.
    """
    device_id = read_device_id(headers)
    capabilities = check_capabilities(wish.capabilities)
    platform = wish.platform.lower()
    _demand((headers.get("X-Client-Type") or "").strip().lower() == "desktop", "invalid_client_type")
    _demand(platform in DESKTOP_PLATFORMS, "invalid_platform")
    _demand(wish.device_type is None or wish.device_type.lower() == "desktop", "invalid_device_type_for_endpoint")
    _demand(wish.device_name.strip().lower() not in {"", NO_NAME}, "invalid_device_name")
    _demand(bool(wish.app_version.strip()), "invalid_app_version")
    _check_binding(device_id, headers.get("X-Token-Binding"))
    return Registration(
        device_id=device_id,
        device_name=wish.device_name,
        device_type="desktop",
        platform=platform,
        platform_version=wish.platform_version,
        app_version=wish.app_version,
        local_ips=wish.local_ips,
        public_ip=_read_address(wish.public_ip),
        available_ports=wish.available_ports,
        relay_eligible=wish.relay_eligible is not False,
        capabilities=capabilities,
    )


def check_mobile(wish: MobileRegistrationWish, headers: Headers) -> Registration:
    """A phone is nobody's to reach through the relay. Raises DeviceInvalid and RequestInvalid."""
    return Registration(
        device_id=read_device_id(headers),
        device_name=wish.device_name,
        device_type="mobile",
        platform=wish.platform,
        platform_version=None,
        app_version=wish.app_version,
        local_ips=None,
        public_ip=None,
        available_ports=None,
        relay_eligible=False,
        capabilities=check_capabilities(wish.capabilities),
    )


def check_capabilities(capabilities: Any) -> Any:
    """As they are kept: without the push token that clients used to put there, which is for nobody's eyes. Raises
    RequestInvalid for what cannot be kept, or would not pass the clients' own check of names.
    """
    if capabilities is None:
        return {}
    check_passed_on(capabilities, "capabilities")
    for value in _walk(capabilities):
        _check_part(value)
    if len(msgspec.json.encode(capabilities)) > MAX_CAPABILITIES_BYTES:
        raise RequestInvalid(f"capabilities: at most {MAX_CAPABILITIES_BYTES} bytes of JSON")
    if not isinstance(capabilities, dict):
        return capabilities
    return {name: value for name, value in capabilities.items() if name != "devicePushToken"}


def read_push_platform(platform: str) -> PushPlatform | None:
    """None: nothing pushes to it."""
    match platform.strip().lower():
        case "ios" | "android" as found:
            return found
    return None


def read_vitals(wish: HeartbeatWish | None) -> Vitals:
    if wish is None:
        return Vitals()
    return Vitals(
        status=wish.status or "online",
        cpu_usage=_read_percent(wish.cpu_usage),
        memory_usage=_read_percent(wish.memory_usage),
        disk_space_gb=wish.disk_space_gb,
        active_jobs=wish.active_jobs or 0,
    )


def _demand(holds: bool, word: str) -> None:
    if not holds:
        raise DeviceInvalid(word)


def _check_binding(device_id: UUID, told: str | None) -> None:
    """Where it is told at all, it is the device's id."""
    if told is not None:
        bound = _read_uuid(told)
        _demand(bound is not None, "invalid_token_binding_header")
        _demand(bound == device_id, "token_binding_mismatch")


def _check_part(value: object) -> None:
    match value:
        case dict() if any("_" in name for name in value):
            raise RequestInvalid("capabilities: names are camelCase, without an underscore")
        case dict() if any("\0" in name for name in value):
            raise RequestInvalid("capabilities: no NUL character")
        case str() if "\0" in value:
            raise RequestInvalid("capabilities: no NUL character")
        case int() | float() if abs(value) > MAX_NUMBER:
            raise RequestInvalid(f"capabilities: numbers up to {MAX_NUMBER}")


def _walk(value: Any) -> Iterator[Any]:
    """The value, and all that is in it."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, dict):
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _read_uuid(text: str | None) -> UUID | None:
    """Written as clients write it: `UUID` also takes braces, and none of the dashes."""
    found = (text or "").strip()
    return UUID(found) if _UUID.fullmatch(found) else None


def _read_address(text: str | None) -> str | None:
    """None for what is no address, or names an interface of its machine."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else str(address)


def _read_percent(percent: float | None) -> Decimal | None:
    return None if percent is None else Decimal(str(percent))
