"""How much of terminals may be on its way to one connection, and how much may wait in memory altogether. Pure."""

from typing import Generic, TypeVar

WINDOW_BYTES = 1024 * 1024
"""Sent to a connection and not yet confirmed, all its terminals together; the frame that fills it may exceed it."""

HIGH_BYTES = 4 * 1024 * 1024
"""A desktop is paused when more than this waits for one terminal,"""
LOW_BYTES = 1024 * 1024
"""and goes on when less than this does. It keeps up to 8 MiB itself meanwhile."""
TIGHT_BYTES = 64 * 1024
"""The same for both, where the process has much in memory."""

MOST_OF_ROUTE_BYTES = 32 * 1024 * 1024
"""A desktop that lets more than this wait has not paused: it is discarded, and the terminal begins anew."""
MOST_OF_PRODUCER_BYTES = 64 * 1024 * 1024
TIGHT_FROM_BYTES = 256 * 1024 * 1024
MOST_BYTES = 512 * 1024 * 1024
"""Of a process."""

Route = TypeVar("Route")


class Window(Generic[Route]):
    """Of one connection. Routes that have something to send take turns, a frame each: a burst of one delays another
    only by what is on its way already.
    """

    __slots__ = ("__weakref__", "_ready", "in_flight_bytes")

    def __init__(self) -> None:
        self.in_flight_bytes = 0
        self._ready: dict[Route, None] = {}

    def add(self, route: Route) -> None:
        """It has something to send. Safe to repeat."""
        self._ready.setdefault(route)

    def remove(self, route: Route) -> None:
        self._ready.pop(route, None)

    def take_next(self) -> Route | None:
        """Whose turn it is to send a frame, if one may be sent; to be added again if it has more."""
        if not self._ready or self.in_flight_bytes >= WINDOW_BYTES:
            return None
        route = next(iter(self._ready))
        del self._ready[route]
        return route


class Stock:
    """What waits for the terminals of one desktop, and, above it, of all."""

    __slots__ = ("_all", "size_bytes")

    def __init__(self, everything: "Stock | None" = None) -> None:
        self.size_bytes = 0
        self._all = everything or self

    def add(self, size_bytes: int) -> None:
        """Or take away, if it is negative."""
        self.size_bytes += size_bytes
        if self._all is not self:
            self._all.size_bytes += size_bytes

    @property
    def is_full(self) -> bool:
        return self.size_bytes > MOST_OF_PRODUCER_BYTES or self._all.size_bytes > MOST_BYTES

    @property
    def high_bytes(self) -> int:
        return TIGHT_BYTES if self._all.size_bytes > TIGHT_FROM_BYTES else HIGH_BYTES

    @property
    def low_bytes(self) -> int:
        return TIGHT_BYTES if self._all.size_bytes > TIGHT_FROM_BYTES else LOW_BYTES
