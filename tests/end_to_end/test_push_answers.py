"""Every answer in Apple's and Google's documentation, through the whole server: what becomes of token and push.

https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns and
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import trio

from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.push_scene import Platform, add_phone, make_token, notify
from tests.push_stand_in import (
    Cut,
    GoAway,
    PushStandIn,
    ResetStream,
    Say,
    Step,
    open_push_stand_in,
    refuse_apns,
    refuse_fcm,
)

Fate = Literal["sent", "sent again", "failed", "token gone", "waits"]
"""`sent again`: it was put off first, for seconds. `waits`: for a minute or more, until an operator has done something;
its token stays.
"""
Case = tuple[Fate, Sequence[Step]]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(days=1)

FINAL = [
    *((400, reason) for reason in ("BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority")),
    *((400, reason) for reason in ("DuplicateHeaders", "InvalidPushType", "MissingDeviceToken", "PayloadEmpty")),
    *((404, "BadPath"), (405, "MethodNotAllowed"), (413, "PayloadTooLarge")),
]
OUR_CONFIGURATION = [
    *((400, reason) for reason in ("BadTopic", "MissingTopic", "TopicDisallowed")),
    *((403, reason) for reason in ("BadCertificate", "BadCertificateEnvironment", "BadEnvironmentKeyIdInToken")),
    *((403, reason) for reason in ("Forbidden", "InvalidProviderToken", "MissingProviderToken")),
    *((403, "UnrelatedKeyIdInToken"), (429, "TooManyProviderTokenUpdates")),
]
PASSING = [
    *((400, "IdleTimeout"), (403, "ExpiredProviderToken"), (429, "TooManyRequests")),
    *((500, "InternalServerError"), (503, "ServiceUnavailable"), (503, "Shutdown")),
]

APNS: Mapping[str, Case] = {
    "nothing special": ("sent", []),
    **{reason: ("failed", [refuse_apns(status, reason)]) for status, reason in FINAL},
    **{reason: ("waits", [refuse_apns(status, reason)]) for status, reason in OUR_CONFIGURATION},
    **{reason: ("sent again", [refuse_apns(status, reason)]) for status, reason in PASSING},
    "BadDeviceToken in both environments": ("token gone", [refuse_apns(400, "BadDeviceToken")] * 2),
    "DeviceTokenNotForTopic": ("token gone", [refuse_apns(400, "DeviceTokenNotForTopic")]),
    "Unregistered": ("token gone", [refuse_apns(410, "Unregistered", since=LATER)]),
    "Unregistered without a timestamp": ("token gone", [refuse_apns(410, "Unregistered")]),
    "ExpiredToken": ("token gone", [refuse_apns(410, "ExpiredToken", since=LATER)]),
    "Unregistered long before it came again": ("sent again", [refuse_apns(410, "Unregistered", since=LONG_AGO)]),
    "Retry-After": ("sent again", [refuse_apns(429, "TooManyRequests", retry_after="1")]),
    "a proxy's 502": ("sent again", [Say(502, b"<html>")]),
    "a reset stream": ("sent again", [ResetStream(2)]),
    "a refused stream": ("sent", [ResetStream(7)]),
    "GOAWAY before it": ("sent", [GoAway("Shutdown")]),
}

NO_TOKEN = "The registration token is not a valid FCM registration token"
FCM: Mapping[str, Case] = {
    "nothing special": ("sent", []),
    "UNREGISTERED": ("token gone", [refuse_fcm(404, "NOT_FOUND", "UNREGISTERED")]),
    "SENDER_ID_MISMATCH": ("token gone", [refuse_fcm(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH")] * 2),
    "a token that is none": ("token gone", [refuse_fcm(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", NO_TOKEN)]),
    "INVALID_ARGUMENT": ("failed", [refuse_fcm(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")]),
    "QUOTA_EXCEEDED": ("waits", [refuse_fcm(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")]),
    "QUOTA_EXCEEDED with Retry-After": (
        "sent again",
        [refuse_fcm(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", retry_after="1")],
    ),
    "UNAVAILABLE": ("sent again", [refuse_fcm(503, "UNAVAILABLE", "UNAVAILABLE")]),
    "INTERNAL": ("sent again", [refuse_fcm(500, "INTERNAL", "INTERNAL")]),
    "UNSPECIFIED_ERROR": ("sent again", [refuse_fcm(500, "UNKNOWN", "UNSPECIFIED_ERROR")]),
    "THIRD_PARTY_AUTH_ERROR": ("waits", [refuse_fcm(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")] * 2),
    "UNAUTHENTICATED once": ("sent", [refuse_fcm(401, "UNAUTHENTICATED")]),
    "PERMISSION_DENIED": ("waits", [refuse_fcm(403, "PERMISSION_DENIED")]),
    "a project that is not found": ("waits", [refuse_fcm(404, "NOT_FOUND")]),
    "a proxy's 502": ("sent again", [Say(502, b"<html>")]),
    # twice, for a request that a kept connection did not take is sent once more on a new one: that is no attempt
    "a connection that is cut": ("sent again", [Cut(), Cut()]),
}


async def test_every_answer_of_apns_and_fcm_has_its_consequence(stores: Stores) -> None:
    async with open_push_stand_in() as push, open_cloche(stores, settings=push.settings) as cloche:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_fates, cloche, push, APNS, "ios")
            nursery.start_soon(check_fates, cloche, push, FCM, "android")
        assert push.apns.book.refused == push.fcm.book.refused == []
        assert push.apns.violations == []


async def check_fates(cloche: Cloche, push: PushStandIn, cases: Mapping[str, Case], platform: Platform) -> None:
    """One phone and one push for each, all at the same time; after a first one, by which our configuration is good."""
    tokens = {name: make_token() for name in cases}
    script, book = (push.apns.script, push.apns.book) if platform == "ios" else (push.fcm.script, push.fcm.book)
    customer = await cloche.make_customer()
    first = await add_phone(cloche, customer, platform=platform)
    assert await notify(cloche, customer) == 1
    await book.wait_acknowledged(1)
    for name, token in tokens.items():
        script.play(token, *cases[name][1])
        await add_phone(cloche, customer, token, platform)
    assert await notify(cloche, customer) == len(cases) + 1
    expected = {name: fate for name, (fate, _) in cases.items()}
    with trio.move_on_after(15):
        while find_fates(cloche, tokens) != expected:
            await trio.sleep(0.05)
    assert find_fates(cloche, tokens) == expected
    sent = [tokens[name] for name, fate in expected.items() if fate in {"sent", "sent again"}]
    await book.wait_acknowledged(len(sent) + 2)
    assert sorted(seen.token for seen in book.acknowledged) == sorted([first.token, first.token, *sent])


def find_fates(cloche: Cloche, tokens: Mapping[str, str]) -> dict[str, str]:
    query = """
        SELECT token, CASE WHEN state = 'sent' AND attempts > 1 THEN 'sent again'
            WHEN state = 'due' AND next_attempt_at > now() + interval '40 seconds' THEN 'waits'
            ELSE state END
        FROM push_tokens LEFT JOIN notification_deliveries ON token_id = push_tokens.id
    """
    rows = dict(cloche.query(query))
    return {name: rows.get(token, "token gone") for name, token in tokens.items()}
