"""Which calls this process runs: found by their own users alone, as long as they run."""

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from proxy.events import Usage
from server.running_calls import RunningCalls
from tests.proxy.calls import MODEL
from tests.server.relay.audience import ANN, BOB


@dataclass(eq=False, slots=True)
class Call:
    user_id: UUID = ANN
    idempotency_key: str | None = None
    request_id: UUID = field(default_factory=uuid4)
    model = MODEL
    usage: Usage = field(default_factory=Usage)
    was_cancelled: bool = False

    def usage_so_far(self) -> Usage:
        return self.usage

    async def cancel(self) -> bool:
        was_running, self.was_cancelled = not self.was_cancelled, True
        return was_running


def test_a_call_is_found_by_its_id_and_by_its_key_until_it_ends() -> None:
    running, call = RunningCalls(), Call(idempotency_key="mine")
    running.note_started(call)
    assert running.find(ANN, call.request_id) is call
    assert running.find(ANN, None, "mine") is call
    assert running.find(ANN, uuid4(), "mine") is call
    assert running.find(ANN, uuid4(), "other") is None
    running.note_ended(call, None)
    assert running.find(ANN, call.request_id, "mine") is None


def test_nobody_finds_what_is_another_users() -> None:
    running, call = RunningCalls(), Call(idempotency_key="mine")
    running.note_started(call)
    assert running.find(BOB, call.request_id) is None
    assert running.find(BOB, None, "mine") is None


def test_who_knows_what_its_user_wants_finds_a_call_by_its_id_alone() -> None:
    running, call = RunningCalls(), Call()
    running.note_started(call)
    assert running.get(call.request_id) is call
    running.note_ended(call, None)
    assert running.get(call.request_id) is None


def test_a_call_that_ends_late_leaves_its_key_to_the_one_that_has_it_now() -> None:
    """It was settled, which frees its key, while its client did not read."""
    running, first, second = RunningCalls(), Call(idempotency_key="mine"), Call(idempotency_key="mine")
    running.note_started(first)
    running.note_started(second)
    running.note_ended(first, None)
    assert running.find(ANN, None, "mine") is second
    running.note_ended(second, None)
    assert running.find(ANN, None, "mine") is None


def test_an_end_that_is_told_twice_is_no_harm() -> None:
    running, call = RunningCalls(), Call()
    running.note_started(call)
    running.note_ended(call, None)
    running.note_ended(call, None)
    assert running.find(ANN, call.request_id) is None
