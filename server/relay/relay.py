"""The relay, put together: opened with the process, and closed with it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import trio

from server.auth.callers import Caller
from server.presence import Presence
from server.relay.bridge import open_bridge
from server.relay.calls import Calls
from server.relay.channels import Channels, open_channels
from server.relay.departures import Departures
from server.relay.endless import Loop, make_endless
from server.relay.events import Events
from server.relay.hub import Hub
from server.relay.open_sockets import OpenSockets
from server.relay.parts import Parts
from server.relay.registration import Registrar
from server.relay.replacements import Replacements
from server.relay.roster import Roster
from server.relay.session import DeviceSocket
from server.relay.sign_in_check import SignInCheck
from server.relay.terminals import Terminals
from server.websocket import WebSocket
from storage.devices import Devices
from storage.event_stream import EventStream
from storage.redis import Redis
from storage.relay_sessions import RelaySessions
from storage.terminal_routes import TerminalRoutes

SETTLE_SECONDS = 4.0
"""In which a desktop is back elsewhere, after the end of its server."""

BuildPresence = Callable[[Callable[[str], bool]], Presence]
"""Given what says whether a process lives."""


@dataclass(frozen=True, slots=True)
class Relay:
    """One per process. `loops` are to run as long as it is open."""

    parts: Parts
    loops: tuple[Loop, ...]

    async def serve(self, websocket: WebSocket, caller: Caller) -> None:
        """The whole life of a device's socket whose caller is known."""
        await DeviceSocket(self.parts, websocket, caller).serve()

    async def settle(self) -> None:
        """The sockets have ended, and the loops run on: what devices may need elsewhere is handed over, if that is done
        soon.
        """
        with trio.move_on_after(SETTLE_SECONDS):
            await self.parts.terminals.wait_settled()

    async def forget_device(self, user_id: UUID, device_id: UUID) -> None:
        """It was unlinked: it resumes nothing. Raises RedisUnavailable."""
        await self.parts.registrar.sessions.drop(user_id, device_id)

    @property
    def presence(self) -> Presence:
        return self.parts.presence

    @property
    def events(self) -> Events:
        return self.parts.events

    @property
    def channels(self) -> Channels:
        return self.parts.channels


@asynccontextmanager
async def open_relay(
    redis_url: str, redis: Redis, build_presence: BuildPresence, devices: Devices, check: SignInCheck
) -> AsyncIterator[Relay]:
    """Beside `redis`, for commands, it has clients of its own, for what waits. Raises RedisUnavailable.

    Who hears of a changed link first is made first: the roster before all that asks it.
    """
    hub = Hub()

    async def catch_up(user_id: UUID, event_id: int) -> None:
        await events.catch_up(user_id, event_id)

    async with open_channels(redis_url) as channels, open_bridge(redis_url, catch_up) as bridge:
        presence = build_presence(bridge.is_alive)
        roster = Roster(presence, hub, bridge, channels)
        events = Events(EventStream(redis), channels, roster)
        calls = Calls(hub, roster, bridge, channels)
        terminals = Terminals(hub, roster, bridge, TerminalRoutes(redis))
        departures, sockets = Departures(), OpenSockets(channels)
        parts = Parts(
            hub=hub,
            bridge=bridge,
            channels=channels,
            events=events,
            calls=calls,
            terminals=terminals,
            presence=presence,
            devices=devices,
            registrar=Registrar(RelaySessions(redis), devices),
            check=check,
            sockets=sockets,
            departures=departures,
            replacements=Replacements(bridge, hub),
        )
        owners = (roster, events, calls, terminals, sockets, channels, bridge)
        loops = [departures.keep_leaving, *(loop for owner in owners for loop in owner.loops)]
        yield Relay(parts, make_endless(loops))
