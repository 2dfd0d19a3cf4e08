"""The application: routes and the error table. No I/O."""

import logging

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from server.connection import Connection
from server.dialects import openai, shipped
from server.errors import INTERNAL, Problem, describe, describe_status
from server.routes import chat, health, models
from server.services import Services, use_services

BODY_SECONDS = 1800
"""The longest that a client may take to send a request, as the reverse proxies in front allow."""

logger = logging.getLogger(__name__)


def create_app(services: Services) -> QuartTrio:
    """An application that answers with these services."""
    app = QuartTrio("server", static_folder=None)
    app.asgi_http_class = Connection
    app.config["MAX_CONTENT_LENGTH"] = services.config.max_body_bytes
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    app.url_map.strict_slashes = False
    use_services(services, app.extensions)
    for module in (chat, health, models):
        app.register_blueprint(module.blueprint)
    app.register_error_handler(HTTPException, answer_http_exception)
    app.register_error_handler(Exception, answer_exception)
    return app


async def answer_exception(error: Exception) -> Response:
    """An error of ours becomes what the table says; any other is a fault, logged, and told without its inside."""
    problem = describe(error)
    if problem is None:
        logger.error("a request failed in our own code", exc_info=error, extra={"path": request.path})
        problem = INTERNAL
    elif problem.status == 503:
        logger.warning("a request was turned away: %s", error, extra={"path": request.path})
    return _answer(problem)


async def answer_http_exception(error: HTTPException) -> Response:
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    detail = error.description or error.name
    return _answer(describe_status(error.code or 500, detail, headers))


def _answer(problem: Problem) -> Response:
    """In the dialect of the path, so that every client can read its errors, 404 and 405 included."""
    dialect = openai.DIALECT if request.path.startswith("/v1/") else shipped.DIALECT
    return Response(
        dialect.encode_problem(problem),
        problem.status,
        headers=dict(problem.headers),
        content_type="application/json",
    )
