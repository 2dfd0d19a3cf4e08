"""Liveness, which touches nothing, and readiness, which asks PostgreSQL and Redis on connections that are there."""

import msgspec
import trio
from quart import Blueprint, Response

from server.services import services
from server.version import VERSION
from storage.errors import StorageError
from storage.redis import command

READY_SECONDS = 2.0

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
async def show_health() -> Response:
    return _as_json(200, {"status": "ok", "version": VERSION})


@blueprint.get("/health/ready")
async def show_readiness() -> Response:
    """One after the other, each within the deadline: a probe costs one statement and one command."""
    checks = {"postgresql": await _check_postgresql(), "redis": await _check_redis()}
    ready = all(checks.values())
    body = {"status": "ready" if ready else "not ready"}
    body |= {name: "ok" if is_up else "unavailable" for name, is_up in checks.items()}
    return _as_json(200 if ready else 503, body)


async def _check_postgresql() -> bool:
    with trio.move_on_after(READY_SECONDS):
        try:
            await services().database.check()
        except StorageError:
            return False
        return True
    return False


async def _check_redis() -> bool:
    try:
        await command(services().redis.ping())
    except StorageError:
        return False
    return True


def _as_json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, content_type="application/json")
