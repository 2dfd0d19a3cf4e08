"""Events that wait for Redis: bounded, and in their order."""

from uuid import uuid4

import pytest

from server.relay import late_events
from server.relay.late_events import MOST_PER_USER, LateEvent, LateEvents

ANN, BOB = uuid4(), uuid4()


def build_late(name: str = "t", body: bytes = b"body") -> LateEvent:
    return LateEvent("desktop", body, name, "", 0)


def list_tokens(late: LateEvents) -> list[str]:
    line = late.find(ANN)
    return [] if line is None else [event.token for event in line.events]


def test_they_wait_in_their_order_until_redis_has_them() -> None:
    late = LateEvents()
    for name in ("a", "b"):
        late.add(ANN, build_late(name))
    assert list_tokens(late) == ["a", "b"]
    late.drop_first(ANN)
    assert list_tokens(late) == ["b"]
    late.drop_first(ANN)
    assert late.find(ANN) is None


def test_no_more_of_a_user_wait_than_would_be_kept(caplog: pytest.LogCaptureFixture) -> None:
    late = LateEvents()
    for n in range(MOST_PER_USER + 1):
        late.add(ANN, build_late(str(n)))
    assert len(list_tokens(late)) == MOST_PER_USER
    assert len(caplog.records) == 1
    late.add(BOB, build_late())
    assert late.find(BOB) is not None


def test_no_more_bytes_wait_than_a_process_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_events, "MOST_BYTES", 10)
    late = LateEvents()
    late.add(BOB, build_late(body=b"x" * 10))
    late.add(ANN, build_late())
    assert list_tokens(late) == []
    late.drop_first(BOB)
    late.add(ANN, build_late("later"))
    assert list_tokens(late) == ["later"]


def test_what_a_device_said_never_shows() -> None:
    assert "secret" not in repr(build_late(body=b"secret"))
