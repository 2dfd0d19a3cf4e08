"""Whether what a socket's caller came with still counts: it was looked at once, at the handshake.

An end is told on the user's channel, as `ended <name>`; what was not heard a check against the stores makes good.
"""

from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from server.auth.callers import Caller
from storage.api_keys import ApiKeys, name_api_key
from storage.errors import RedisUnavailable
from storage.rate_limits import TOMBSTONE
from storage.redis import command, session_key, user_key
from storage.sessions import Sessions

SIGNED_OUT = 4401


def list_names(caller: Caller) -> Set[str]:
    """What ends this caller, as it is told."""
    names = {user_key(caller.user_id)}
    if caller.token is not None:
        names |= {session_key(caller.token.user_id, caller.token.revocation_id), user_key(caller.token.user_id)}
    if caller.key_id is not None:
        names.add(name_api_key(caller.key_id))
    return names


def list_owners(caller: Caller) -> Set[UUID]:
    """On whose channels it is told. A token of another region may name its user by another id than is known here."""
    return {caller.user_id, caller.owner_id}


@dataclass(frozen=True, slots=True)
class SignInCheck:
    sessions: Sessions
    api_keys: ApiKeys

    async def has_ended(self, caller: Caller) -> bool:
        """Revoked, or deleted; that a token or a key has merely expired ends nothing. Raises StorageError."""
        if await self.is_buried(caller):
            return True
        if caller.key_id is not None:
            return await self.api_keys.has_ended(caller.user_id, caller.key_id)
        if (token := caller.token) is None:
            return False
        auth_time = datetime.fromtimestamp(token.auth_time, UTC)
        return await self.sessions.find(token.user_id, token.revocation_id, auth_time) is None

    async def is_buried(self, caller: Caller) -> bool:
        """Whether it ended within the last minutes, by Redis alone. False while that is away."""
        keys = [name for name in list_names(caller) if name.startswith("{")]
        try:
            return TOMBSTONE in [await command(self.sessions.redis.get(key)) for key in keys]
        except RedisUnavailable:
            return False
