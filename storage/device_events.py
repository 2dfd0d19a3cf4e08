"""What a user's devices are told as it happens: a channel in Redis for each user, for every process that listens."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import msgspec

from storage.redis import Redis, command


def events_channel(user_id: UUID) -> str:
    """Each message is a kind, a space, and what is said; who does not listen at that moment never hears of it.

    `event …` is what storage.event_stream tells; `status {"eventType":…,"payload":{…}}` has neither an id nor a past;
    `links` says that a link of the user has changed; `ended <key>` that what somebody is signed in with counts no more.
    """
    return f"{{{user_id}}}:device-events"


@dataclass(frozen=True, slots=True)
class DeviceEvents:
    redis: Redis

    async def publish(self, user_id: UUID, event_type: str, payload: Mapping[str, object]) -> None:
        """An event for all devices but the one that `deviceId` in it names, if any. No key of the payload may have an
        underscore: clients drop the whole message. Raises RedisUnavailable; then it is not known whether it was told.
        """
        await self.tell(user_id, "status", msgspec.json.encode({"eventType": event_type, "payload": payload}))

    async def tell(self, user_id: UUID, kind: str, said: bytes = b"") -> None:
        """A message as it is. Raises RedisUnavailable; then it is not known whether it was told."""
        await command(self.redis.publish(events_channel(user_id), kind.encode() + b" " + said))


# For scripts: what peers see changes and is told in one step, so it is told once. `channel` is the script's own. A
# device's id is a UUID as Python writes it: nothing in it needs to be escaped.
TELL_STATUS = """
local STATUSES = {
    online = '"online"',
    offline = '"offline"',
    disconnected = '"disconnected","reason":"ws_closed"',
}
local function tell(device, status)
    local payload = '{"deviceId":"' .. device .. '","status":' .. STATUSES[status] .. '}'
    redis.call('PUBLISH', channel, 'status {"eventType":"device-status","payload":' .. payload .. '}')
end
"""
