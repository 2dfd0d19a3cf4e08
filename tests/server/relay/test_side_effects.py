"""What events mean to the relay itself."""

import json
from typing import Any

import pytest

from server.relay.messages import MessageInvalid, SaidEvent
from server.relay.side_effects import RUNNING, Effects, build_hint, find_effects

IDS = {"jobId": "j1", "sessionId": "s1"}


def effects_of(event_type: str, payload: Any) -> Effects:
    return find_effects(SaidEvent(event_type, json.dumps(payload).encode()))


@pytest.mark.parametrize("payload", [None, "text", [1], {"jobId": 1}, {}])
def test_most_events_mean_nothing(payload: object) -> None:
    assert effects_of("session-updated", payload) == Effects()
    assert effects_of("jobs:list-invalidated", payload) == Effects()


@pytest.mark.parametrize(
    "name", ["job:response-appended", "device-status", "event-replay-gap", "active-session-changed"]
)
def test_what_is_old_at_once_is_not_kept(name: str) -> None:
    assert not effects_of(name, IDS).is_kept


@pytest.mark.parametrize("payload", [None, [], {}, {"jobId": "j"}, {"sessionId": "s"}, {**IDS, "jobId": " "}])
def test_an_event_of_a_job_says_which(payload: object) -> None:
    with pytest.raises(MessageInvalid) as caught:
        effects_of("job:finalized", payload)
    assert caught.value.code == "invalidPayload"


@pytest.mark.parametrize("status", sorted(RUNNING))
def test_a_job_that_runs_makes_its_session_active(status: str) -> None:
    effects = effects_of("job:status-changed", {**IDS, "status": status, "projectDirectory": "/p"})
    assert effects.hint == build_hint("s1", "/p") == b'{"sessionId":"s1","projectDirectory":"/p"}'
    assert effects.is_kept
    nested = effects_of("job:status-changed", {**IDS, "status": status, "job": {"projectDirectory": "/q"}})
    assert nested.hint == build_hint("s1", "/q")


@pytest.mark.parametrize("payload", [{**IDS, "status": "completed"}, {**IDS, "status": ["running"]}, IDS])
def test_a_job_that_does_not_run_hints_at_nothing(payload: object) -> None:
    assert effects_of("job:status-changed", payload) == Effects()
    assert effects_of("job:created", payload) == Effects()


def test_a_job_that_was_created_makes_its_session_active() -> None:
    assert effects_of("job:created", {**IDS, "job": {"sessionId": "s2"}}).hint == b'{"sessionId":"s2"}'
    assert effects_of("job:created", {**IDS, "job": {"sessionId": ""}}).hint is None
    assert effects_of("job:created", {**IDS, "job": "s2"}).hint is None


def test_of_history_states_the_newest_of_a_kind_is_kept() -> None:
    one = effects_of("history-state-changed", {"sessionId": "s", "kind": "task"})
    assert one.newest_of is not None
    assert one == effects_of("history-state-changed", {"sessionId": "s", "kind": "task", "version": 2})
    named = [("s", "files"), ("s2", "task"), ('s","t', "task"), ("s", 't","task')]
    others = [effects_of("history-state-changed", {"sessionId": s, "kind": kind}).newest_of for s, kind in named]
    assert len({one.newest_of, *others}) == 5


@pytest.mark.parametrize("payload", [None, {}, {"sessionId": "s"}, {"sessionId": "s" * 300, "kind": "task"}])
def test_a_history_state_that_says_of_nothing_stands_for_itself(payload: object) -> None:
    assert effects_of("history-state-changed", payload) == Effects()


@pytest.mark.parametrize(("payload", "is_visible"), [({"visible": True}, True), ({"visible": False}, False)])
def test_a_desktop_says_whether_it_may_be_reached(payload: object, is_visible: bool) -> None:
    assert effects_of("device-visibility-updated", payload).is_visible is is_visible


@pytest.mark.parametrize("payload", [None, [], {}, {"visible": None}, {"visible": "false"}, {"visible": 0}])
def test_anything_but_yes_and_no_changes_nothing(payload: object) -> None:
    assert effects_of("device-visibility-updated", payload) == Effects()


@pytest.mark.parametrize(
    ("directory", "noted"), [("/home/me", "/home/me"), ("", None), (None, None), ("a\0b", None), ("x" * 4097, None)]
)
def test_a_project_directory_is_noted_if_it_can_be_kept(directory: object, noted: str | None) -> None:
    assert effects_of("project-directory-updated", {"projectDirectory": directory}).project_directory == noted
