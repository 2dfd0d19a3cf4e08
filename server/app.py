"""The application: routes and the error table. No I/O."""

import logging
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from quart import Blueprint, Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from server import routes
from server.config import Config
from server.connection import Edge, use_edge
from server.dialects import openai, shipped
from server.edge import Rules
from server.errors import INTERNAL, Problem, describe, describe_status
from server.guard import add_limit_headers, guard
from server.outage import Outage
from server.routes import local_issuer
from server.services import Services, services, use_services

BODY_SECONDS = 1800
"""The longest that a client may take to send a request, as the reverse proxies in front allow."""

logger = logging.getLogger(__name__)


def create_app(services: Services) -> QuartTrio:
    """An application that answers with these services."""
    app = QuartTrio("server", static_folder=None)
    use_edge(app, build_edge(services.config))
    app.config["MAX_CONTENT_LENGTH"] = services.config.max_body_bytes
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # a redirect, which would lose the body of a POST
    use_services(services, app.extensions)
    app.before_request(guard)
    app.after_request(add_limit_headers)
    for module in load_routes():
        if module is not local_issuer or services.local_issuer is not None:
            for blueprint in find_blueprints(module):
                app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, answer_http_exception)
    app.register_error_handler(Exception, answer_exception)
    return app


def load_routes() -> list[ModuleType]:
    """Every file in routes/."""
    return [import_module(f"{routes.__name__}.{found.name}") for found in iter_modules(routes.__path__)]


def find_blueprints(module: ModuleType) -> list[Blueprint]:
    """Its own; some have a second one, for browsers."""
    return [found for found in vars(module).values() if isinstance(found, Blueprint)]


def build_edge(config: Config) -> Edge:
    return Edge(Rules(config.cors_origins, config.trusted_proxies), config.logs_access)


async def answer_exception(error: Exception) -> Response:
    return _answer(explain(error, request.path, services().limits.outage))


def explain(error: Exception, path: str, outage: Outage) -> Problem:
    """An error of ours becomes what the table says; any other is a fault, logged, and told without its inside."""
    problem = describe(error)
    if problem is None:
        logger.error("a request failed in our own code", exc_info=error, extra={"path": path})
        return INTERNAL
    if problem.status == 503 and not outage.has_told(error):
        logger.warning("a request was turned away: %s", error, extra={"path": path})
    return problem


async def answer_http_exception(error: HTTPException) -> Response:
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    detail = error.description or error.name
    return _answer(describe_status(error.code or 500, detail, headers))


def encode_problem(problem: Problem, path: str) -> bytes:
    """In the dialect of the path, so that every client can read its errors, 404 and 405 included."""
    dialect = openai.DIALECT if path.startswith("/v1/") else shipped.DIALECT
    return dialect.encode_problem(problem)


def _answer(problem: Problem) -> Response:
    body = encode_problem(problem, request.path)
    return Response(body, problem.status, headers=dict(problem.headers), content_type="application/json")
