"""What tests of FCM share: a service account, a push, and Google's own words."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from server.push.settings import FcmSettings
from storage.deliveries import Delivery
from tests.fake_upstream import RecordedRequest, Step, response
from tests.push_stand_in.keys import find_account_key, write_pem

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
DEVICE_TOKEN = "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1"
CLIENT_EMAIL = "pusher@cloche-test.iam.gserviceaccount.com"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
MESSAGE_NAME = "projects/cloche-test/messages/0:1500415314455276%31bd1c9631bd1c96"


def build_settings(url: str) -> FcmSettings:
    """Both services at `url`."""
    return FcmSettings("cloche-test", CLIENT_EMAIL, "key-1", write_pem(find_account_key()), f"{url}/token", url)


def build_delivery(**changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "notification_id": UUID(int=1),
        "token_id": UUID(int=2),
        "push_id": UUID(int=3),
        "user_id": UUID(int=4),
        "platform": "android",
        "token": DEVICE_TOKEN,
        "environment": None,
        "attempts": 1,
        "kind": "job_completed",
        "job_id": "job-1",
        "title": "Plan ready",
        "body": "The plan of the kitchen is ready",
        "custom_data": {},
        "is_silent": False,
        "created_at": NOW,
        "deliver_until": NOW + timedelta(hours=24),
    }
    return Delivery(**fields | changes)


def error_body(code: int, status: str, *details: Mapping[str, object], message: str = "Scripted") -> bytes:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return json.dumps({"error": error}).encode()


def fcm_error(code: int, status: str, fcm_code: str) -> bytes:
    return error_body(code, status, {"@type": FCM_ERROR, "errorCode": fcm_code})


def accepted() -> list[Step]:
    return response(200, json.dumps({"name": MESSAGE_NAME}).encode())


@dataclass(slots=True)
class ScriptedGoogle:
    """Grants `access-1`, `access-2` … and answers pushes by `answer_push`. Give it to open_fake_upstream()."""

    answer_push: Callable[[RecordedRequest], Iterable[Step]] = lambda _request: accepted()
    answer_grant: Callable[[int], Iterable[Step]] = lambda number: grant(f"access-{number}")
    assertions: list[str] = field(default_factory=list)
    pushes: list[RecordedRequest] = field(default_factory=list)

    def __call__(self, request: RecordedRequest) -> Iterable[Step]:
        if request.path == "/token":
            self.assertions.append(parse_qs(request.body.decode())["assertion"][0])
            return self.answer_grant(len(self.assertions))
        self.pushes.append(request)
        return self.answer_push(request)


def grant(token: str, life_seconds: float = 3599) -> list[Step]:
    fields = {"access_token": token, "expires_in": life_seconds, "token_type": "Bearer"}
    return response(200, json.dumps(fields).encode())
