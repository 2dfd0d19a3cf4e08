"""What devices say of themselves: checked in the order, and refused in the words, that the shipped clients know."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from werkzeug.datastructures import Headers

from server.device_registration import (
    MAX_CAPABILITIES_BYTES,
    DesktopRegistrationWish,
    HeartbeatWish,
    MobileRegistrationWish,
    check_capabilities,
    check_desktop,
    check_mobile,
    read_device_id,
    read_push_platform,
    read_vitals,
)
from server.errors import DeviceInvalid, RequestInvalid
from server.operations import decode_body
from storage.devices import Registration, Vitals

DEVICE = "d1d1d1d1-0000-4000-8000-00000000000d"
HEADERS = {"X-Device-ID": DEVICE, "X-Client-Type": "desktop", "X-Token-Binding": DEVICE}
DESKTOP = {"deviceName": "Studio", "platform": "macos", "appVersion": "1.2.3"}
PHONE = {"deviceName": "iPhone", "platform": "ios", "appVersion": "1.2.3"}
REGISTRATION = Registration(
    device_id=UUID(DEVICE),
    device_name="Studio",
    device_type="desktop",
    platform="macos",
    platform_version=None,
    app_version="1.2.3",
    local_ips=None,
    public_ip=None,
    available_ports=None,
    relay_eligible=True,
    capabilities={},
)


def check(changes: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Registration:
    body = msgspec.json.encode({**DESKTOP, **changes})
    return check_desktop(decode_body(body, DesktopRegistrationWish), Headers({**HEADERS, **(headers or {})}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"deviceName": " Studio\n"}, {"device_name": " Studio\n"}),
        ({"deviceType": "DeskTop", "platform": "MacOS"}, {}),
        ({"deviceType": None, "relayEligible": None, "capabilities": None, "publicIp": None}, {}),
        ({"relayEligible": False}, {"relay_eligible": False}),
        ({"platformVersion": "macos", "somethingNew": {"a_b": 1}}, {"platform_version": "macos"}),
        ({"localIps": [], "availablePorts": [0, 65535]}, {"local_ips": [], "available_ports": [0, 65535]}),
        ({"publicIp": "192.0.2.1"}, {"public_ip": "192.0.2.1"}),
        ({"publicIp": "2001:DB8:0::1"}, {"public_ip": "2001:db8::1"}),
        ({"publicIp": "fe80::1%eth0"}, {}),
        ({"publicIp": "192.0.2.1/24"}, {}),
        ({"publicIp": "at home\0"}, {}),
        ({"deviceName": "x" * 255, "appVersion": "1" * 50}, {"device_name": "x" * 255, "app_version": "1" * 50}),
        ({"deviceName": "😀" * 255}, {"device_name": "😀" * 255}),
    ],
)
def test_a_desktop_is_registered_as_it_says(changes: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert check(changes) == replace(REGISTRATION, **expected)


@pytest.mark.parametrize(
    ("changes", "headers", "word"),
    [
        ({}, {"X-Client-Type": "mobile"}, "invalid_client_type"),
        ({}, {"X-Client-Type": ""}, "invalid_client_type"),
        ({"platform": "ios"}, {}, "invalid_platform"),
        ({"platform": "x" * 1000}, {}, "invalid_platform"),
        ({"deviceType": "mobile"}, {}, "invalid_device_type_for_endpoint"),
        ({"deviceType": ""}, {}, "invalid_device_type_for_endpoint"),
        ({"deviceName": " \t"}, {}, "invalid_device_name"),
        ({"deviceName": " UnKnown "}, {}, "invalid_device_name"),
        ({"appVersion": " "}, {}, "invalid_app_version"),
        ({}, {"X-Token-Binding": "mine"}, "invalid_token_binding_header"),
        ({}, {"X-Token-Binding": DEVICE.replace("d", "e")}, "token_binding_mismatch"),
    ],
)
def test_a_desktop_that_does_not_fit_is_refused_with_the_word_that_clients_know(
    changes: Mapping[str, Any], headers: Mapping[str, str], word: str
) -> None:
    with pytest.raises(DeviceInvalid) as refused:
        check(changes, headers)
    assert str(refused.value) == word


def test_of_several_faults_the_first_in_the_order_of_the_checks_is_told() -> None:
    wrong: dict[str, Any] = {
        "capabilities": {"a_b": 1},
        "platform": "ios",
        "deviceType": "mobile",
        "deviceName": "",
        "appVersion": "",
    }
    headers = {"X-Device-ID": "mine", "X-Client-Type": "mobile", "X-Token-Binding": "mine"}
    told = []
    for name in ("X-Device-ID", "capabilities", "X-Client-Type", "platform", "deviceType", "deviceName", "appVersion"):
        with pytest.raises((DeviceInvalid, RequestInvalid)) as refused:
            check(wrong, headers)
        told.append(str(refused.value).partition(":")[0])
        if name in headers:
            headers[name] = HEADERS[name]
        else:
            wrong[name] = DESKTOP.get(name)
    assert told == [
        "X-Device-ID must be the UUID of your device",
        "capabilities",
        "invalid_client_type",
        "invalid_platform",
        "invalid_device_type_for_endpoint",
        "invalid_device_name",
        "invalid_app_version",
    ]
    with pytest.raises(DeviceInvalid, match="invalid_token_binding_header"):
        check(wrong, headers)


def test_a_token_binding_that_is_not_told_binds_to_nothing() -> None:
    wish = decode_body(msgspec.json.encode(DESKTOP), DesktopRegistrationWish)
    assert check_desktop(wish, Headers({"X-Device-ID": DEVICE, "X-Client-Type": " Desktop"})) == REGISTRATION


@pytest.mark.parametrize("text", ["", "mine", f"{{{DEVICE}}}", DEVICE.replace("-", ""), f"urn:uuid:{DEVICE}", None])
def test_what_is_no_uuid_names_no_device(text: str | None) -> None:
    with pytest.raises(DeviceInvalid):
        read_device_id(Headers({} if text is None else {"X-Device-ID": text}))


def test_a_device_id_is_read_in_any_case() -> None:
    assert read_device_id(Headers({"x-device-id": DEVICE.upper()})) == UUID(DEVICE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"deviceName": 1, "platform": "macos", "appVersion": "1"}',
        b'{"deviceName": null, "platform": "macos", "appVersion": "1"}',
        b'{"deviceName": "a\\u0000", "platform": "macos", "appVersion": "1"}',
        b'{"deviceName": "\\ud800", "platform": "macos", "appVersion": "1"}',
        b'{"deviceName": "\xff", "platform": "macos", "appVersion": "1"}',
        msgspec.json.encode({**DESKTOP, "deviceName": "x" * 256}),
        msgspec.json.encode({**DESKTOP, "appVersion": "1" * 51}),
        msgspec.json.encode({**DESKTOP, "appVersion": "\0"}),
        msgspec.json.encode({**DESKTOP, "platformVersion": "1" * 101}),
        msgspec.json.encode({**DESKTOP, "localIps": ["10.0.0.1"] * 65}),
        msgspec.json.encode({**DESKTOP, "localIps": ["\0"]}),
        msgspec.json.encode({**DESKTOP, "localIps": ["1" * 101]}),
        msgspec.json.encode({**DESKTOP, "availablePorts": [80] * 65}),
        msgspec.json.encode({**DESKTOP, "availablePorts": [65536]}),
        msgspec.json.encode({**DESKTOP, "availablePorts": [2**128]}),
        msgspec.json.encode({**DESKTOP, "relayEligible": "yes"}),
        b'{"deviceName": "a", "platform": "macos", "appVersion": "1", "capabilities": %s}' % (b"[" * 100_000),
    ],
)
def test_a_body_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        decode_body(body, DesktopRegistrationWish)


@pytest.mark.parametrize(
    "capabilities",
    [
        {"a_b": 1},
        {"a": [{"b": {"c_": 1}}]},
        {"a\0": 1},
        {"a": ["\0"]},
        "\0",
        {"a": 2**63},
        {"a": -(2**128)},
        {"a": [1e300]},
        {"a": "x" * MAX_CAPABILITIES_BYTES},
        ["é" * (MAX_CAPABILITIES_BYTES // 2)],
        [0] * 200_000,
    ],
)
def test_capabilities_that_cannot_be_kept_or_told_on_are_refused(capabilities: Any) -> None:
    with pytest.raises(RequestInvalid, match=r"^capabilities: "):
        check_capabilities(capabilities)


def test_capabilities_that_are_nested_too_deeply_are_refused() -> None:
    nested: Any = 1
    for _ in range(500):
        nested = {"a": [nested]}
    with pytest.raises(RequestInvalid, match="nested too deeply"):
        check_capabilities(nested)


@pytest.mark.parametrize("capabilities", [{"a": "snake_case is free in values"}, [], "text", 1.5, False, 2**63 - 1])
def test_capabilities_may_be_any_json(capabilities: Any) -> None:
    assert check_capabilities(capabilities) == capabilities


def test_a_push_token_is_never_kept_among_capabilities() -> None:
    assert check_capabilities({"devicePushToken": "secret", "a": 1}) == {"a": 1}


def test_a_push_token_shows_in_no_repr() -> None:
    body = msgspec.json.encode({**PHONE, "pushToken": "secret"})
    assert "secret" not in repr(decode_body(body, MobileRegistrationWish))


@pytest.mark.parametrize("changes", [{}, {"capabilities": None, "pushToken": None}, {"deviceType": "desktop"}])
def test_a_phone_is_registered_as_it_says_and_not_to_be_reached(changes: Mapping[str, Any]) -> None:
    wish = decode_body(msgspec.json.encode({**PHONE, "deviceName": "", **changes}), MobileRegistrationWish)
    assert check_mobile(wish, Headers({"X-Device-ID": DEVICE})) == replace(
        REGISTRATION, device_name="", device_type="mobile", platform="ios", relay_eligible=False
    )


@pytest.mark.parametrize(
    "change", [{"platform": "x" * 51}, {"platform": "\0"}, {"pushToken": "x" * 4097}, {"pushToken": "\0"}]
)
def test_a_phone_of_another_form_is_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(RequestInvalid):
        decode_body(msgspec.json.encode({**PHONE, **change}), MobileRegistrationWish)


@pytest.mark.parametrize(
    ("platform", "push_platform"),
    [("ios", "ios"), (" iOS", "ios"), ("Android", "android"), ("macos", None), ("", None)],
)
def test_phones_of_two_platforms_get_pushes(platform: str, push_platform: str | None) -> None:
    assert read_push_platform(platform) == push_platform


@pytest.mark.parametrize(
    ("body", "vitals"),
    [
        (b"", Vitals()),
        (b"null", Vitals()),
        (b'{"metadata": {"a_b": 1}}', Vitals()),
        (
            b'{"cpuUsage":null,"memoryUsage":null,"diskSpaceGb":null,"activeJobs":null,"status":null}',
            Vitals("online", None, None, None, 0),
        ),
        (
            b'{"cpuUsage":0.1,"memoryUsage":100,"diskSpaceGb":512,"activeJobs":3,"status":"away"}',
            Vitals("away", Decimal("0.1"), Decimal("100.0"), 512, 3),
        ),
    ],
)
def test_a_heartbeat_tells_what_it_likes(body: bytes, vitals: Vitals) -> None:
    assert read_vitals(decode_body(body, HeartbeatWish | None)) == vitals


@pytest.mark.parametrize(
    "body",
    [
        b'{"cpuUsage":100.01}',
        b'{"memoryUsage":-1}',
        b'{"cpuUsage":"50"}',
        b'{"cpuUsage":1e400}',
        b'{"diskSpaceGb":-1}',
        b'{"diskSpaceGb":9223372036854775808}',
        b'{"activeJobs":2147483648}',
        b'{"activeJobs":1.5}',
        b'{"status":"busy"}',
    ],
)
def test_vitals_out_of_their_bounds_are_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        decode_body(body, HeartbeatWish)
