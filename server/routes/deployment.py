"""What still runs here, for whoever replaces this server by the next and wants to lose nothing."""

import hmac
import time

import msgspec
import trio
from quart import Blueprint, Response, request

from server.connection import edge
from server.errors import Problem, envelope
from server.guard import access
from server.services import services
from server.version import VERSION
from storage.journal import count_running

CLOSED = Problem(
    503,
    "configuration_error",
    "Configuration error: this page is closed: set VIBE_DEPLOYMENT_TOKEN (or PLANTOCODE_DEPLOYMENT_TOKEN) to open it",
)
REFUSED = Problem(401, "authentication_error", "Authentication error: the deployment token is missing or wrong")

blueprint = Blueprint("deployment", __name__)


@blueprint.get("/health/deployment")
@access(is_public=True)
async def show_deployment() -> Response:
    """Requests are those of this process, without this one. Streams are the calls of models, streamed or whole, of all
    worker processes of this server; those of another server beside it, the next one, do not count.
    """
    expected = services().config.deployment_token
    if expected is None:
        return _refuse(CLOSED, "Service Unavailable")
    if not is_token(request.headers.get("Authorization", ""), expected):
        return _refuse(REFUSED, "Unauthorized")
    streams = await trio.to_thread.run_sync(count_running, services().config.journal_folder)
    return _as_json(200, build_status(streams))


def build_status(streams: int) -> dict[str, object]:
    requests = edge().requests - 1
    return {
        "status": "ok",
        "version": VERSION,
        "activeStreams": streams,
        "activeRequests": requests,
        "deploymentColor": services().config.deployment_color,
        "port": (request.scope.get("server") or ("", 0))[1],
        "uptimeSeconds": int(time.monotonic() - edge().began),
        "readyForShutdown": streams == requests == 0,
    }


def is_token(authorization: str, expected: str) -> bool:
    """With or without `Bearer`; how long it takes tells nothing."""
    scheme, _, rest = authorization.strip().partition(" ")
    given = rest.strip() if scheme.lower() == "bearer" else authorization.strip()
    return hmac.compare_digest(given.encode(), expected.encode())


def _refuse(problem: Problem, error: str) -> Response:
    """`error` is what deploy scripts of the reference server read; the rest is as everywhere."""
    return _as_json(problem.status, envelope(problem) | {"error": error})


def _as_json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, content_type="application/json")
