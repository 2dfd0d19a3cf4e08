"""Stands for Apple's and Google's services: answers each push as it is told, and remembers what it has taken."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import trio

from server.push.outcomes import Accepted, Outcome
from storage.deliveries import Delivery

Script = Callable[[Delivery], Awaitable[Outcome]]


async def accept(_: Delivery) -> Outcome:
    await trio.lowlevel.checkpoint()
    return Accepted("production")


@dataclass(slots=True)
class ScriptedSender:
    """`begun` is what it was asked to send, in this order; `accepted` what it said that it has taken."""

    script: Script = accept
    begun: list[Delivery] = field(default_factory=list)
    accepted: list[UUID] = field(default_factory=list)

    async def send(self, delivery: Delivery) -> Outcome:
        self.begun.append(delivery)
        outcome = await self.script(delivery)
        if isinstance(outcome, Accepted):
            self.accepted.append(delivery.notification_id)
        return outcome

    async def wait_begun(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.begun) < count:
                await trio.sleep(0.005)
