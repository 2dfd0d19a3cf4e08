"""What a user's devices are told as it happens: a channel in Redis for each user, for every process that listens."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import msgspec

from storage.redis import Redis, command


def events_channel(user_id: UUID) -> str:
    """Each message is `{"eventType":…,"payload":{…}}`; who does not listen at that moment never hears of it."""
    return f"{{{user_id}}}:device-events"


@dataclass(frozen=True, slots=True)
class DeviceEvents:
    redis: Redis

    async def publish(self, user_id: UUID, event_type: str, payload: Mapping[str, object]) -> None:
        """No key of the payload may have an underscore: clients drop the whole message. Raises RedisUnavailable; then
        it is not known whether it was told.
        """
        message = msgspec.json.encode({"eventType": event_type, "payload": payload})
        await command(self.redis.publish(events_channel(user_id), message))


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
    redis.call('PUBLISH', channel, '{"eventType":"device-status","payload":' .. payload .. '}')
end
"""
