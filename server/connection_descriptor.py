"""How a desktop can be reached, said in a way that shows whether anybody has changed it. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from server.times import show_exact_time
from storage.devices import Device

RELAY_PATH = "/ws/device-link"
LIFETIME = timedelta(hours=24)
PURPOSE = b"cloche connection descriptor"


class ConnectionInfo(msgspec.Struct, rename="camel"):
    """`relayUrl` is where devices meet. Times are UTC."""

    device_id: UUID
    relay_url: str
    local_ips: Sequence[str]
    available_ports: Sequence[int]
    relay_eligible: bool
    issued_at: str
    expires_at: str


class ConnectionDescriptorAnswer(msgspec.Struct, rename="camel"):
    """`signature` is base64url, without padding, of the HMAC-SHA256 of `connectionInfo` in canonical JSON: UTF-8, names
    sorted, no spaces. This server alone has its key.
    """

    connection_info: ConnectionInfo
    signature: str
    expires_at: str


def build_descriptor(device: Device, server_url: str, key: bytes, now: datetime) -> ConnectionDescriptorAnswer:
    expires_at = show_exact_time(now + LIFETIME)
    info = ConnectionInfo(
        device_id=device.device_id,
        relay_url=build_relay_url(server_url),
        local_ips=device.local_ips,
        available_ports=device.available_ports,
        relay_eligible=device.relay_eligible,
        issued_at=show_exact_time(now),
        expires_at=expires_at,
    )
    return ConnectionDescriptorAnswer(info, sign_info(info, key), expires_at)


def is_reachable(device: Device) -> bool:
    """A phone is at nobody's service, nor is a desktop that does not want to be."""
    return device.device_type == "desktop" and device.relay_eligible


def build_relay_url(server_url: str) -> str:
    """`server_url` is http or https, without a slash at its end."""
    scheme, _, rest = server_url.partition("://")
    return f"{'wss' if scheme.lower() == 'https' else 'ws'}://{rest}{RELAY_PATH}"


def derive_key(secret: str) -> bytes:
    """A key that is good for nothing else, and tells nothing of the secret."""
    return hmac.digest(secret.encode(), PURPOSE, hashlib.sha256)


def sign_info(info: ConnectionInfo, key: bytes) -> str:
    canonical = msgspec.json.encode(msgspec.to_builtins(info), order="sorted")
    return base64.urlsafe_b64encode(hmac.digest(key, canonical, hashlib.sha256)).rstrip(b"=").decode()
