"""Whether a desktop, on whichever process, takes more calls; who calls it waits until it does."""

from uuid import UUID

import trio

from server.relay.bridge import Bridge
from server.relay.call_table import Desktop
from server.relay.hub import Hub

ROOM_SECONDS = 10.0
"""So long a caller is stopped by a desktop that does not read."""


class CallRoom:
    """Of desktops on this process their outboxes know; of those elsewhere their processes tell."""

    def __init__(self, hub: Hub, bridge: Bridge) -> None:
        self._hub = hub
        self._bridge = bridge
        self._full: dict[UUID, tuple[str, trio.Event]] = {}
        self._stuck: set[UUID] = set()
        """Those that were waited for in vain. Nobody waits for them again, until they have room: a caller that waits
        is not read from, and would be taken for silent in the end.
        """

    async def wait(self, desktop: Desktop) -> bool:
        """False if there was no room for too long. Otherwise the connection has room, or has ended meanwhile."""
        is_full, connection_id = self._is_full(desktop), desktop.connection_id
        if not is_full:
            self._stuck.discard(connection_id)
            if desktop.instance == self._bridge.instance:
                return True
        elif connection_id in self._stuck:
            return False
        with trio.move_on_after(ROOM_SECONDS) as waiting:
            await self._wait(desktop)
        if waiting.cancelled_caught and is_full:
            self._stuck.add(connection_id)
        return not waiting.cancelled_caught

    def note(self, connection_id: UUID, instance: str, *, has_room: bool) -> None:
        """Its process says so."""
        if has_room:
            self.forget(connection_id)
        elif connection_id not in self._full:
            self._full[connection_id] = instance, trio.Event()

    def forget(self, connection_id: UUID) -> None:
        self._stuck.discard(connection_id)
        if (full := self._full.pop(connection_id, None)) is not None:
            full[1].set()

    def forget_instance(self, instance: str) -> None:
        for connection_id in [one for one, (its_instance, _) in self._full.items() if its_instance == instance]:
            self.forget(connection_id)

    def _is_full(self, desktop: Desktop) -> bool:
        if desktop.instance != self._bridge.instance:
            return desktop.connection_id in self._full
        member = self._hub.find_connection(desktop.connection_id)
        return member is not None and not member.outbox.has_room

    async def _wait(self, desktop: Desktop) -> None:
        if desktop.instance != self._bridge.instance:
            if (full := self._full.get(desktop.connection_id)) is not None:
                await full[1].wait()
            await self._bridge.wait_room(desktop.instance)
        elif (member := self._hub.find_connection(desktop.connection_id)) is not None:
            await member.outbox.wait_room()
