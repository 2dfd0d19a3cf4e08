"""`/openapi.json`: every route, described from the code; `/docs`: the same for people, a page that needs no other."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import trio
from jinja2 import Environment, PackageLoader
from quart import Blueprint, Quart, Response, current_app

from server.guard import GUARDED, access
from server.openapi import RouteFacts, build_document
from server.operations import EMPTY, JSON, Content, answer_version, operation
from server.pages import PAGE_HEADERS
from server.reference import build_page
from server.services import services
from server.version import VERSION

PAGE_TYPE = "text/html; charset=utf-8"
KEEP = {"Cache-Control": "no-cache"}
"""It may be kept, and is asked for again by its ETag."""

_KEY = "cloche.description"

blueprint = Blueprint("openapi", __name__)


@dataclass(frozen=True, slots=True)
class Description:
    """Made once for each app, and encoded. `version` changes with either of them."""

    document: bytes
    page: bytes
    version: str


@blueprint.get("/openapi.json")
@access(is_public=True, budget="public")
@operation("Describe all routes", answers={200: Content(dict[str, Any]), 304: Content(media_type=EMPTY)})
async def show_document() -> Response:
    """This description, as OpenAPI 3.1 has it."""
    found = await find_description()
    return answer_version(found.document, JSON, found.version, KEEP)


@blueprint.get("/docs")
@access(is_public=True, budget="public")
async def show_page() -> Response:
    found = await find_description()
    return answer_version(found.page, PAGE_TYPE, found.version, {**PAGE_HEADERS, **KEEP})


async def find_description() -> Description:
    """Making it takes a while, so it is made in a thread, when somebody first asks."""
    found = cast(Description | None, current_app.extensions.get(_KEY))
    if found is None:
        app = cast(Quart, current_app._get_current_object())  # type: ignore[attr-defined] # a proxy; threads see none
        found = await trio.to_thread.run_sync(describe, app, services().config.server_url)
        current_app.extensions[_KEY] = found
    return found


def describe(app: Quart, server_url: str) -> Description:
    document = build_document(find_routes(app), VERSION, server_url)
    encoded, page = msgspec.json.encode(document), render_page(document)
    return Description(encoded, page, hashlib.sha256(encoded + page).hexdigest()[:32])


def find_routes(app: Quart) -> Iterator[RouteFacts]:
    """Those that are described; the others are for browsers and monitors."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        described = getattr(view, "operation", None)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            if described is not None:
                group = rule.endpoint.partition(".")[0]
                yield RouteFacts(rule.rule, method, group, described, getattr(view, "access", GUARDED))


def render_page(document: Mapping[str, Any]) -> bytes:
    """Not by Quart's own environment: that one renders on the event loop, which others wait for."""
    pages = Environment(loader=PackageLoader("server"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template("reference.html").render(page=build_page(document)).encode()
