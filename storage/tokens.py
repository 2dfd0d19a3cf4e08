"""What is known of a caller's token between requests: whether it was revoked, and who its user is.

Both live in Redis, so that a request costs one round trip there and none to PostgreSQL. The user is remembered for
half a minute; whoever changes or deletes a user forgets it here.
"""

import math
import time
from dataclasses import dataclass
from uuid import UUID

import msgspec

from storage.accounts import Accounts, User
from storage.redis import Redis, command, revoked_token_key, user_key

USER_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Tokens:
    redis: Redis
    accounts: Accounts

    async def find_user(self, user_id: UUID, token_id: UUID) -> User | None:
        """The user behind a token; None if the token was revoked or nobody is behind it.

        Raises RedisUnavailable or DatabaseUnavailable: sign-in is closed while nobody can tell whether a token was
        revoked.
        """
        revoked, remembered = await command(
            self.redis.mget([revoked_token_key(user_id, token_id), user_key(user_id)])
        )
        if revoked is not None:
            return None
        if remembered is not None:
            return msgspec.json.decode(remembered, type=User)
        user = await self.accounts.find_user(user_id)
        if user is not None:
            await command(self.redis.set(user_key(user_id), msgspec.json.encode(user), ex=USER_SECONDS))
        return user

    async def revoke(self, user_id: UUID, token_id: UUID, expires_at: float) -> None:
        """Refuse a token from now on. `expires_at` is its own end in Unix seconds. Safe to repeat."""
        seconds = max(1, math.ceil(expires_at - time.time()))
        await command(self.redis.set(revoked_token_key(user_id, token_id), b"1", ex=seconds))

    async def forget_user(self, user_id: UUID) -> None:
        """The user has changed: the next request reads it anew."""
        await command(self.redis.delete([user_key(user_id)]))
