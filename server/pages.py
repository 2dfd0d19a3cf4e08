"""The small pages that a browser sees on its way through a sign-in, errors among them."""

import logging

from quart import Response, render_template, request

from server.dialects import shipped
from server.errors import INTERNAL, Problem, describe
from server.services import services

NO_STORE = {"Cache-Control": "no-store"}
PAGE_HEADERS = {
    **NO_STORE,
    # No script runs and nothing is fetched; the one style stands in the page, where all text is escaped.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
}
NOT_WORKED, NOT_SIGNED_IN = "Sign-in did not work", "You are not signed in"
ADVICE = "You can close this window and start again from the app."

logger = logging.getLogger(__name__)


async def show_page(title: str, text: str, *, status: int = 200, advice: str = "") -> Response:
    page = await render_template("message.html", title=title, text=text, advice=advice, is_good=status < 400)
    return Response(page, status, headers=PAGE_HEADERS, content_type="text/html; charset=utf-8")


async def answer_error(error: Exception) -> Response:
    """An error of ours as a page, or in the envelope for a program that asks for JSON."""
    problem = describe(error) or INTERNAL
    if problem.status == 503 and not services().limits.outage.has_told(error):
        logger.warning("a sign-in was turned away: %s", error, extra={"path": request.path})
    return await show_problem(problem)


async def show_problem(problem: Problem, title: str = NOT_WORKED) -> Response:
    if prefers_json():
        return encode_problem(problem)
    response = await show_page(title, problem.detail, status=problem.status, advice=ADVICE)
    response.headers.extend(dict(problem.headers))
    return response


def encode_problem(problem: Problem) -> Response:
    return Response(
        shipped.DIALECT.encode_problem(problem),
        problem.status,
        headers=dict(problem.headers),
        content_type="application/json",
    )


def prefers_json() -> bool:
    """Who accepts both alike, or anything, gets the page."""
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"
