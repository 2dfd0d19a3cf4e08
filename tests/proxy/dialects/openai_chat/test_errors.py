"""Errors of every shape: what they say, what kind they are, and that nothing of ours shows."""

import json
from typing import Any

import pytest

from proxy.dialects.openai_chat.errors import find_error, read_error, read_refusal
from proxy.events import Failed


def refusal(status: int, body: object, headers: dict[str, str] | None = None) -> Failed:
    return read_refusal("x", status, headers or {}, json.dumps(body).encode())


SAID = [
    ({"error": {"message": "m", "type": "t", "code": "c", "param": None}}, "m", "t"),
    ({"error": {"message": "m", "type": None, "code": "c"}}, "m", "c"),
    ({"error": {"message": "m", "code": 400}}, "m", "400"),
    ({"error": "m", "code": "Client specified an invalid argument"}, "m", "Client specified an invalid argument"),
    ({"object": "error", "message": "m", "type": "t", "code": "3051", "raw_status_code": 400}, "m", "t"),
    ({"detail": "m"}, "m", ""),
    ({"message": "m"}, "m", ""),
    ({"detail": [{"loc": ["body", "model"], "msg": "needed", "type": "missing"}]}, "body.model: needed", ""),
    ({"object": "error", "message": {"detail": [{"msg": "a"}, {"msg": "b"}, 3]}, "type": "t"}, "a; b", "t"),
    ({"error": {"message": {"detail": "m"}, "type": "t"}}, "m", "t"),
    ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "m", "400"),
    ({"errors": [{"message": "m", "code": 3043}], "success": False}, "m", "3043"),
]


@pytest.mark.parametrize(("body", "message", "type_"), SAID)
def test_a_refusal_is_told_in_the_servers_words(body: object, message: str, type_: str) -> None:
    failed = refusal(400, body)
    assert (failed.code, failed.status) == ("bad_request", 400)
    assert (failed.message, failed.provider_error_type) == (message, type_)


WORDLESS = [b"", b"<html>Bad gateway</html>", b"null", b"[]", b'{"error":null}', b'{"error":{}}', b'{"detail":{}}']


@pytest.mark.parametrize("body", WORDLESS)
def test_a_refusal_without_words_is_known_by_its_status(body: bytes) -> None:
    failed = read_refusal("x", 502, {}, body)
    assert (failed.code, failed.message) == ("provider_gateway_error", "the provider answered with status 502")


def test_the_time_to_wait_is_in_a_header_or_in_what_an_aggregator_passes_on() -> None:
    inner = {"error": {"code": 429, "message": "m", "metadata": {"headers": {"Retry-After": "7"}}}}
    assert refusal(429, inner).retry_after_seconds == 7
    assert refusal(429, inner, {"retry-after": "3"}).retry_after_seconds == 3


def moderated(**metadata: Any) -> Failed:
    return refusal(403, {"error": {"code": 403, "message": "Provider returned error", "metadata": metadata}})


@pytest.mark.parametrize(
    "metadata",
    [
        {"reasons": ["violence"], "flagged_input": "…", "provider_name": "OpenAI"},
        {"raw": '{"error":"Content violates usage guidelines. Team: 1234, API key ID: 5678"}', "provider_name": "xAI"},
    ],
)
def test_a_prompt_that_was_not_let_through_is_told_as_that(metadata: dict[str, Any]) -> None:
    failed = moderated(**metadata)
    assert (failed.code, failed.message) == ("content_filter", "Provider returned error")
    assert failed.provider_error_type == "403"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, {"code": "The caller does not have permission", "error": "Content violates usage guidelines. Failed: X"}),
        (400, {"error": {"code": "invalid_prompt", "message": "Flagged as potentially violating our usage policy."}}),
    ],
)
def test_a_prompt_that_breaks_a_providers_rules_is_no_trouble_with_our_key(status: int, body: dict[str, Any]) -> None:
    failed = refusal(status, body)
    assert (failed.code, failed.status) == ("content_filter", status)
    assert failed.message == (body["error"] if isinstance(body["error"], str) else body["error"]["message"])


def test_what_is_about_our_account_is_not_shown() -> None:
    assert "returned" not in moderated(raw="Team 1234 has no access").message
    assert "1234" not in repr(moderated(raw="Team 1234 has no access"))


@pytest.mark.parametrize("raw", ["maximum context length is 8 tokens", {"error": {"message": "prompt is too long"}}])
def test_an_aggregators_cause_tells_the_kind(raw: object) -> None:
    error = {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw}}
    failed = refusal(400, {"error": error})
    assert (failed.code, failed.message) == ("context_length_exceeded", "Provider returned error")


def test_azures_filter_is_a_filter() -> None:
    error = {
        "code": "content_filter",
        "message": "The response was filtered",
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
    assert refusal(400, {"error": error}).code == "content_filter"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 502}, 502),
        ({"code": "503"}, 503),
        ({"code": "c", "status_code": 400}, 400),
        ({"status": 429}, 429),
        ({"status": "UNAVAILABLE"}, 0),
        ({"code": 3051}, 0),
        ({"code": True}, 0),
        ("text", 0),
        (None, 0),
        ([], 0),
    ],
)
def test_an_error_inside_an_answer_stands_for_a_status(error: object, status: int) -> None:
    assert read_error("x", error).status == status


def test_an_error_without_words_gets_some() -> None:
    assert read_error("x", {"code": 500}).message == "the provider reported an error"


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', b"no JSON", b'{"object":"list","data":[]}', b"[1]"])
def test_what_tells_of_no_error_is_none(body: bytes) -> None:
    assert find_error("x", body) is None


def test_an_error_is_found_in_a_body_that_is_no_answer() -> None:
    failed = find_error("x", b'{"detail":"m"}')
    assert failed is not None
    assert failed.message == "m"


def test_a_long_message_is_cut() -> None:
    assert len(refusal(400, {"error": {"message": "m" * 10_000, "type": "t" * 10_000}}).message) == 500
    assert len(refusal(400, {"detail": [{"msg": "m" * 100}] * 1000}).message) <= 510
