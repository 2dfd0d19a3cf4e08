"""What may become of a push, whoever carries it, and what follows for its delivery. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from storage.deliveries import Delivery, Ended, Gone, Note, PutOff
from storage.push_tokens import PushEnvironment

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
MAX_GONE_ATTEMPTS = 5
"""So often a push is sent to a token that its device brings again and that its service goes on to know as gone."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The service has it. `environment` is which of APNs's two it was."""

    environment: PushEnvironment | None = None


@dataclass(frozen=True, slots=True)
class TokenGone:
    """The token reaches nobody any more. `since` is since when, if the service says so: a token that the device has
    brought again after that stays.
    """

    reason: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """It may be sent again: not before so many seconds, if the service says how many. Whether it has arrived may be
    unknown.
    """

    reason: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It will not be taken however often it is sent. `reason` is the service's word."""

    reason: str


Outcome = Accepted | TokenGone | Later | Refused


class Sender(Protocol):
    """A push service. One sender serves any number of tasks."""

    async def send(self, delivery: Delivery) -> Outcome:
        """One attempt, with a deadline of its own. Raises nothing but what is a fault of ours."""
        ...


def build_note(delivery: Delivery, outcome: Outcome, jitter: float) -> Note:
    """What is noted of a delivery. `jitter` is from 0 to 1."""
    match outcome:
        case Accepted():
            return Ended(delivery, "sent", environment=outcome.environment)
        case Refused():
            return Ended(delivery, "failed", outcome.reason)
        case TokenGone():
            since = outcome.since or delivery.claimed_at
            is_last = delivery.attempts >= MAX_GONE_ATTEMPTS
            pause = None if is_last else find_pause_seconds(delivery.attempts, None, jitter)
            return Gone(delivery, since, pause, outcome.reason)
        case Later():
            pause = find_pause_seconds(delivery.attempts, outcome.after_seconds, jitter)
            return PutOff(delivery, pause, outcome.reason)


def find_pause_seconds(attempts: int, after_seconds: float | None, jitter: float) -> float:
    """After so many attempts: twice as long each time, and never less than the service asks for."""
    doublings = min(max(attempts - 1, 0), 20)
    pause: float = min(FIRST_PAUSE_SECONDS * 2**doublings, LONGEST_PAUSE_SECONDS / 2) * (1 + jitter)
    return pause if after_seconds is None else max(pause, after_seconds + jitter)
