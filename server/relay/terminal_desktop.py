"""A desktop whose terminals this process has."""

from dataclasses import dataclass, field
from uuid import UUID

from server.relay.member import Member
from server.relay.terminal_frames import build_bind, build_unbind
from server.relay.terminal_letters import Wanted
from server.relay.terminal_route import Order, Route
from server.relay.terminal_window import Stock


@dataclass(eq=False, slots=True)
class Producer:
    """`routes` by session, as frames name it. While `resumes` of it run, which ask other processes for what they have,
    binds of what is not here wait: `held_back`. `foreign_at`: since then its terminals are known to be another
    process's, which may yet ask for them. `connected_at` is that of the last connection; `is_leaving`: it is about to
    end, and nothing is to be bound on it any more.
    """

    user_id: UUID
    device_id: UUID
    stock: Stock
    routes: dict[bytes, Route] = field(default_factory=dict)
    member: Member | None = None
    connected_at: int = 0
    is_leaving: bool = False
    away_at: float = 0.0
    foreign_at: float | None = None
    resumes: int = 0
    held_back: list[tuple[str, Wanted]] = field(default_factory=list)

    @property
    def takes_orders(self) -> bool:
        return self.member is not None and not self.is_leaving

    @property
    def is_away(self) -> bool:
        """It is not here, nor about to be."""
        return self.member is None and not self.resumes

    @property
    def is_idle(self) -> bool:
        return not self.routes and self.is_away


def tell_desktop(producer: Producer, session_id: str, order: Order) -> None:
    if producer.member is None:
        return
    if order == "unbind":
        text = build_unbind(session_id)
    else:
        text = build_bind(session_id, include_snapshot=order.include_snapshot, force_snapshot=order.force_snapshot)
    producer.member.outbox.put_text(text)
