"""The Redis client, its deadlines, and every key name in one place.

Keys of one user share the hash tag `{user id}`, so that one script can touch them together on Redis Cluster.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import anyio
import coredis
import trio
from coredis.exceptions import NoScriptError, RedisError
from coredis.pool import ConnectionPool
from coredis.retry import NoRetryPolicy

from storage.coredis_fixes import Pool
from storage.errors import RedisUnavailable

COMMAND_SECONDS = 3.0
"""A healthy Redis answers in a millisecond. The rest is for our own loop, whose queue is in this time too: under a
burst of requests a shorter deadline would call Redis lost when it is only us who are late."""
RUBBISH = (ValueError, LookupError, SystemError, RecursionError)
"""What the client's parser raises for bytes that are no answer, and whoever waits for one is told."""
MAX_CONNECTIONS = 4
"""Commands share connections, each sent without waiting for the answers of those before it."""

Redis = coredis.Redis[bytes]
T = TypeVar("T")


def session_key(user_id: UUID, revocation_id: UUID) -> str:
    return f"{{{user_id}}}:session:{revocation_id}"


def user_key(user_id: UUID) -> str:
    return f"{{{user_id}}}:user"


def api_key_key(key_hash: str) -> str:
    return f"{{{key_hash}}}:api-key"


def budget_key(owner: str, budget: str) -> str:
    """`owner` is a user's id, or an address; whoever shares a script shares an owner."""
    return f"{{{owner}}}:budget:{budget}"


def check_key() -> str:
    return "check"


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """The client for commands. Raises RedisUnavailable, saying what to check, if Redis does not answer now.

    User, password and path of the URL are percent-decoded.
    """
    client: Redis = coredis.Redis(connection_pool=_build_pool(url), retry_policy=NoRetryPolicy())
    async with _ungrouped(), client:
        try:
            await command(client.ping())
        except RedisUnavailable as error:
            raise RedisUnavailable(
                "Redis cannot be reached: check the address and the password in REDIS_URL, and that the server runs"
            ) from error
        yield client


async def check_redis(redis: Redis) -> None:
    """Raises RedisUnavailable unless it writes: one that is full, or has become a replica, still answers what reads."""
    await command(redis.set(check_key(), b"", ex=1))


async def command(request: Awaitable[T]) -> T:
    """A command's answer within the deadline, or RedisUnavailable."""
    with redis_deadline():
        return await request


@contextmanager
def redis_deadline() -> Iterator[None]:
    try:
        with trio.fail_after(COMMAND_SECONDS):
            yield
    except (RedisError, OSError, trio.TooSlowError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise RedisUnavailable("Redis did not answer in time") from error
    except RUBBISH as error:
        raise RedisUnavailable("what Redis answered cannot be read") from error


def _build_pool(url: str) -> ConnectionPool[Any]:
    pool: ConnectionPool[Any] | None = None
    with suppress(ValueError):  # the error repeats parts of the URL, perhaps the password
        pool = Pool.from_url(
            url,
            decode_components=True,
            max_connections=MAX_CONNECTIONS,
            timeout=COMMAND_SECONDS,
            connect_timeout=COMMAND_SECONDS,
        )
    if pool is None or pool.location is None:
        raise RedisUnavailable("REDIS_URL is not the address of a Redis: redis://:password@host:6379/0")
    return pool


@asynccontextmanager
async def _ungrouped() -> AsyncIterator[None]:
    """The client wraps in a group what its block raises; whoever catches a StorageError wants it bare."""
    try:
        yield
    except ExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__


def milliseconds(seconds: float) -> int:
    """As scripts and expiries take a time, which is never none."""
    return max(1, round(seconds * 1000))


@dataclass(frozen=True, slots=True)
class LuaScript:
    """A script, known to Redis by its hash once it has run there. The client's own class builds each command three
    times over, which costs as much as sending it.
    """

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode()).hexdigest())  # noqa: S324 - Redis's own name

    async def run(self, redis: Redis, keys: Sequence[str], args: Sequence[str | int | bytes]) -> Any:
        """What the script returns, in one round trip; two where Redis has been started anew. Raises RedisUnavailable;
        then it is not known whether it ran.
        """
        with redis_deadline():
            try:
                return await redis.evalsha(self.sha, keys, args)
            except NoScriptError:
                return await redis.eval(self.text, keys, args)
