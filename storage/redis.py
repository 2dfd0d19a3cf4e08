"""The Redis client, its deadlines, and every key name in one place.

Keys of one user share the hash tag `{user id}`, so that one script can touch them together on Redis Cluster.
"""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from uuid import UUID

import coredis
import trio
from coredis.exceptions import ConnectionError as CoredisConnectionError
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from storage.errors import RedisUnavailable

COMMAND_SECONDS = 1.0
"""A healthy Redis answers in a millisecond; waiting longer would only hang everybody who needs it."""
MAX_CONNECTIONS = 32

Redis = coredis.Redis[bytes]
T = TypeVar("T")


def revoked_token_key(user_id: UUID, token_id: UUID) -> str:
    return f"{{{user_id}}}:revoked:{token_id}"


def user_key(user_id: UUID) -> str:
    return f"{{{user_id}}}:user"


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """The client for commands. Raises RedisUnavailable, saying what to check, if Redis does not answer now."""
    client: Redis = coredis.Redis.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        pool_timeout=COMMAND_SECONDS,
        connect_timeout=COMMAND_SECONDS,
        retry_policy=NoRetryPolicy(),
    )
    try:
        async with client:
            await command(client.ping())
            yield client
    except CoredisConnectionError as error:
        raise RedisUnavailable("Redis cannot be reached: check REDIS_URL and that the server is running") from error


async def command(request: Awaitable[T]) -> T:
    """A command's answer within the deadline, or RedisUnavailable."""
    with redis_deadline():
        return await request


@contextmanager
def redis_deadline() -> Iterator[None]:
    try:
        with trio.fail_after(COMMAND_SECONDS):
            yield
    except (RedisError, OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise RedisUnavailable("Redis did not answer in time") from error
