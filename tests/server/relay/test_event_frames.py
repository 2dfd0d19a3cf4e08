"""Events as they are written."""

import json
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.relay.event_frames import (
    About,
    NewEvent,
    build_body,
    build_frame,
    build_gap_frame,
    build_passing_frame,
    read_body,
    read_status,
)
from server.relay.event_lines import read_texts

DESKTOP = UUID("d1d1d1d1-0000-4000-8000-00000000000d")
AT = datetime(2026, 2, 3, 4, 5, 6, 123000, UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read_frame(frame: bytes) -> object:
    (text,) = read_texts(frame)
    return json.loads(text)


@given(event_type=st.text(), payload=JSON, number=st.integers(0, 2**53 - 1))
def test_what_was_published_is_in_the_frame_whatever_it_is(event_type: str, payload: object, number: int) -> None:
    event = NewEvent(event_type, json.dumps(payload).encode(), "desktop", DESKTOP)
    about, head = read_body(build_body(event, "origin.1", AT))
    assert about == About("desktop", DESKTOP, event_type, False, "origin.1")
    assert read_frame(build_frame(head, number)) == {
        "type": "event",
        "payload": {"eventType": event_type, "payload": payload},
        "targetDeviceId": None,
        "sourceDeviceId": str(DESKTOP),
        "timestamp": "2026-02-03T04:05:06.123000Z",
        **({"eventId": number} if number else {}),
    }


def test_the_payload_is_passed_on_as_it_was_written() -> None:
    payload = b'{ "n" : 1.50e3, "big": 123456789012345678901234567890, "e": "\\u00e9" }\n'
    _, head = read_body(build_body(NewEvent("noted", payload, "mobile", DESKTOP), "t", AT))
    assert payload in build_frame(head, 1)


def test_a_server_has_no_device() -> None:
    about, head = read_body(build_body(NewEvent("noted", b"{}", "server", is_for_watchers=True), "t", AT))
    assert about == About("server", None, "noted", True, "t")
    assert b'"sourceDeviceId":null' in head


def test_a_status_names_the_device_that_it_is_about() -> None:
    said = b'{"eventType":"device-status","payload":{"deviceId":"%s","status":"online"}}' % str(DESKTOP).encode()
    about, head = read_status(said, AT)
    assert about == About("status", DESKTOP, "device-status", False, "")
    assert read_frame(build_frame(head, 0)) == {
        "type": "event",
        "payload": {"eventType": "device-status", "payload": {"deviceId": str(DESKTOP), "status": "online"}},
        "targetDeviceId": None,
        "sourceDeviceId": None,
        "timestamp": "2026-02-03T04:05:06.123000Z",
    }


def test_what_is_no_status_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_status(b"[]", AT)


def test_a_gap_has_no_number() -> None:
    assert read_frame(build_gap_frame(5, 8, 11, AT)) == {
        "type": "event",
        "payload": {
            "eventType": "event-replay-gap",
            "payload": {"lastEventId": 5, "oldestBufferedId": 8, "latestBufferedId": 11},
        },
        "targetDeviceId": None,
        "sourceDeviceId": None,
        "timestamp": "2026-02-03T04:05:06.123000Z",
    }


def test_what_a_device_said_never_shows() -> None:
    assert "secret" not in repr(NewEvent("noted", b'"secret"', "mobile", DESKTOP))


def test_a_frame_without_an_id_is_like_those_with_one() -> None:
    assert read_frame(build_passing_frame("configuration-changed", b'{"tables":["a"]}', AT)) == {
        "type": "event",
        "payload": {"eventType": "configuration-changed", "payload": {"tables": ["a"]}},
        "targetDeviceId": None,
        "sourceDeviceId": None,
        "timestamp": AT.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
