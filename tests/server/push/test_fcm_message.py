"""What Android gets of a notification, within FCM's limits whatever the desktop put into it."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.push.fcm_message import MAX_PAYLOAD_BYTES, build_message
from tests.server.push.fcm_samples import DEVICE_TOKEN, NOW, build_delivery


def build(**changes: Any) -> dict[str, Any]:
    built = json.loads(build_message(build_delivery(**changes), NOW))
    assert set(built) == {"message"}
    message: dict[str, Any] = built["message"]
    return message


def measure(message: dict[str, Any]) -> int:
    """As FCM counts at the most: names and values, in JSON."""
    return sum(len(msgspec.json.encode(message[name])) for name in ("notification", "data") if name in message)


def test_an_alert_is_shown_at_once_and_carries_data() -> None:
    assert build(custom_data={"type": "implementation_plan_complete", "jobId": "job-1", "sessionId": "s1"}) == {
        "token": DEVICE_TOKEN,
        "notification": {"title": "Plan ready", "body": "The plan of the kitchen is ready"},
        "data": {"type": "implementation_plan_complete", "jobId": "job-1", "sessionId": "s1"},
        "android": {
            "priority": "HIGH",
            "collapse_key": "job_completed:job-1",
            "ttl": "86400s",
            "notification": {"tag": "job_completed:job-1", "sound": "default"},
        },
    }


def test_a_silent_push_wakes_the_app_and_shows_nothing() -> None:
    silent = build(kind="job_progress", is_silent=True, deliver_until=NOW + timedelta(minutes=10))
    assert silent == {
        "token": DEVICE_TOKEN,
        "data": {"type": "job_progress", "jobId": "job-1"},
        "android": {"priority": "NORMAL", "collapse_key": "job_progress", "ttl": "600s"},
    }


def test_progress_of_many_jobs_takes_the_place_of_no_alert_that_waits_for_the_phone() -> None:
    silent = [build(kind="job_progress", job_id=f"job-{n}", is_silent=True) for n in range(9)]
    assert {message["android"]["collapse_key"] for message in silent} == {"job_progress"}


def test_a_repetition_replaces_the_first_and_another_notification_does_not() -> None:
    first, again = build(job_id=None), build(job_id=None, attempts=2)
    other = build(job_id=None, notification_id=UUID(int=9))
    assert first == again
    assert first["android"]["notification"]["tag"] != other["android"]["notification"]["tag"]


@pytest.mark.parametrize(
    ("left", "ttl"),
    [
        (timedelta(seconds=90, milliseconds=900), "90s"),
        (timedelta(milliseconds=400), "0s"),
        (timedelta(seconds=-5), "0s"),
        (timedelta(days=40), "2419200s"),
    ],
)
def test_fcm_gives_up_when_we_would(left: timedelta, ttl: str) -> None:
    assert build(deliver_until=NOW + left)["android"]["ttl"] == ttl


def test_every_value_is_a_string() -> None:
    custom = {"cost": 1.5, "count": 3, "done": True, "plan": {"steps": [1, "two"]}, "title": "", "model": None}
    data = build(custom_data=custom)["data"]
    assert data == {
        "type": "job_completed",
        "jobId": "job-1",
        "cost": "1.5",
        "count": "3",
        "done": "true",
        "plan": '{"steps":[1,"two"]}',
        "title": "",
    }


def test_a_type_that_is_nothing_is_the_kind() -> None:
    assert build(custom_data={"type": None, "jobId": None})["data"] == {"type": "job_completed", "jobId": "job-1"}
    assert build(job_id=None)["data"] == {"type": "job_completed"}


@pytest.mark.parametrize(
    "name", ["from", "From", "message_type", "collapse_key", "google", "google.sent_time", "gcm", "gcm.notification.e"]
)
def test_a_reserved_name_is_renamed(name: str) -> None:
    assert build(custom_data={name: "kept", "ours": "1"})["data"] == {
        "type": "job_completed",
        "jobId": "job-1",
        f"x-{name}": "kept",
        "ours": "1",
    }


def test_a_renamed_name_takes_nobodys_place() -> None:
    assert build(custom_data={"x-from": "theirs", "from": "renamed"})["data"]["x-from"] == "theirs"


def test_a_member_without_a_name_is_left_out() -> None:
    assert "" not in build(custom_data={"": "nothing"})["data"]


def test_long_texts_leave_room_for_what_the_app_opens() -> None:
    message = build(body="é" * 9000, custom_data={"sessionId": "s1", "projectDirectory": "/home/me/proj"})
    assert measure(message) <= MAX_PAYLOAD_BYTES
    assert message["notification"]["title"] == "Plan ready"
    assert message["notification"]["body"].endswith("é…")
    assert message["data"]["projectDirectory"] == "/home/me/proj"


def test_long_data_leaves_the_texts_whole() -> None:
    message = build(custom_data={"errorMessage": "x" * 9000, "sessionId": "s1"})
    assert measure(message) <= MAX_PAYLOAD_BYTES
    assert message["notification"]["body"] == "The plan of the kitchen is ready"
    assert message["data"]["sessionId"] == "s1"
    assert message["data"]["errorMessage"].startswith("xxx")


def test_no_json_value_is_cut_in_two() -> None:
    steps = {f"steps{n}": [["step"] * 300] for n in range(3)}
    message = build(custom_data=steps | {"note": "n" * 3000, "count": 7})
    assert measure(message) <= MAX_PAYLOAD_BYTES
    assert message["data"]["count"] == "7"
    for name in steps.keys() & message["data"].keys():
        assert json.loads(message["data"][name]) == steps[name]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=300) | TEXT.map(lambda text: text * 99),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(title=TEXT, body=TEXT.map(lambda text: text * 120), custom=st.dictionaries(TEXT, VALUE, max_size=8))
def test_whatever_comes_fits_and_is_strings(title: str, body: str, custom: dict[str, Any]) -> None:
    message = build(title=title, body=body, custom_data=custom)
    assert measure(message) <= MAX_PAYLOAD_BYTES
    assert all(isinstance(value, str) for value in message["data"].values())
    assert not {name.lower() for name in message["data"]} & {"from", "message_type", "collapse_key"}
