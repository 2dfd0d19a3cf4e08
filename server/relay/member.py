"""A registered socket of a device, as the rest of the relay sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from server.presence import HeldLink
from server.relay.outbox import Outbox
from storage.presence import ClientType


class End(Protocol):
    """Ask a socket to end, with a close code and what to say; what waits for its client is written first, if the client
    takes it. Returns at once. Safe to repeat: the first counts.
    """

    def __call__(self, code: int, reason: str) -> None: ...


@dataclass(eq=False, slots=True)
class Member:
    """`fresh_at` ranks desktops: when the device registered anew, in ms by Redis's clock; a resume keeps it.
    `last_event_id` is that of the last event that it published: whatever it sends after that must not overtake it.
    """

    user_id: UUID
    device_id: UUID
    connection_id: UUID
    client_type: ClientType
    fresh_at: int
    outbox: Outbox
    held: HeldLink
    end: End
    last_event_id: int = 0

    @property
    def is_desktop(self) -> bool:
        return self.client_type == "desktop"


Listener = Callable[[Member], None]
