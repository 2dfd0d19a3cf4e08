"""What a push service has seen: every push that came, what was refused, and what was acknowledged."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio


@dataclass(frozen=True, eq=False, slots=True)
class Push:
    """A request as it came. `number` counts all of the service from 1, `connection` all of its connections. For FCM,
    `push_id` is empty, `collapse_id` the tag or collapse key, and `provider_token` the access token.
    """

    number: int
    connection: int
    token: str
    push_id: str
    collapse_id: str
    payload: Any
    headers: Mapping[str, str]
    environment: str
    provider_token: str = field(repr=False)

    @property
    def identity(self) -> tuple[str, str]:
        """Two requests with the same one are the same notification for the same phone."""
        return self.token, self.collapse_id


@dataclass(frozen=True, slots=True)
class Refusal:
    """By the rules, not by a script."""

    push: Push
    status: int
    reason: str


@dataclass(slots=True)
class Book:
    """`acknowledged` are those whose answer has gone out completely; `cut` those that were taken and never answered, so
    that nobody can know but from here.
    """

    received: list[Push] = field(default_factory=list)
    acknowledged: list[Push] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    cut: list[Push] = field(default_factory=list)
    _changed: trio.Event = field(default_factory=trio.Event)

    def receive(self, push: Push) -> None:
        self.received.append(push)
        self._tell()

    def acknowledge(self, push: Push) -> None:
        self.acknowledged.append(push)
        self._tell()

    def refuse(self, refusal: Refusal) -> None:
        self.refused.append(refusal)
        self._tell()

    def lose(self, push: Push) -> None:
        self.cut.append(push)
        self._tell()

    async def wait_until(self, condition: Callable[["Book"], bool], seconds: float = 10) -> None:
        """Raises trio.TooSlowError."""
        with trio.fail_after(seconds):
            while not condition(self):
                await self._changed.wait()

    async def wait_acknowledged(self, count: int, seconds: float = 10) -> list[Push]:
        """As soon as there are so many; raises trio.TooSlowError."""
        await self.wait_until(lambda book: len(book.acknowledged) >= count, seconds)
        return self.acknowledged

    async def wait_received(self, count: int, seconds: float = 10) -> list[Push]:
        await self.wait_until(lambda book: len(book.received) >= count, seconds)
        return self.received

    def count_acknowledged(self) -> Counter[tuple[str, str]]:
        """How often each notification was acknowledged for each phone."""
        return Counter(push.identity for push in self.acknowledged)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
