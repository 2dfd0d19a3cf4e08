"""Who hears of an event, and who has missed some. Pure.

What a desktop says goes to all but desktops, for they apply what they hear to their own state. What others say goes to
the primary desktop and to all who are no desktop. No device hears of itself. Other desktops are silent and hear nothing
but who comes and goes.
"""

from collections.abc import Sequence
from uuid import UUID

from server.relay.event_frames import About, NewEvent
from storage.event_stream import Page, Track
from storage.presence import ClientType


def is_for_device(about: About, client_type: ClientType, device_id: UUID, primary_id: UUID | None) -> bool:
    """`primary_id` is None where it is not known: then each desktop may be it."""
    if about.device_id == device_id or about.is_for_watchers:
        return False
    if client_type != "desktop" or about.source == "status":
        return True
    return about.source != "desktop" and primary_id in (None, device_id)


def find_track(event: NewEvent) -> Track:
    if event.is_for_watchers:
        return "watchers"
    return "desktop" if event.source == "desktop" else "others"


def find_tracks(client_type: ClientType) -> Sequence[Track]:
    """Of the events that a device may hear of."""
    return ("others",) if client_type == "desktop" else ("desktop", "others")


def has_missed(after: int, page: Page, tracks: Sequence[Track]) -> bool:
    """Whether what is kept is not all that came after that event; 0 is before all of which anything is known. An event
    that is later than the last is of a history that is lost.
    """
    since = after or page.before
    return after > page.last or any(since < page.gone[track] for track in tracks)
