"""Who may pass: every request is asked here before its route runs. A route is guarded unless it says otherwise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from quart import Response, current_app, g, request

from server.auth.callers import SAFE_METHODS, Caller
from server.circumstances import circumstances
from server.errors import BodyTooLarge, NotAllowed, limit_headers
from server.request_body import RequestBody
from server.services import services
from storage.rate_limits import Verdict

SMALL_BODY_BYTES = 1024 * 1024
GUARDED_PREFIXES = ("/api/", "/v1/")
"""Where also what does not exist is told to callers alone."""

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Access:
    """`budget` is a name of `server.budgets.Budgets`; None on a public route means that nothing is counted, on a
    guarded one that the method decides. What is for people is for no API key: who got hold of one must not buy with
    its owner's card, learn who that is, or loosen what holds the key back. A route that takes more than a small body
    says so; one that takes an upload reads it in pieces and bounds it: server/uploads/form.py.
    """

    is_public: bool = False
    budget: str | None = None
    is_admin: bool = False
    is_for_people: bool = False
    takes_large_body: bool = False
    takes_upload: bool = False


GUARDED = Access()


def access(**rules: Any) -> Callable[[View], View]:
    """Rules for one route, below its `@blueprint.…`; see Access."""

    def mark(view: View) -> View:
        cast(Any, view).access = Access(**rules)
        return view

    return mark


def find_access() -> Access:
    """Of the route of this request. What is no route is public, outside of the guarded prefixes."""
    if request.endpoint is None:
        return GUARDED if request.path.startswith(GUARDED_PREFIXES) else Access(is_public=True, budget="public")
    return cast(Access, getattr(current_app.view_functions[request.endpoint], "access", GUARDED))


async def guard() -> None:
    """Before every request. Raises what `Callers.find` does, LimitExceeded and BodyTooLarge.

    OPTIONS asks which methods there are: that is for everybody, and Quart answers it by itself.
    """
    if request.method == "OPTIONS":
        return
    rules = find_access()
    if rules.is_public:
        await _count(rules.budget)
    else:
        await _find_caller(rules)
    most = services().config.max_body_bytes
    if rules.takes_large_body:
        cast(RequestBody, request.body).collect(most)
    elif not rules.takes_upload:
        keep_body_small(min(most, SMALL_BODY_BYTES))


def keep_body_small(most_bytes: int) -> None:
    """What says that it is larger, or has come meanwhile, is refused also by a route that reads no body."""
    body = cast(RequestBody, request.body)
    if max(request.content_length or 0, body.waiting_bytes) > most_bytes:
        raise BodyTooLarge(f"at most {most_bytes} bytes here")
    body.collect(most_bytes)


async def add_limit_headers(response: Response) -> Response:
    """After every request that drew on a budget, unless its credentials were refused: then nobody is told what its
    address has left. A 429 tells of the budget that refused it.
    """
    verdict: Verdict | None = g.get("verdict")
    if verdict is not None and "RateLimit-Limit" not in response.headers:
        response.headers.update(limit_headers(verdict))
    return response


def caller() -> Caller:
    """Who calls the guarded route at hand."""
    return cast(Caller, g.caller)


async def _count(name: str | None) -> None:
    if name is None:
        return
    limits = services().limits
    g.verdict = await limits.take_for_address(circumstances().address, [(limits.budgets.find(name), "")])


async def _find_caller(rules: Access) -> None:
    name = rules.budget or ("reads" if request.method in SAFE_METHODS else "writes")
    budget = services().limits.budgets.find(name)
    g.caller = await services().callers.find(request.method, request.headers, budget)
    g.verdict = g.caller.verdict
    if rules.is_admin and not g.caller.is_admin:
        await _refuse_admin(g.caller)
    if rules.is_for_people and g.caller.key_id is not None:
        raise NotAllowed("an API key cannot do this; sign in for it")


async def _refuse_admin(who: Caller) -> None:
    auditor = services().auditor
    entity = ("route", request.endpoint or "")
    entry = auditor.build_entry("admin_refused", "refused", actor=who.actor, subject_id=who.user_id, entity=entity)
    await auditor.note_refusal(entry)
    raise NotAllowed("this is for administrators")
