"""What APNs is told of a notification."""

from typing import Any

import msgspec
import pytest

from server.push.apns_request import MAX_PAYLOAD_BYTES, TEST_SUBTITLE, build_payload, build_request
from storage.deliveries import Delivery
from tests.server.push.apns_samples import NOW, TOKEN, build_delivery

BUNDLE = "com.example.app"


def read_payload(delivery: Delivery) -> dict[str, Any]:
    payload = build_payload(delivery)
    assert len(payload) <= MAX_PAYLOAD_BYTES
    decoded: dict[str, Any] = msgspec.json.decode(payload)
    return decoded


def test_a_visible_push_is_delivered_at_once_until_its_time_is_over() -> None:
    request = build_request(build_delivery(), BUNDLE)
    assert request.path == f"/3/device/{TOKEN}"
    assert dict(request.headers) == {
        "apns-topic": BUNDLE,
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": str(int(NOW.timestamp()) + 86_400),
        "apns-id": "123e4567-e89b-12d3-a456-426614174000",
        "apns-collapse-id": "job_completed:job-1",
    }


def test_a_silent_push_spares_the_battery_and_shows_nothing() -> None:
    delivery = build_delivery("job_progress", custom_data={"percent": 40}, is_silent=True)
    headers = dict(build_request(delivery, BUNDLE).headers)
    assert (headers["apns-push-type"], headers["apns-priority"]) == ("background", "5")
    assert read_payload(delivery) == {
        "aps": {"content-available": 1},
        "type": "job_progress",
        "jobId": "job-1",
        "percent": 40,
    }


def test_a_visible_push_has_texts_badge_sound_and_category() -> None:
    assert read_payload(build_delivery())["aps"] == {
        "alert": {"title": "Done", "body": "Your plan is ready."},
        "badge": 1,
        "sound": "default",
        "category": "job_completed",
        "content-available": 1,
    }


def test_a_test_push_has_a_subtitle() -> None:
    payload = read_payload(build_delivery("test", job_id=None, custom_data={"test": True}))
    assert payload["aps"]["alert"]["subtitle"] == TEST_SUBTITLE
    assert (payload["test"], payload["type"]) == (True, "test")


def test_what_the_app_goes_by_stands_at_the_root() -> None:
    data = {"type": "implementation_plan_complete", "jobId": "job-7", "sessionId": "s", "projectDirectory": "/home/me"}
    payload = read_payload(build_delivery(custom_data=data))
    assert {name: value for name, value in payload.items() if name != "aps"} == data


def test_a_push_without_a_type_gets_its_kind_and_its_job() -> None:
    payload = read_payload(build_delivery("job_failed", custom_data={"errorMessage": "no"}))
    assert (payload["type"], payload["jobId"], payload["errorMessage"]) == ("job_failed", "job-1", "no")


@pytest.mark.parametrize("nothing", [None, 7, ["job"], {"id": "job"}])
def test_what_is_no_word_takes_the_place_of_neither_kind_nor_job(nothing: Any) -> None:
    payload = read_payload(build_delivery(custom_data={"type": nothing, "jobId": nothing}))
    assert (payload["type"], payload["jobId"]) == ("job_completed", "job-1")


def test_what_the_app_goes_by_is_the_last_to_go() -> None:
    data = {"jobId": "j" * 200, "sessionId": "s" * 100, "projectDirectory": "/home/" + "p" * 400}
    crowd = {f"k{number}": number for number in range(1000)}
    payload = read_payload(build_delivery(body="x" * 4_000, custom_data=crowd | data | {"log": "l" * 30_000}))
    assert payload.items() >= data.items()
    assert payload["type"] == "job_completed"


def test_numbers_are_handed_on_digit_by_digit() -> None:
    numbers = {"large": 2**53 + 1, "largest": 2**63 - 1, "small": -(2**63), "cost": 0.1}
    assert read_payload(build_delivery(custom_data=numbers)).items() >= numbers.items()


def test_what_iphones_read_cannot_be_overwritten() -> None:
    payload = read_payload(build_delivery(custom_data={"aps": {"alert": "forged"}, "other": 1}))
    assert payload["aps"]["alert"]["title"] == "Done"
    assert payload["other"] == 1


def test_nulls_are_left_out() -> None:
    payload = read_payload(build_delivery(job_id=None, custom_data={"planTitle": None, "modelUsed": None}))
    assert set(payload) == {"aps", "type"}


@pytest.mark.parametrize("character", ["x", "é", "😀", '"', "\x01"])
@pytest.mark.parametrize("size", [3_000, 30_000])
def test_a_payload_is_cut_to_what_apns_takes(character: str, size: int) -> None:
    long = character * size
    payload = read_payload(
        build_delivery(
            "job_failed", title="Failed", body=long[:4_000], custom_data={"errorMessage": long, "sessionId": "s-1"}
        )
    )
    assert payload["aps"]["alert"]["title"] == "Failed"
    assert payload["aps"]["category"] == "job_failed"
    assert (payload["type"], payload["jobId"], payload["sessionId"]) == ("job_failed", "job-1", "s-1")


def test_data_that_is_too_long_costs_a_short_text_nothing() -> None:
    alert = read_payload(build_delivery(custom_data={"errorMessage": "x" * 30_000}))["aps"]["alert"]
    assert alert == {"title": "Done", "body": "Your plan is ready."}


def test_a_text_has_the_room_that_the_data_leaves() -> None:
    alert = read_payload(build_delivery(body="x" * 4_000))["aps"]["alert"]
    assert len(alert["body"]) > 3_500


def test_a_silent_push_is_cut_as_well() -> None:
    payload = read_payload(build_delivery("job_progress", custom_data={"log": "x" * 30_000}, is_silent=True))
    assert payload["aps"] == {"content-available": 1}
    assert payload["type"] == "job_progress"


@pytest.mark.parametrize("token", ["../../other", "a/b?c=d", "a b\r\nx: y", "é"])
def test_a_strange_token_stays_within_the_path(token: str) -> None:
    path = build_request(build_delivery(token=token), BUNDLE).path
    assert path.startswith("/3/device/")
    assert path.removeprefix("/3/device/").replace("%", "").replace(".", "").isalnum()


def test_neither_token_nor_text_stands_in_a_repr() -> None:
    shown = repr(build_request(build_delivery(), BUNDLE))
    assert TOKEN not in shown
    assert "plan" not in shown
