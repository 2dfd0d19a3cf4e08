"""Notifications as clients write them: nothing is refused for its length or its letters."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import RequestInvalid
from server.notification_texts import (
    MAX_BODY,
    MAX_CUSTOM_DATA_BYTES,
    MAX_TITLE,
    JobNotificationWish,
    build_custom_data,
    build_job_notification,
    build_test_notification,
    clean,
    write_answer,
)
from server.operations import decode_body
from storage.notifications import NewNotification

NOW = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
STAMP = "2026-02-03T04:05:06.000789+00:00"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_a_job_is_told_as_the_client_says() -> None:
    wish = JobNotificationWish("job-1", "Done", "It is done", {"sessionId": "s", "timestamp": "then"})
    assert build_job_notification("job_failed", wish, NOW) == NewNotification(
        kind="job_failed",
        job_id="job-1",
        title="Done",
        body="It is done",
        custom_data={"sessionId": "s", "timestamp": "then"},
        is_silent=False,
        deliver_within_seconds=24 * 3600,
    )


def test_progress_is_silent_and_of_no_use_later() -> None:
    built = build_job_notification("job_progress", JobNotificationWish("job-1", "T", "B", {"progress": 0.5}), NOW)
    assert built == NewNotification(
        kind="job_progress",
        job_id="job-1",
        title="",
        body="",
        custom_data={"progress": 0.5, "timestamp": STAMP},
        is_silent=True,
        deliver_within_seconds=600,
    )


@pytest.mark.parametrize(("environment", "told"), [("sandbox", {"environment": "sandbox"}), (None, {})])
def test_a_test_says_that_it_is_one(environment: str | None, told: dict[str, str]) -> None:
    built = build_test_notification(environment, NOW)
    assert (built.kind, built.job_id, built.is_silent) == ("test", None, False)
    assert built.title
    assert built.body
    assert built.custom_data == {"test": True, "timestamp": STAMP, **told}


@pytest.mark.parametrize(
    ("given_data", "kept"),
    [(None, {}), ({}, {}), ([1], {"data": [1]}), ("x", {"data": "x"}), (0, {"data": 0}), ({"aps": 1}, {"aps": 1})],
)
def test_custom_data_is_an_object_with_a_timestamp(given_data: object, kept: dict[str, object]) -> None:
    assert build_custom_data(given_data, NOW) == {**kept, "timestamp": STAMP}


def test_a_timestamp_of_the_clients_own_stays() -> None:
    assert build_custom_data({"timestamp": None}, NOW) == {"timestamp": None}


def test_texts_that_are_too_long_are_cut() -> None:
    wish = JobNotificationWish("job-1", "é" * 300, "😀" * 5000, {"errorMessage": "x" * 100_000, "sessionId": "s"})
    built = build_job_notification("job_failed", wish, NOW)
    assert built.title == "é" * (MAX_TITLE - 1) + "…"
    assert built.body == "😀" * (MAX_BODY - 1) + "…"
    assert len(msgspec.json.encode(built.custom_data)) <= MAX_CUSTOM_DATA_BYTES
    assert built.custom_data["sessionId"] == "s"
    assert built.custom_data["errorMessage"].startswith("x" * 30_000)
    assert built.custom_data["errorMessage"].endswith("…")


def test_what_cannot_be_kept_is_left_out_of_texts() -> None:
    wish = JobNotificationWish("job\0-1", "a\0b", "half \ud83d", {"na\0me": ["\0", {"x\ud83d": "\udc00"}]})
    built = build_job_notification("job_completed", wish, NOW)
    assert (built.job_id, built.title, built.body) == ("job-1", "ab", "half ?")
    assert built.custom_data == {"name": ["", {"x?": "?"}], "timestamp": STAMP}


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 1e300, 10**400])
def test_numbers_that_readers_of_json_stumble_over_are_written_out(number: float) -> None:
    assert clean({"n": [number]}) == {"n": [str(number)]}


@given(JSON)
def test_whatever_it_is_it_can_be_stored_and_read_again(value: Any) -> None:
    kept = build_custom_data(value, NOW)
    encoded = msgspec.json.encode(kept)
    assert msgspec.json.decode(encoded) == kept
    assert b"\\u0000" not in encoded
    assert len(encoded) <= MAX_CUSTOM_DATA_BYTES


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"jobId":1,"title":"","body":""}', b'{"jobId":"1","title":"t","body":null}']
)
def test_a_job_without_its_words_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        decode_body(body, JobNotificationWish)


def test_the_id_of_a_job_has_a_bound() -> None:
    body = msgspec.json.encode({"jobId": "x" * 255, "title": "", "body": "", "more": 1})
    assert decode_body(body, JobNotificationWish).job_id == "x" * 255
    with pytest.raises(RequestInvalid, match="jobId"):
        decode_body(body.replace(b"xxx", b"xxxx", 1), JobNotificationWish)


@pytest.mark.parametrize(
    ("kind", "is_configured", "message"),
    [
        ("job_completed", True, "Notification sent to 2 devices"),
        ("job_progress", True, "Silent notification sent to 2 devices"),
        ("test", True, "Test notification sent to 2 devices"),
        ("test", False, "Test notification stored, and sent to 0 devices: push is not configured on this server"),
    ],
)
def test_the_answer_says_what_was_done(kind: str, is_configured: bool, message: str) -> None:
    assert write_answer(kind, 2 if is_configured else 0, is_configured=is_configured) == message
