"""Letters of terminals: to this process without a detour, to others over the bridge."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from server.relay.bridge import Bridge, Letter

Body = TypeVar("Body", bound=msgspec.Struct)
Read = Callable[[str, UUID, Body, bytes], None]
"""From which process, of which user, the letter, and its blob. Must not wait."""


class Post:
    """One per process."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._readers: dict[type[msgspec.Struct], Read[Any]] = {}
        self._kinds: dict[type[msgspec.Struct], str] = {}

    @property
    def instance(self) -> str:
        return self._bridge.instance

    def handle(self, body_type: type[Body], read: Read[Body]) -> None:
        """Before the bridge's loops run."""
        kind = f"terminal-{body_type.__name__.lower()}"
        self._readers[body_type], self._kinds[body_type] = read, kind
        self._bridge.handle(kind, body_type, _build_handler(read))

    def tell(self, instance: str, user_id: UUID, body: msgspec.Struct, blob: bytes = b"") -> bool:
        """A letter to this process has been read when this returns. False if that process cannot be reached."""
        if instance == self.instance:
            self._readers[type(body)](instance, user_id, body, blob)
            return True
        return self._bridge.send(instance, user_id, self._kinds[type(body)], body, blob)

    def reaches(self, instance: str) -> bool:
        return instance == self.instance or self._bridge.is_alive(instance)

    async def wait_room(self, instance: str) -> None:
        await self._bridge.wait_room(instance)


def _build_handler(read: Read[Body]) -> Callable[[Letter, Body], Awaitable[None]]:
    async def handle(letter: Letter, body: Body) -> None:
        read(letter.sender, letter.user_id, body, letter.blob)

    return handle
