"""What desktops and callers are told of calls."""

import json

from hypothesis import given
from hypothesis import strategies as st

from server.relay.call_frames import OFFLINE, build_answer, build_call, build_failure
from tests.server.relay.call_town import ANN, PHONE


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=1))
def test_a_call_reaches_the_desktop_with_who_makes_it(payload: dict[str, object]) -> None:
    frame = json.loads(build_call(json.dumps(payload).encode(), PHONE, ANN))
    assert frame == {"type": "rpc.request", "payload": payload | {"clientId": str(PHONE), "userId": str(ANN)}}


def test_an_answer_is_passed_on_as_it_was_written() -> None:
    payload = b'{"id":"7","result":12345678901234567890.10,"error":null,"isFinal":true}'
    assert build_answer(payload) == b'{"type":"rpc.response","payload":' + payload + b"}"


def test_the_phone_app_knows_a_desktop_that_is_offline_by_code_and_words() -> None:
    error = {"code": -32010, "message": "Desktop is offline"}
    assert json.loads(build_failure('a "b"', OFFLINE)) == {
        "id": 'a "b"', "result": None, "error": error, "isFinal": True
    }
