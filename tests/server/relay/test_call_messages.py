"""Calls and answers on their way through the relay: what is checked, what is rewritten, and what stays as it is."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from server.relay.call_frames import Failure, build_answer, build_call
from server.relay.call_messages import (
    MOST_REQUEST_BYTES,
    MOST_RESPONSE_BYTES,
    SYNC_HISTORY,
    CallInvalid,
    coerce_version,
    read_call,
    read_response,
)
from server.relay.messages import MessageInvalid

DESK = UUID("d1d1d1d1-0000-4000-8000-00000000000d")
ANN = UUID("11111111-1111-4111-8111-111111111111")
CALL = {"id": "7C1E", "method": "session.get", "params": {"sessionId": "s1"}}

names = st.text().filter(lambda name: "_" not in name)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(names, inner),
    max_leaves=10,
)


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def failure_of(payload: dict[str, object]) -> Failure:
    with pytest.raises(CallInvalid) as caught:
        read_call(raw(payload))
    assert caught.value.call_id == payload.get("id", caught.value.call_id)
    return caught.value.failure


@settings(max_examples=25)
@given(st.dictionaries(names, values), values)
def test_a_call_reaches_the_desktop_as_it_was_written(others: dict[str, object], params: object) -> None:
    payload = {**others, **CALL, "params": params, "idempotencyKey": "k"}
    payload.pop("targetDeviceId", None)
    call = read_call(raw(payload))
    assert (call.id, call.method, call.idempotency_key, call.target_device_id) == ("7C1E", "session.get", "k", None)
    told = json.loads(build_call(call.payload, DESK, ANN))
    owner = {"clientId": str(DESK), "userId": str(ANN)}
    assert told == {"type": "rpc.request", "payload": {**payload, **owner}}


def test_parameters_are_passed_on_byte_by_byte() -> None:
    params = '{ "big":123456789012345678901234567890, "exact":1.10, "twice":1, "twice":2 }'
    call = read_call(Raw(b'{"id":"1","method":"m","params":' + params.encode() + b"}"))
    assert params.encode() in call.payload


@pytest.mark.parametrize(
    "told", ['"clientId":"evil",', '"userId":"evil","clientId":"evil",', '"client\\u0049d":"evil",']
)
def test_nobody_calls_in_the_name_of_somebody_else(told: str) -> None:
    payload = "{" + told + '"id":"1","id":"2","method":"m",' + told + '"params":{}}'
    call = read_call(Raw(payload.encode()))
    sent = build_call(call.payload, DESK, ANN)
    assert sent.count(b"clientId") == sent.count(b"userId") == sent.count(b'"id"') == 1
    assert b"evil" not in sent
    assert call.id == "2"


def test_parameters_that_are_not_there_are_none() -> None:
    assert json.loads(read_call(raw({"id": "1", "method": "m"})).payload)["params"] == {}
    assert json.loads(read_call(raw({"id": "1", "method": "m", "params": None})).payload)["params"] is None


@pytest.mark.parametrize("told", [{}, {"id": 7}, {"id": None}, {"id": ["a"]}])
def test_an_id_that_is_no_text_is_made_up(told: dict[str, object]) -> None:
    call = read_call(raw({**told, "method": "m"}))
    assert UUID(call.id).version == 4
    assert json.loads(call.payload)["id"] == call.id


@pytest.mark.parametrize("told", [{}, {"method": None}, {"method": " "}, {"method": 1}])
def test_a_call_without_a_method_is_answered_where_it_has_an_id(told: dict[str, object]) -> None:
    assert failure_of({"id": "1", **told}).code == -32600
    with pytest.raises(MessageInvalid) as caught:
        read_call(raw({"id": 1, **told}))
    assert caught.value.code == "missingMethod"


@pytest.mark.parametrize("payload", [Raw(), raw(None), raw([]), raw("a")])
def test_a_call_and_its_answer_are_objects(payload: Raw) -> None:
    for read in (read_call, read_response):
        with pytest.raises(MessageInvalid) as caught:
            read(payload)
        assert caught.value.code == "invalidPayload"


@pytest.mark.parametrize("key", [7, ["k"], {}, True, "x" * 257])
def test_a_key_that_the_desktop_would_drop_without_a_word_is_refused(key: object) -> None:
    assert failure_of({**CALL, "idempotencyKey": key}).code == -32600


def test_a_key_may_be_null() -> None:
    assert read_call(raw({**CALL, "idempotencyKey": None})).idempotency_key is None


def test_a_desktop_may_be_named() -> None:
    assert read_call(raw({**CALL, "targetDeviceId": str(DESK).upper()})).target_device_id == DESK
    assert read_call(raw({**CALL, "targetDeviceId": None})).target_device_id is None
    assert failure_of({**CALL, "targetDeviceId": "desk"}).code == -32600


def test_a_call_of_more_than_eight_megabytes_is_answered_and_not_passed_on() -> None:
    spare = MOST_REQUEST_BYTES - len(json.dumps({**CALL, "params": ""}))
    read_call(raw({**CALL, "params": "x" * spare}))
    assert failure_of({**CALL, "params": "x" * (spare + 1)}).code == -32600


@pytest.mark.parametrize("params", [None, [], "a", {}, {"state": None}, {"state": []}, {"state": "{}"}])
def test_a_history_without_a_state_is_refused_in_an_answer(params: object) -> None:
    assert failure_of({**CALL, "method": SYNC_HISTORY, "params": params}).code == -32602


def test_a_history_goes_on_with_a_version_that_is_an_integer() -> None:
    params = b'{"state":{"n":1.10},"expectedVersion":"12"}'
    call = read_call(Raw(b'{"id":"1","method":"session.syncHistoryState","params":' + params + b"}"))
    assert b'"params":{"state":{"n":1.10},"expectedVersion":12}' in call.payload
    call = read_call(raw({**CALL, "method": SYNC_HISTORY, "params": {"state": {}}}))
    assert json.loads(call.payload)["params"]["expectedVersion"] == 0


@pytest.mark.parametrize(
    ("told", "version"),
    [
        *((True, 1), (False, 0), (7, 7), (3.0, 3), (3.5, 0), ("41", 41), ("-1", 0), ("1.0", 0), ("٣", 0), (None, 0)),
        *(([], 0), ("", 0), (1e300, 0), ("9" * 20, 0), (2**70, 2**70)),
    ],
)
def test_what_is_no_version_is_zero(told: object, version: int) -> None:
    assert coerce_version(told) == version


@settings(max_examples=25)
@given(st.dictionaries(names, values), values)
def test_an_answer_reaches_its_caller_without_the_callers_name(others: dict[str, object], result: object) -> None:
    payload = {**others, "clientId": "c", "id": "1", "result": result, "error": None, "isFinal": True}
    response = read_response(raw(payload))
    assert (response.client_id, response.id, response.is_final) == ("c", "1", True)
    del payload["clientId"]
    assert json.loads(build_answer(response.payload)) == {"type": "rpc.response", "payload": payload}


@pytest.mark.parametrize(("told", "is_final"), [("", True), (',"isFinal":false', False), (',"isFinal":null', True)])
def test_an_answer_is_final_unless_it_says_otherwise(told: str, is_final: bool) -> None:
    payload = '{"clientId":"c","id":"1"' + told + "}"
    assert read_response(Raw(payload.encode())).is_final is is_final


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"id": "1"}, "missingClientId"),
        ({"clientId": None, "id": "1"}, "missingClientId"),
        ({"clientId": "", "id": "1"}, "missingClientId"),
        ({"clientId": "c"}, "invalidPayload"),
        ({"clientId": "c", "id": 1}, "invalidPayload"),
    ],
)
def test_an_answer_says_whose_it_is(payload: object, code: str) -> None:
    with pytest.raises(MessageInvalid) as caught:
        read_response(raw(payload))
    assert caught.value.code == code


def test_an_answer_that_is_too_large_for_a_phone_becomes_an_error() -> None:
    head = {"clientId": "c", "id": "1", "isFinal": False}
    spare = MOST_RESPONSE_BYTES - len(json.dumps({**head, "result": ""}))
    assert not read_response(raw({**head, "result": "x" * spare})).is_final
    response = read_response(raw({**head, "result": "x" * (spare + 1)}))
    assert response.is_final
    told = json.loads(response.payload)
    assert (told["id"], told["result"], told["error"]["code"]) == ("1", None, -32603)
    assert "clientId" not in told
