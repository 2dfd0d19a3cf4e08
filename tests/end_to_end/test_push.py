"""Pushes through the whole server, as phones, desktops, Apple and Google see them."""

import time
from collections.abc import Awaitable, Callable

import pytest

from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.push_scene import (
    Phone,
    add_phone,
    find_deliveries,
    move,
    notify,
    put_token,
    send,
    wait_none_due,
)
from tests.push_stand_in import Push, open_push_stand_in, refuse_apns

DAY = 24 * 3600

PLAN = {
    "type": "implementation_plan_complete",
    "jobId": "job-1",
    "sessionId": "session-1",
    "projectDirectory": "/home/me/project",
    "planTitle": "A plan",
    "modelUsed": None,
}
"""As the shipped desktop sends it."""


Leave = Callable[[Cloche, Phone], Awaitable[None]]


async def sign_out(cloche: Cloche, phone: Phone) -> None:
    assert (await send(cloche, "POST", "/api/auth/logout", phone.owner.headers)).status == 200


async def unlink(cloche: Cloche, phone: Phone) -> None:
    body = {"deviceName": "iPhone", "platform": "ios", "appVersion": "1.2.3"}
    headers = phone.owner.headers
    assert (await send(cloche, "POST", "/api/devices/mobile/register", headers, body)).status == 201
    assert (await send(cloche, "DELETE", f"/api/devices/{headers['X-Device-ID']}", headers)).status == 204


async def test_a_finished_job_reaches_a_phone_that_is_not_connected_as_the_contract_says(stores: Stores) -> None:
    """Texts and token are in no log."""
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings, LOG_LEVEL="DEBUG") as cloche:
        desktop = await cloche.make_customer()
        phone = await add_phone(cloche, desktop)
        title, body = "The plan is ready", "Twelve steps, all of them short"
        assert await notify(cloche, desktop, title=title, body=body, customData=PLAN) == 1
        (seen,) = await push.apns.book.wait_acknowledged(1)
        await wait_none_due(cloche)
        assert find_deliveries(cloche) == [(phone.token, "sent", 1)]
        check_plan(seen, phone, title, body)
        assert cloche.query("SELECT environment, last_success_at IS NULL FROM push_tokens") == [("production", False)]
        log = cloche.log.read_text()
        assert not [word for word in (phone.token, title, body, seen.provider_token, "A plan") if word in log]


def check_plan(seen: Push, phone: Phone, title: str, body: str) -> None:
    assert (seen.environment, seen.token, seen.collapse_id) == ("production", phone.token, "job_completed:job-1")
    assert seen.headers["apns-push-type"] == "alert"
    assert seen.headers["apns-priority"] == "10"
    assert int(seen.headers["apns-expiration"]) - time.time() == pytest.approx(DAY, abs=60)
    root = dict(seen.payload)
    assert root.pop("aps") == {
        "alert": {"title": title, "body": body},
        "badge": 1,
        "sound": "default",
        "category": "job_completed",
        "content-available": 1,
    }
    root.pop("timestamp", None)
    assert root == {name: value for name, value in PLAN.items() if value is not None}


async def test_failures_progress_and_tests_look_as_the_contract_says_and_share_one_provider_token(
    stores: Stores,
) -> None:
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        desktop = await cloche.make_customer()
        await add_phone(cloche, desktop)
        assert await notify(cloche, desktop, "job-failed", customData={"aps": {"badge": 99}}) == 1
        assert await notify(cloche, desktop, "job-progress") == 1
        assert (await send(cloche, "POST", "/api/notifications/test", desktop.headers)).json["sentCount"] == 1
        seen = {each.collapse_id.partition(":")[0]: each for each in await push.apns.book.wait_acknowledged(3)}
        assert seen["job_failed"].payload["aps"]["category"] == "job_failed"
        assert seen["job_failed"].payload["aps"]["badge"] == 1
        progress = seen["job_progress"]
        assert progress.payload["aps"] == {"content-available": 1}
        assert (progress.headers["apns-push-type"], progress.headers["apns-priority"]) == ("background", "5")
        assert int(progress.headers["apns-expiration"]) - time.time() == pytest.approx(600, abs=60)
        assert seen["test"].payload["aps"]["alert"]["subtitle"]
        assert (seen["test"].payload["test"], seen["test"].payload["environment"]) == (True, "production")
        assert len(push.apns.provider_tokens) == 1
        assert len(push.apns.connections) == 1
        assert push.apns.violations == []


async def test_an_android_phone_gets_a_message_that_replaces_only_its_own_job(stores: Stores) -> None:
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        desktop = await cloche.make_customer()
        phone = await add_phone(cloche, desktop, "an-fcm-token", "android")
        assert await notify(cloche, desktop, customData=PLAN) == 1
        (seen,) = await push.fcm.book.wait_acknowledged(1)
        assert (seen.token, seen.collapse_id) == (phone.token, "job_completed:job-1")
        assert seen.payload["notification"] == {"title": "Done", "body": "It is done"}
        assert seen.payload["data"]["type"] == "implementation_plan_complete"
        assert seen.payload["android"]["priority"] == "HIGH"
        assert await notify(cloche, desktop, "job-progress") == 1
        _, quiet = await push.fcm.book.wait_acknowledged(2)
        assert "notification" not in quiet.payload
        assert quiet.payload["android"]["priority"] == "NORMAL"
        assert len(push.fcm.assertions) == 1


async def test_a_token_of_the_other_environment_is_found_there_and_remembered(stores: Stores) -> None:
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        desktop = await cloche.make_customer()
        phone = await add_phone(cloche, desktop)
        push.apns.homes[phone.token] = "sandbox"
        for job in (1, 2):
            await notify(cloche, desktop, jobId=f"job-{job}")
            await push.apns.book.wait_acknowledged(job)
            await wait_none_due(cloche)
        assert [seen.environment for seen in push.apns.book.received] == ["production", "sandbox", "sandbox"]
        assert cloche.query("SELECT environment FROM push_tokens") == [("sandbox",)]


async def test_without_configuration_notifications_are_kept_and_nobody_is_alarmed(stores: Stores) -> None:
    async with open_cloche(stores, LOG_LEVEL="INFO") as cloche:
        desktop = await cloche.make_customer()
        await add_phone(cloche, desktop)
        for kind in ("job-completed", "job-failed", "job-progress", "test"):
            assert await notify(cloche, desktop, kind) == 0
        listed = await send(cloche, "GET", "/api/notifications", desktop.headers)
        assert listed.status == 200
        assert cloche.query("SELECT count(*) FROM notifications WHERE NOT is_silent") == [(3,)]
        assert find_deliveries(cloche) == []
        alarms = [line for line in cloche.find_logged() if line["level"] not in {"DEBUG", "INFO"}]
        assert {line["logger"] for line in alarms} <= {"server.auth.issuer_keys"}  # nobody plays the issuer here


async def test_a_token_that_another_user_brought_gets_nothing_of_the_former_one_any_more(stores: Stores) -> None:
    """Neither what was on its way nor what comes after."""
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        ann, bob = await cloche.make_customer(), await cloche.make_customer()
        phone = await add_phone(cloche, ann)
        push.apns.script.play(phone.token, refuse_apns(503, "ServiceUnavailable"))
        assert await notify(cloche, ann, jobId="of-ann") == 1
        await push.apns.book.wait_received(1)
        await put_token(cloche, move(bob), phone.token)
        assert await notify(cloche, ann, jobId="late-of-ann") == 0
        assert await notify(cloche, bob, jobId="of-bob") == 1
        await push.apns.book.wait_acknowledged(1)
        await wait_none_due(cloche)
        assert [seen.payload["jobId"] for seen in push.apns.book.acknowledged] == ["of-bob"]
        assert cloche.query("SELECT count(*) FROM notification_deliveries WHERE user_id = %s", ann.user_id) == [(0,)]


@pytest.mark.parametrize("leave", [sign_out, unlink])
async def test_a_phone_that_signs_out_or_is_unlinked_gets_no_more_pushes(stores: Stores, leave: Leave) -> None:
    """Neither what was on its way nor what comes after."""
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        desktop = await cloche.make_customer()
        leaving, staying = [await add_phone(cloche, desktop) for _ in range(2)]
        push.apns.script.play(leaving.token, refuse_apns(503, "ServiceUnavailable"))
        assert await notify(cloche, desktop, jobId="job-1") == 2
        await push.apns.book.wait_received(2)
        await leave(cloche, leaving)
        assert await notify(cloche, desktop, jobId="job-2") == 1
        await push.apns.book.wait_acknowledged(2)
        await wait_none_due(cloche)
        assert {seen.token for seen in push.apns.book.acknowledged} == {staying.token}
        assert [token for token, _, _ in find_deliveries(cloche)] == [staying.token] * 2
