"""Links of a process that is gone, or was only thought to be: what peers hear, and that nothing stays wrong."""

from dataclasses import replace

import pytest
import trio

from server.presence import Presence
from server.presence_pulse import Rhythm
from storage.device_events import DeviceEvents
from storage.presence import PresenceTable
from storage.presence_history import PresenceHistory
from storage.redis import Redis
from tests.server.presence_house import ANN, DESK, House, build_link, open_alive, wait_for_link
from tests.server.relay.bridges import open_process, standing_still, wait_until
from tests.server.relay.members import PHONE, build_member
from tests.server.relay.rosters import open_home
from tests.storage.device_event_log import open_device_event_log

SLOW = Rhythm(refresh_seconds=600, silence_seconds=1200, poll_seconds=600, retry_seconds=600, doubt_seconds=0.05)


@pytest.fixture
def house(client: Redis) -> House:
    return House(client, PresenceTable(client))


async def test_links_of_processes_that_are_gone_are_not_listed(client: Redis, house: House) -> None:
    history: PresenceHistory = house.history  # type: ignore[assignment] # it stands for PostgreSQL
    presence = Presence(
        house.table, DeviceEvents(client), history, house.notify, is_alive=lambda instance: instance != "dead"
    )
    dead = replace(build_link(), device_id=PHONE, instance="dead")
    await house.table.enter(ANN, build_link())
    await house.table.enter(ANN, dead)
    assert set(await presence.list_links(ANN)) == {DESK}
    assert set(await presence.read_links(ANN)) == {DESK, PHONE}


async def test_a_device_whose_process_is_gone_is_marked_once_and_an_outage_changes_nothing(house: House) -> None:
    link = (await house.table.enter(ANN, build_link())).link
    await house.presence.abandon(ANN, link)
    await house.presence.abandon(ANN, link)
    assert house.history.devices == [(ANN, DESK)]
    again = (await house.table.enter(ANN, build_link())).link
    house.history.is_away = True
    await house.presence.abandon(ANN, again)
    assert await house.presence.list_links(ANN) == {}


async def test_a_link_that_may_be_lost_does_not_wait_for_its_turn(house: House) -> None:
    async with open_alive(house, build_link(), SLOW) as (held, _):
        held.grace_seconds = 0
        await trio.sleep(0.02)
        await house.table.abandon(ANN, DESK, held.link.connection_id)
        held.refresh_soon()
        await wait_for_link(house, held.link.connection_id)


async def test_a_process_that_stood_still_for_too_long_has_its_links_again(house: House, redis_url: str) -> None:
    """It takes no more than a reading and a refresh; peers hear that the device was gone and is back."""
    async with (
        open_home(redis_url, "here") as here,
        open_home(redis_url, "still") as still,
        open_process(redis_url, instance="here") as one,
        open_process(redis_url, instance="still") as other,
    ):
        here.roster._bridge, still.roster._bridge = one.bridge, other.bridge
        one.bridge.hear_gone(here.roster._note_gone)
        other.bridge.hear_written_off(still.roster._note_written_off)
        await here.enter(replace(build_link(), device_id=PHONE, instance="here", client_type="mobile"))
        with open_device_event_log(redis_url) as log:
            link = replace(build_link(), instance="still")
            async with open_alive(still.house, link, SLOW) as (held, _):
                held.grace_seconds = 0
                still.admit(build_member(held))
                await wait_until(lambda: one.bridge.is_alive("still"))
                with standing_still(other):
                    await wait_until(lambda: one.gone == ["still"])
                    await wait_until(lambda: not here.roster._gone)
                    assert DESK not in await here.table.list(ANN)
                await wait_for_link(here.house, link.connection_id)
                await wait_until(lambda: one.bridge.is_alive("still"))
                assert [status for device_id, status in log.statuses() if device_id == DESK] == [
                    "online",
                    "disconnected",
                    "online",
                ]
