"""What our desktop answers."""

import pytest

from scripts.device_link.methods import answer, has_underscored_key, is_mutating, read_input

NOW = "2026-02-03T04:05:06.000000Z"


def test_a_ping_is_answered_with_the_time() -> None:
    assert answer("system.ping", {}, NOW) == ({"pong": True, "timestamp": NOW}, None)


def test_an_echo_is_what_was_said() -> None:
    assert answer("echo", {"a": [1]}, NOW) == ({"a": [1]}, None)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [("plans.list", {}, -32601), ("session.get", {}, -32602), ("echo", {"a_b": 1}, -32602)],
)
def test_what_cannot_be_answered_is_an_error(method: str, params: object, code: int) -> None:
    result, error = answer(method, params, NOW)
    assert result is None
    assert error is not None
    assert error["code"] == code


def test_a_session_is_found_by_its_id() -> None:
    result, error = answer("session.get", {"sessionId": "s1"}, NOW)
    assert (result["session"]["id"], error) == ("s1", None)


def test_input_of_a_terminal_is_text_or_base64() -> None:
    assert read_input({"text": "hé"}) == "hé".encode()
    assert read_input({"data": "aGk="}) == b"hi"
    assert read_input({"data": "?"}) is None
    assert read_input({}) is None


def test_underscored_keys_are_found_at_any_depth_and_values_are_free() -> None:
    assert has_underscored_key({"a": [{"b": {"c_d": 1}}]})
    assert not has_underscored_key({"a": ["b_c", {"d": "e_f"}]})
    deep: object = {}
    for _ in range(100_000):
        deep = [deep]
    assert not has_underscored_key(deep)


def test_calls_that_change_something_are_known_by_their_name() -> None:
    assert is_mutating("session.updateFileBrowserState")
    assert not is_mutating("terminal.write")
