"""Text frames of devices: what is one, what it says, and with which word the rest is refused."""

import json
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from server.relay.messages import (
    MOST_EVENT_BYTES,
    Bind,
    MessageInvalid,
    read_ack,
    read_bind,
    read_event,
    read_heartbeat,
    read_text,
    read_unbind,
    read_uuid,
)
from storage.devices import Vitals

DESK = "d1d1d1d1-0000-4000-8000-00000000000d"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: "_" not in key), inner),
    max_leaves=20,
)


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def refusal_of(text: str) -> str:
    with pytest.raises(MessageInvalid) as caught:
        read_text(text)
    return caught.value.code


@given(st.text(min_size=1), values)
def test_a_payload_stays_as_it_was_written(kind: str, payload: Any) -> None:
    written = json.dumps(payload)
    said = read_text(json.dumps({"type": kind})[:-1] + ', "payload": ' + written + "}")
    assert (said.type, bytes(said.payload)) == (kind, written.encode())


def test_numbers_of_any_size_pass_untouched() -> None:
    payload = '{"big":123456789012345678901234567890,"exact":1.10,"wide":1e400,"minus":-0}'
    assert bytes(read_text('{"payload":' + payload + ',"type":"event"}').payload) == payload.encode()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{'type':1}", '{"type":"ping"}x', '{"type":"a","b":NaN}', '{"type":"a","b":[Infinity]}'),
        *('{"type":"a","b":-Infinity}', '{"type":"a","b":01}', '{"type":"a","b":"\\q"}', '{"type":"a","b":"\n"}', "n"),
        *('{"type":"a","b":' + "[" * 100_000 + "]" * 100_000 + "}", '{"type":"a","payload":' + '{"a":' * 5000),
    ],
    ids=count(),
)
def test_what_is_no_json_is_refused(text: str) -> None:
    assert refusal_of(text) == "invalidJson"


@pytest.mark.parametrize("text", ["[]", "1", '"ping"', "null", "{}", '{"type":null}', '{"type":1}', '{"payload":{}}'])
def test_what_has_no_type_is_unknown(text: str) -> None:
    assert refusal_of(text) == "unknownMessageType"


def test_json_comes_before_names_and_names_before_the_type() -> None:
    assert refusal_of('{"a_b":1') == "invalidJson"
    assert refusal_of('{"a_b":1}') == "invalidPayload"
    assert refusal_of('{"type":"ping","payload":{"deep":[{"a_b":1}]}}') == "invalidPayload"
    assert read_text('{"type":"ping","payload":{"deep":"a_b"}}').type == "ping"


@pytest.mark.parametrize("inner", ['"text"', "null", '{"a": [1,\t2.50]}', "12345678901234567890123"])
def test_an_event_carries_any_json(inner: str) -> None:
    event = read_event(Raw(b'{"eventType":"a:b","payload":' + inner.encode() + b"}"))
    assert (event.event_type, event.payload) == ("a:b", inner.encode())


def test_an_event_without_a_payload_carries_null() -> None:
    assert read_event(raw({"eventType": "a"})).payload == b"null"


@pytest.mark.parametrize(
    "payload", [Raw(), raw(None), raw([]), raw("a"), raw({}), raw({"eventType": 1}), raw({"eventType": " \t"})]
)
def test_an_event_says_what_it_is(payload: Raw) -> None:
    with pytest.raises(MessageInvalid) as caught:
        read_event(payload)
    assert caught.value.code == "invalidPayload"


def test_an_event_that_would_cost_the_desktop_its_connection_is_refused() -> None:
    read_event(raw({"eventType": "a", "payload": "x" * (MOST_EVENT_BYTES - 2)}))
    with pytest.raises(MessageInvalid) as caught:
        read_event(raw({"eventType": "a", "payload": "x" * (MOST_EVENT_BYTES - 1)}))
    assert caught.value.code == "messageTooLarge"


@pytest.mark.parametrize(("payload", "event_id"), [({"lastEventId": 7}, 7), ({"lastEventId": 2**53}, 2**53)])
def test_an_ack_names_an_event(payload: object, event_id: int) -> None:
    assert read_ack(raw(payload)) == event_id


@pytest.mark.parametrize("payload", [None, [], {}, {"lastEventId": None}, {"lastEventId": "7"}, {"lastEventId": -1}])
def test_a_malformed_ack_is_none(payload: object) -> None:
    assert read_ack(raw(payload)) is None
    assert read_ack(Raw(b'{"lastEventId":true}')) is None
    assert read_ack(Raw(b'{"lastEventId":99999999999999999999}')) is None


def test_a_bind_has_defaults() -> None:
    assert read_bind(raw({"sessionId": "t-1"})) == Bind("t-1", include_snapshot=True, force_snapshot=False)
    told = {"sessionId": "t", "includeSnapshot": False, "forceSnapshot": True, "targetDeviceId": DESK.upper()}
    assert read_bind(raw(told)) == Bind("t", False, True, UUID(DESK))


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (Raw(), "missingPayload"),
        (raw(None), "missingPayload"),
        (raw([]), "invalidPayload"),
        (raw({}), "missingSessionId"),
        (raw({"sessionId": ""}), "missingSessionId"),
        (raw({"sessionId": 7}), "missingSessionId"),
        (raw({"sessionId": "x" * 257}), "missingSessionId"),
    ],
)
def test_a_bind_that_names_no_session_is_refused(payload: Raw, code: str) -> None:
    for read in (read_bind, read_unbind):
        with pytest.raises(MessageInvalid) as caught:
            read(payload)
        assert caught.value.code == code


def test_an_unbind_names_its_session() -> None:
    assert read_unbind(raw({"sessionId": "t-1"})) == "t-1"


def test_a_heartbeat_tells_how_a_device_is() -> None:
    told = {"status": "away", "cpuUsage": 12.345, "memoryUsage": 7, "diskSpaceGb": 9, "activeJobs": 2}
    heartbeat = read_heartbeat(raw(told | {"activeSessionId": "s1"}))
    assert heartbeat.vitals == Vitals("away", Decimal("12.35"), Decimal(7), 9, 2)
    assert heartbeat.active_session_id == "s1"


@pytest.mark.parametrize(
    "payload",
    [
        Raw(),
        raw(None),
        raw([]),
        raw({}),
        raw(dict.fromkeys(("status", "cpuUsage", "memoryUsage", "diskSpaceGb", "activeJobs", "activeSessionId"))),
        raw({"status": "odd", "cpuUsage": 101, "memoryUsage": "7", "diskSpaceGb": -1, "activeJobs": True}),
        raw({"cpuUsage": -0.1, "diskSpaceGb": 2**64, "activeJobs": 2**31, "activeSessionId": ""}),
    ],
)
def test_what_a_heartbeat_tells_wrongly_counts_as_not_told(payload: Raw) -> None:
    heartbeat = read_heartbeat(payload)
    assert heartbeat.vitals == Vitals()
    assert heartbeat.active_session_id is None


@pytest.mark.parametrize("text", ["", "x", DESK.replace("-", ""), "{" + DESK + "}", f"{DESK} ", None, 1, "é" * 36])
def test_a_uuid_is_written_with_dashes_alone(text: object) -> None:
    assert read_uuid(text) is None
    assert read_uuid(DESK.upper()) == UUID(DESK)
