"""The registered sockets of this process."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID

from server.relay.member import Listener, Member

REPLACED = 4001
REPLACED_REASON = "replaced by a newer connection of this device"


class Hub:
    """One per process. A device has one socket: the newest; the one before it is asked to end."""

    def __init__(self) -> None:
        self._members: dict[UUID, dict[UUID, Member]] = defaultdict(dict)
        self._by_connection: dict[UUID, Member] = {}
        self._leaving: list[Listener] = []

    def hear_leaving(self, listener: Listener) -> None:
        """Called with each member that has gone, in the task of its socket; must not wait."""
        self._leaving.append(listener)

    @contextmanager
    def admit(self, member: Member) -> Iterator[None]:
        """The socket can be reached for as long as the block lasts."""
        devices = self._members[member.user_id]
        if (before := devices.get(member.device_id)) is not None:
            before.end(REPLACED, REPLACED_REASON)
        devices[member.device_id] = self._by_connection[member.connection_id] = member
        try:
            yield
        finally:
            self._remove(member)
            for listener in self._leaving:
                listener(member)

    def find(self, user_id: UUID, device_id: UUID) -> Member | None:
        return self._members[user_id].get(device_id) if user_id in self._members else None

    def find_connection(self, connection_id: UUID) -> Member | None:
        """Also one that has been replaced and is about to end."""
        return self._by_connection.get(connection_id)

    def list(self, user_id: UUID) -> Sequence[Member]:
        return tuple(self._members[user_id].values()) if user_id in self._members else ()

    @property
    def members(self) -> Mapping[UUID, Member]:
        """All, by connection."""
        return self._by_connection

    def _remove(self, member: Member) -> None:
        self._by_connection.pop(member.connection_id, None)
        devices = self._members[member.user_id]
        if devices.get(member.device_id) is member:
            del devices[member.device_id]
        if not devices:
            del self._members[member.user_id]
