"""Connection descriptors: their form, and a signature over every byte of it."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from server.connection_descriptor import build_descriptor, build_relay_url, derive_key, is_reachable
from storage.devices import Device

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
SECRET = "a secret that signs something else"
DEVICE = Device(
    device_id=UUID("d1d1d1d1-0000-4000-8000-00000000000d"),
    device_name="Stüdio",
    device_type="desktop",
    platform="macos",
    platform_version=None,
    app_version="1.2.3",
    status="online",
    last_heartbeat=NOW,
    cpu_usage=None,
    memory_usage=None,
    disk_space_gb=None,
    active_jobs=0,
    capabilities={},
    relay_eligible=True,
    local_ips=["10.0.0.1", "größer"],
    available_ports=[8080],
    created_at=NOW,
    updated_at=NOW,
)


def test_a_descriptor_says_where_to_meet_and_for_how_long() -> None:
    descriptor = build_descriptor(DEVICE, "https://cloche.example", derive_key(SECRET), NOW)
    told = json.loads(msgspec.json.encode(descriptor))
    assert told.pop("signature") == descriptor.signature
    assert told == {
        "connectionInfo": {
            "deviceId": "d1d1d1d1-0000-4000-8000-00000000000d",
            "relayUrl": "wss://cloche.example/ws/device-link",
            "localIps": ["10.0.0.1", "größer"],
            "availablePorts": [8080],
            "relayEligible": True,
            "issuedAt": "2026-02-03T04:05:06.000000Z",
            "expiresAt": "2026-02-04T04:05:06.000000Z",
        },
        "expiresAt": "2026-02-04T04:05:06.000000Z",
    }


def test_the_signature_is_over_the_canonical_json_of_what_is_told() -> None:
    key = derive_key(SECRET)
    told = json.loads(msgspec.json.encode(build_descriptor(DEVICE, "https://cloche.example", key, NOW)))
    canonical = json.dumps(told["connectionInfo"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    expected = base64.urlsafe_b64encode(hmac.digest(key, canonical, hashlib.sha256)).decode().rstrip("=")
    assert told["signature"] == expected


@pytest.mark.parametrize(
    "change", [{"local_ips": []}, {"device_id": UUID(int=1)}, {"available_ports": [1]}, {"relay_eligible": False}]
)
def test_another_device_has_another_signature(change: Mapping[str, Any]) -> None:
    devices = (DEVICE, replace(DEVICE, **change))
    one, other = (build_descriptor(device, "https://cloche.example", b"key", NOW) for device in devices)
    assert one.signature != other.signature


def test_the_key_follows_from_the_secret_and_is_not_the_secret() -> None:
    assert derive_key(SECRET) == derive_key(SECRET) != derive_key(f"{SECRET}.")
    plain = hmac.digest(SECRET.encode(), b"", hashlib.sha256)
    assert derive_key(SECRET) not in {SECRET.encode(), plain, hashlib.sha256(SECRET.encode()).digest()}


@pytest.mark.parametrize(
    ("server_url", "relay_url"),
    [
        ("https://cloche.example", "wss://cloche.example/ws/device-link"),
        ("HTTPS://cloche.example/eu", "wss://cloche.example/eu/ws/device-link"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws/device-link"),
    ],
)
def test_the_relay_is_where_the_server_is(server_url: str, relay_url: str) -> None:
    assert build_relay_url(server_url) == relay_url


@pytest.mark.parametrize(
    ("device", "reachable"),
    [
        (DEVICE, True),
        (replace(DEVICE, relay_eligible=False), False),
        (replace(DEVICE, device_type="mobile"), False),
    ],
)
def test_a_desktop_that_lets_itself_be_reached_is_reachable(device: Device, reachable: bool) -> None:
    assert is_reachable(device) is reachable
