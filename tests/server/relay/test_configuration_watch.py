"""Changes of the configuration as watchers hear of them, also those who were away."""

from server.relay.configuration_watch import CLOCKS_DIFFER_SECONDS, ConfigurationWatch
from server.relay.watchers import Watchers
from tests.server.clocks import Clock
from tests.server.relay.audience import ANN, BOB, build_watcher, take_events


async def test_everybody_is_told_what_has_changed() -> None:
    watchers, ann, bob = Watchers(), build_watcher(ANN), build_watcher(BOB, "device-status")
    watch = ConfigurationWatch(watchers, {"regions", "models"})
    with watchers.admit(ann), watchers.admit(bob):
        watch.note_changed({"regions"})
    assert await take_events(ann) == [("configuration-changed", {"tables": ["regions"]})]
    assert await take_events(bob) == []


async def test_who_was_away_is_told_what_may_have_changed_meanwhile() -> None:
    clock, watchers = Clock(), Watchers()
    watch = ConfigurationWatch(watchers, {"regions", "models"}, clock)
    clock.now += 1000
    watch.note_changed({"regions"})
    last_seen = int((clock.now + CLOCKS_DIFFER_SECONDS / 2) * 1e6)
    told = []
    for seconds in (0, 60, -2000):
        watcher = build_watcher(last_event_id=last_seen + seconds * 1_000_000)
        watch.greet(watcher)
        told += await take_events(watcher)
    tables = [payload["tables"] for _, payload in told]
    assert tables == [["regions"], ["models", "regions"]], "soon after, long after, and before this process knew"


async def test_who_is_new_or_wants_other_events_is_told_nothing_at_first() -> None:
    watch = ConfigurationWatch(Watchers(), {"regions"})
    for watcher in (build_watcher(), build_watcher(ANN, "device-status", last_event_id=1)):
        watch.greet(watcher)
        assert await take_events(watcher) == []
