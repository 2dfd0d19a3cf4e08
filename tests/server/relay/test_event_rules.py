"""Who hears of an event, and who has missed some."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import pytest

from server.relay.event_frames import About, NewEvent, Source
from server.relay.event_rules import find_track, find_tracks, has_missed, is_for_device
from storage.event_stream import TRACKS, Page, Track
from storage.presence import ClientType

PRIMARY, SECOND, PHONE, TABLET = (UUID(int=n) for n in range(1, 5))
TYPES: dict[UUID, ClientType] = {PRIMARY: "desktop", SECOND: "desktop", PHONE: "mobile", TABLET: "other"}


@pytest.mark.parametrize(
    ("source", "device", "heard_by"),
    [
        ("desktop", PRIMARY, [PHONE, TABLET]),
        ("mobile", PHONE, [PRIMARY, TABLET]),
        ("other", TABLET, [PRIMARY, PHONE]),
        ("server", None, [PRIMARY, PHONE, TABLET]),
        ("server", PRIMARY, [PHONE, TABLET]),
        ("status", SECOND, [PRIMARY, PHONE, TABLET]),
        ("status", PHONE, [PRIMARY, SECOND, TABLET]),
        ("status", None, [PRIMARY, SECOND, PHONE, TABLET]),
    ],
)
def test_who_hears_of_what(
    source: Source | Literal["status"], device: UUID | None, heard_by: Sequence[UUID]
) -> None:
    about = About(source, device, "noted", False, "")
    assert [one for one, client_type in TYPES.items() if is_for_device(about, client_type, one, PRIMARY)] == heard_by


def test_every_desktop_may_be_the_primary_one_as_long_as_none_is_known() -> None:
    about = About("mobile", PHONE, "noted", False, "")
    assert is_for_device(about, "desktop", SECOND, None)


def test_no_device_hears_what_is_for_those_who_watch() -> None:
    about = About("server", None, "balance-changed", True, "")
    assert not any(is_for_device(about, client_type, one, PRIMARY) for one, client_type in TYPES.items())


def test_what_a_device_may_hear_of_is_what_it_may_miss() -> None:
    """For whatever a device hears of, the track that says so is among its own."""
    sources: Sequence[Source] = ("desktop", "mobile", "other", "server")
    for source in sources:
        for is_for_watchers in (False, True):
            event = NewEvent("noted", b"{}", source, UUID(int=9), is_for_watchers=is_for_watchers)
            about = About(source, UUID(int=9), "noted", is_for_watchers, "")
            for device, client_type in TYPES.items():
                is_heard = is_for_device(about, client_type, device, device)
                assert is_heard == (find_track(event) in find_tracks(client_type))


def build_page(before: int = 10, last: int = 30, **gone: int) -> Page:
    tracks: dict[Track, int] = {track: gone.get(track, before) for track in TRACKS}
    return Page(last, before, tracks, 0, [], is_all=True)


@pytest.mark.parametrize(
    ("after", "gone", "is_missed"),
    [
        (20, 20, False),
        (20, 21, True),
        (20, 19, False),
        (30, 10, False),
        (31, 10, True),
        (9, 10, True),
        (10, 10, False),
        (0, 10, False),
        (0, 11, True),
    ],
)
def test_who_has_missed_something(after: int, gone: int, is_missed: bool) -> None:
    assert has_missed(after, build_page(others=gone), ["others"]) == is_missed


def test_what_is_not_for_somebody_is_not_missed() -> None:
    assert not has_missed(20, build_page(desktop=25), ["others"])
    assert has_missed(20, build_page(desktop=25), ["others", "desktop"])


def test_where_nothing_is_known_only_who_has_seen_something_has_missed_something() -> None:
    page = build_page(before=0, last=0)
    assert not has_missed(0, page, TRACKS)
    assert has_missed(1, page, TRACKS)
