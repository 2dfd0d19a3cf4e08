"""Registered sockets without a connection, for tests."""

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from server.presence import HeldLink
from server.presence_pulse import Pulse, Rhythm
from server.relay.member import Member
from server.relay.outbox import Outbox
from storage.presence import ClientType, Link

BOB = uuid4()
PHONE = uuid4()


@dataclass(slots=True)
class Ended:
    """With which words a socket was asked to end."""

    words: list[tuple[int, str]] = field(default_factory=list)

    def __call__(self, code: int, reason: str) -> None:
        self.words.append((code, reason))


def build_link(
    device_id: UUID, instance: str, client_type: ClientType = "desktop", *, fresh_at: int = 0, is_visible: bool = True
) -> Link:
    return Link(device_id, uuid4(), instance, client_type, "Studio", is_visible, fresh_at=fresh_at)


def hold(user_id: UUID, link: Link) -> HeldLink:
    """As if it had been entered."""
    return HeldLink(user_id, link, Pulse(Rhythm(), lambda: 0.0), 0, has_entered=True)


def build_member(held: HeldLink) -> Member:
    link = held.link
    outbox = Outbox(lambda: None)
    return Member(
        held.user_id, link.device_id, link.connection_id, link.client_type, link.fresh_at, outbox, held, Ended()
    )
