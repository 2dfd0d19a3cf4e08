"""Liveness, which touches nothing, and readiness, which asks PostgreSQL and Redis on connections that are there."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import trio
from msgspec import UNSET, UnsetType
from quart import Blueprint

from server.guard import access
from server.operations import Answer, Content, operation
from server.services import services
from server.version import VERSION
from storage.errors import StorageError
from storage.redis import check_redis

READY_SECONDS = 2.0

State = Literal["ok", "unavailable"]

blueprint = Blueprint("health", __name__)


class HealthAnswer(msgspec.Struct):
    status: Literal["ok"]
    version: str


class ReadinessAnswer(msgspec.Struct):
    """`limits` and `closed` are there while Redis is not: how requests are counted then, and what has to wait."""

    status: Literal["ready", "not ready"]
    postgresql: State
    redis: State
    limits: Literal["local"] | UnsetType = UNSET
    closed: Sequence[str] | UnsetType = UNSET


@blueprint.get("/health")
@access(is_public=True)
@operation("Check that the server lives")
async def show_health() -> HealthAnswer:
    """Asks no store."""
    return HealthAnswer("ok", VERSION)


@blueprint.get("/health/ready")
@access(is_public=True)
@operation(
    "Check that the server is ready", answers={200: Content(ReadinessAnswer), 503: Content(ReadinessAnswer)}
)
async def show_readiness() -> Answer[ReadinessAnswer]:
    """Asks PostgreSQL and Redis, and answers 503 if one of them is away. Without Redis money, sign-in and everything
    that writes are closed, while reading goes on within bounds.
    """
    # One after the other, each within the deadline: a probe costs one statement and one command. It does not wait for
    # a Redis that is known to be away, unless it is the one that tries it again. Reading is counted by each process.
    postgresql, redis = await _check_postgresql(), await _check_redis()
    found = ReadinessAnswer("ready" if postgresql and redis else "not ready", _tell(postgresql), _tell(redis))
    if not redis:
        found.limits, found.closed = "local", ["money", "sign-in", "writes"]
    return Answer(found, 200 if postgresql and redis else 503)


async def _check_postgresql() -> bool:
    with trio.move_on_after(READY_SECONDS):
        try:
            await services().database.check()
        except StorageError:
            return False
        return True
    return False


async def _check_redis() -> bool:
    with trio.move_on_after(READY_SECONDS):
        try:
            with services().limits.outage.watch():
                await check_redis(services().redis)
        except StorageError:
            return False
        return True
    return False


def _tell(is_up: bool) -> State:
    return "ok" if is_up else "unavailable"
