"""Changes of the configuration, told to everybody who watches this process: each process hears of them by itself."""

import time
from collections.abc import Callable, Set
from datetime import UTC, datetime

from server.relay.event_frames import build_passing_frame
from server.relay.server_events import CONFIGURATION_CHANGED, describe_configuration
from server.relay.watchers import Watcher, Watchers

CLOCKS_DIFFER_SECONDS = 60.0
"""An event's id is a moment by Redis's clock, a change is noted by ours; and one may be noted late."""


class ConfigurationWatch:
    """One per process. `tables` are those that it knows; `clock` is in seconds since 1970."""

    def __init__(self, watchers: Watchers, tables: Set[str], clock: Callable[[], float] = time.time) -> None:
        self._watchers = watchers
        self._clock = clock
        self._changed_at = dict.fromkeys(tables, clock())

    def note_changed(self, tables: Set[str]) -> None:
        self._changed_at |= dict.fromkeys(tables, self._clock())
        self._watchers.tell_all(CONFIGURATION_CHANGED, _build(tables))

    def greet(self, watcher: Watcher) -> None:
        """Who was away is told of everything that may have changed meanwhile: rather too much than too little."""
        last_event_id = watcher.wish.last_event_id
        if last_event_id is None or not watcher.wish.wants(CONFIGURATION_CHANGED):
            return
        seen_until = last_event_id / 1e6 - CLOCKS_DIFFER_SECONDS
        if tables := {name for name, changed_at in self._changed_at.items() if changed_at > seen_until}:
            watcher.outbox.put_frame(_build(tables))


def _build(tables: Set[str]) -> bytes:
    return build_passing_frame(CONFIGURATION_CHANGED, describe_configuration(tables), datetime.now(UTC))
