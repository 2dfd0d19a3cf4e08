"""Push as the rest of the server knows it: what is on, what is stored, and that it is sent at once."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio
import trio.testing

from server.push.push import PURGE_SECONDS, Push, PushUpkeep, build_push, open_push
from server.push.settings import PushSettings
from storage.deliveries import Deliveries
from storage.errors import DatabaseUnavailable
from storage.notifications import NewNotification, Notifications
from storage.postgres import Database
from tests.server.push import apns_samples, fcm_samples
from tests.server.push.scripted_sender import ScriptedSender
from tests.storage.phones import Phones

OFF = PushSettings(apns=None, fcm=None, ca_file=None, lease_seconds=60)
ON = PushSettings(
    apns=apns_samples.build_settings(),
    fcm=fcm_samples.build_settings("http://127.0.0.1:9"),
    ca_file=None,
    lease_seconds=60,
)
NEWS = NewNotification("job_completed", "j-1", "t", "b", {}, is_silent=False, deliver_within_seconds=3600)


def find_loops(push: Push, name: str) -> list[Callable[[], Any]]:
    return [loop for loop in push.loops if getattr(loop, "__name__", "") == name]


async def test_what_is_stored_is_sent_at_once_on_each_platform(push_database: Database, phones: Phones) -> None:
    user_id = phones.make_user()
    phones.make_token(user_id, "ios")
    phones.make_token(user_id, "android")
    ios, android = ScriptedSender(), ScriptedSender()
    push = build_push(OFF, push_database, {"ios": ios, "android": android}, [])
    assert push.platforms == {"ios", "android"}
    async with trio.open_nursery() as nursery:
        for loop in find_loops(push, "keep_delivering"):
            nursery.start_soon(loop)
        await trio.testing.wait_all_tasks_blocked(0.1)  # until the workers have found nothing
        stored = await push.notify(user_id, NEWS)
        with trio.fail_after(2):  # sooner than anybody would look by itself
            await ios.wait_begun(1)
            await android.wait_begun(1)
        nursery.cancel_scope.cancel()
    assert (stored.deliveries, stored.is_new) == (2, True)
    assert phones.read("state") == [("sent",), ("sent",)]


async def test_what_is_off_is_stored_and_on_its_way_to_nobody(push_database: Database, phones: Phones) -> None:
    user_id = phones.make_user()
    phones.make_token(user_id, "ios")
    push = build_push(OFF, push_database, {}, [])
    assert (await push.notify(user_id, NEWS)).deliveries == 0
    assert phones.read() == []
    assert phones.query("SELECT count(*) FROM notifications") == [(1,)]


async def test_without_settings_both_services_are_off_and_say_what_would_turn_them_on(
    push_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_push(OFF, push_database) as push:
        assert push.platforms == frozenset()
        assert find_loops(push, "keep_delivering") == []
        assert len(find_loops(push, "keep_up")) == 1
    said = {record.message: vars(record)["turned_on_by"] for record in caplog.records}
    assert said == {
        "pushes to iOS are off": "APNS_TEAM_ID, APNS_KEY_ID, APNS_PRIVATE_KEY, APNS_BUNDLE_ID",
        "pushes to Android are off": "FCM_SERVICE_ACCOUNT",
    }


async def test_with_settings_both_are_on_and_no_key_is_told(
    push_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_push(ON, push_database) as push:
        assert push.platforms == {"ios", "android"}
        assert len(find_loops(push, "keep_delivering")) == 6
    assert {"pushes to iOS are on", "pushes to Android are on"} <= {record.message for record in caplog.records}
    assert "PRIVATE" not in str([vars(record) for record in caplog.records])


# What time does


@dataclass(slots=True)
class Due:
    """What is due of both, and when it was asked for; `failures` times PostgreSQL is away."""

    late: int = 0
    old: int = 0
    failures: int = 0
    asked: list[tuple[float, str]] = field(default_factory=list)

    async def expire(self) -> int:
        self.asked.append((trio.current_time(), "late"))
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("PostgreSQL is away")
        done, self.late = min(self.late, 2), max(self.late - 2, 0)
        return done

    async def purge(self) -> int:
        self.asked.append((trio.current_time(), "old"))
        done, self.old = min(self.old, 1), max(self.old - 1, 0)
        return done

    def as_upkeep(self) -> PushUpkeep:
        me: Any = self
        return PushUpkeep(cast(Notifications, me), cast(Deliveries, me))


async def test_a_round_goes_on_until_nothing_is_due() -> None:
    due = Due(late=3, old=1)
    await due.as_upkeep().run_once()
    assert (due.late, due.old) == (0, 0)
    assert [what for _, what in due.asked] == ["late"] * 3 + ["old"] * 2


async def test_a_round_comes_every_hour_also_after_a_failure(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    due = Due(failures=1)
    with trio.move_on_after(PURGE_SECONDS * 1.5):
        await due.as_upkeep().keep_up()
    assert due.asked == [(0, "late"), (PURGE_SECONDS, "late"), (PURGE_SECONDS, "old")]
    assert "PostgreSQL is away" in caplog.text
