"""Answers in the background: what their state says, and how they are looked up, called off and deleted."""

import json

import pytest

from proxy.dialects.openai_responses.background import build_background, read_state
from proxy.provider import BackgroundState, Target

TARGET = Target("https://api.test/v1/", "sk-secret", "o3-deep-research")


def body(id_: object = "resp_1-A", status: object = "queued") -> bytes:
    return json.dumps({"id": id_, "object": "response", "status": status, "output": []}).encode()


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_an_answer_under_way_is_not_over(status: str) -> None:
    assert read_state(body(status=status)) == BackgroundState("resp_1-A", is_over=False)


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
def test_an_answer_with_an_end_is_over(status: str) -> None:
    assert read_state(body(status=status)) == BackgroundState("resp_1-A", is_over=True)


ODD_IDS = ["", "../files/file-1", "a/b", "a?b", "a%2f", "a b", "ä", "a" * 201, 5, None, "resp_1\n"]


@pytest.mark.parametrize("id_", ODD_IDS)
def test_an_id_that_no_url_should_hold_is_none(id_: object) -> None:
    assert read_state(body(id_)) is None


@pytest.mark.parametrize("told", [b"", b"null", b"[]", b"<html>", b'{"error":{}}', b"[" * 100_000, body(status="new")])
def test_what_is_no_response_has_no_state(told: bytes) -> None:
    assert read_state(told) is None


def test_an_answer_is_looked_up_called_off_and_deleted_by_its_id() -> None:
    background = build_background(TARGET)
    builders = (background.build_lookup, background.build_cancel, background.build_delete)
    requests = [build("resp_1") for build in builders]
    assert [(request.method, request.url) for request in requests] == [
        ("GET", "https://api.test/v1/responses/resp_1"),
        ("POST", "https://api.test/v1/responses/resp_1/cancel"),
        ("DELETE", "https://api.test/v1/responses/resp_1"),
    ]
    for request in requests:
        assert request.body == b""
        assert dict(request.headers) == {"Authorization": "Bearer sk-secret", "Accept": "application/json"}
        assert "sk-secret" not in repr(request)
    assert background.read_state is read_state
