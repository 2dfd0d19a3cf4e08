"""Liveness, which touches nothing, and readiness, which asks PostgreSQL and Redis on connections that are there."""

import msgspec
import trio
from quart import Blueprint, Response

from server.guard import access
from server.services import services
from server.version import VERSION
from storage.errors import StorageError
from storage.redis import check_redis

READY_SECONDS = 2.0

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
@access(is_public=True)
async def show_health() -> Response:
    return _as_json(200, {"status": "ok", "version": VERSION})


@blueprint.get("/health/ready")
@access(is_public=True)
async def show_readiness() -> Response:
    """One after the other, each within the deadline: a probe costs one statement and one command.

    Without Redis there is a 503, for money, sign-in and everything that writes are closed, though reading goes on
    within a bound that each process keeps for itself (`"limits": "local"`). The answer does not wait for a Redis that
    is known to be away, unless it is the one that tries it again.
    """
    postgresql, redis = await _check_postgresql(), await _check_redis()
    is_ready = postgresql and redis
    body: dict[str, object] = {"status": "ready" if is_ready else "not ready"}
    body |= {"postgresql": _tell(postgresql), "redis": _tell(redis)}
    if not redis:
        body |= {"limits": "local", "closed": ["money", "sign-in", "writes"]}
    return _as_json(200 if is_ready else 503, body)


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


def _tell(is_up: bool) -> str:
    return "ok" if is_up else "unavailable"


def _as_json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, content_type="application/json")
