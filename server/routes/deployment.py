"""What still runs here, for whoever replaces this server by the next and wants to lose nothing."""

import hmac
import time

import msgspec
import trio
from quart import Blueprint, request

from server.connection import edge
from server.envelopes import ErrorEnvelope
from server.errors import Problem, envelope
from server.guard import access
from server.operations import Answer, Content, Credentials, operation
from server.services import services
from server.version import VERSION
from storage.journal import count_running

CLOSED = Problem(
    503,
    "configuration_error",
    "Configuration error: this page is closed: set VIBE_DEPLOYMENT_TOKEN (or PLANTOCODE_DEPLOYMENT_TOKEN) to open it",
)
REFUSED = Problem(401, "authentication_error", "Authentication error: the deployment token is missing or wrong")
DEPLOYMENT = Credentials("deploymentToken", "The operator's own token, for whoever deploys this server.")

blueprint = Blueprint("deployment", __name__)


class DeploymentAnswer(msgspec.Struct, rename="camel"):
    """What runs now, and whether nothing would be lost if the server stopped."""

    status: str
    version: str
    active_streams: int
    active_requests: int
    deployment_color: str
    port: int | None
    uptime_seconds: int
    ready_for_shutdown: bool


@blueprint.get("/health/deployment")
@access(is_public=True)
@operation(
    "Check whether the server can be replaced",
    answers={
        200: Content(DeploymentAnswer),
        401: Content(ErrorEnvelope, description="The deployment token is missing or wrong."),
        503: Content(ErrorEnvelope, description="No deployment token is set: this page is closed."),
    },
    credentials=DEPLOYMENT,
)
async def show_deployment() -> Answer[DeploymentAnswer] | Answer[ErrorEnvelope]:
    """Requests are those of this process, without this one. Streams are the calls of models, streamed or whole, of all
    worker processes of this server; those of another server beside it, the next one, do not count.
    """
    expected = services().config.deployment_token
    if expected is None:
        return _refuse(CLOSED, "Service Unavailable")
    if not is_token(request.headers.get("Authorization", ""), expected):
        return _refuse(REFUSED, "Unauthorized")
    streams = await trio.to_thread.run_sync(count_running, services().config.journal_folder)
    return Answer(build_status(streams))


def build_status(streams: int) -> DeploymentAnswer:
    requests = edge().requests - 1
    return DeploymentAnswer(
        status="ok",
        version=VERSION,
        active_streams=streams,
        active_requests=requests,
        deployment_color=services().config.deployment_color,
        port=(request.scope.get("server") or ("", 0))[1],
        uptime_seconds=int(time.monotonic() - edge().began),
        ready_for_shutdown=streams == requests == 0,
    )


def is_token(authorization: str, expected: str) -> bool:
    """With or without `Bearer`; how long it takes tells nothing."""
    scheme, _, rest = authorization.strip().partition(" ")
    given = rest.strip() if scheme.lower() == "bearer" else authorization.strip()
    return hmac.compare_digest(given.encode(), expected.encode())


def _refuse(problem: Problem, error: str) -> Answer[ErrorEnvelope]:
    """`error` is what deploy scripts of the reference server read; the rest is as everywhere."""
    return Answer(msgspec.structs.replace(envelope(problem), error=error), problem.status)
