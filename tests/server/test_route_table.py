"""The table of routes: what is public stands here by name, and everything else is guarded."""

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from uuid import UUID

import pytest
import trio
from quart_trio import QuartTrio
from werkzeug.routing import Rule

from server.guard import GUARDED
from tests.server.served import Served, build_head, open_served

PUBLIC: Mapping[tuple[str, str], str] = {
    ("GET", "/health"): "liveness: monitors have no credentials",
    ("GET", "/health/ready"): "readiness: the same",
    ("GET", "/health/deployment"): "a deployment brings a token of its own",
    ("GET", "/metrics"): "Prometheus brings the same",
    ("GET", "/config/regions"): "a client chooses a region before it signs in",
    ("GET", "/public/onboarding"): "newcomers see the videos before they sign in",
    ("GET", "/openapi.json"): "the description of all routes is no secret: the code is public",
    ("GET", "/docs"): "the same, for people",
    ("GET", "/auth/auth0/initiate-login"): "a sign-in begins here, in a browser",
    ("GET", "/auth/auth0/callback"): "the issuer sends the browser here",
    ("GET", "/auth/auth0/logged-out"): "the issuer sends the browser here after a sign-out",
    ("GET", "/auth0/poll-status"): "an app that is not signed in yet waits here",
    ("POST", "/auth0/finalize-login"): "an app brings the issuer's token, to get ours",
    ("POST", "/api/auth0/refresh-app-token"): "finds its caller itself: here a token counts for a while after its end",
    ("POST", "/webhooks/stripe"): "Stripe's events are believed by their signature",
    ("GET", "/billing"): "Stripe's portal sends the browser here",
    ("GET", "/billing/success"): "Stripe sends the browser here after a purchase",
    ("GET", "/billing/cancel"): "the same, without one",
    ("GET", "/billing/payment-method/success"): "Stripe sends the browser here after a card was left",
    ("GET", "/billing/payment-method/cancel"): "the same, without one",
}
"""Each with its reason. HEAD goes with GET, and OPTIONS, which tells of methods alone, is everybody's."""

FOR_PEOPLE = {
    ("POST", "/api/billing/checkout/custom-credit-session"),
    ("POST", "/api/billing/checkout/setup-session"),
    ("GET", "/api/billing/checkout/session-status/<session_id>"),
    ("POST", "/api/billing/create-portal-session"),
    ("GET", "/api/billing/payment-methods"),
    ("GET", "/api/billing/invoices"),
    ("GET", "/api/billing/customer-info"),
    ("POST", "/api/billing/auto-top-off-settings"),
    ("POST", "/api/billing/notices/read"),
    ("PUT", "/api/billing/spending-limits"),
    ("DELETE", "/api/billing/spending-limits/<uuid:limit_id>"),
    ("POST", "/api/auth/api-keys"),
    ("DELETE", "/api/auth/api-keys/<uuid:key_id>"),
    ("GET", "/api/featurebase/sso-token"),
}
"""What buys, tells who somebody is, watches over spending, or makes and ends keys: no API key may do it."""

PUBLIC_IN_DEVELOPMENT: Mapping[tuple[str, str], str] = {
    ("GET", "/local-issuer/authorize"): "the page that plays the issuer, in a browser",
    ("POST", "/local-issuer/authorize"): "its form",
    ("GET", "/local-issuer/v2/logout"): "signing out there, in a browser",
    ("GET", "/local-issuer/.well-known/openid-configuration"): "what every issuer tells everybody",
    ("GET", "/local-issuer/.well-known/jwks.json"): "the same",
    ("POST", "/local-issuer/oauth/token"): "apps and this server exchange codes and refresh tokens here",
    ("POST", "/local-issuer/oauth/revoke"): "the same",
    ("GET", "/local-issuer/userinfo"): "asks for the issuer's own access token",
}
"""What plays the issuer on a developer's machine."""

UNSENT_BYTES = 1000


@pytest.fixture(params=["production", "development"])
async def served(
    database_url: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Served]:
    """In development without an issuer, so that the local one is there."""
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    issuer = {} if request.param == "production" else {"AUTH0_ISSUER_URL": ""}
    async with open_served(stores, tmp_path, ENVIRONMENT=request.param, **issuer) as served:
        yield served


def list_public(served: Served) -> Mapping[tuple[str, str], str]:
    return PUBLIC if served.services.config.is_production else {**PUBLIC, **PUBLIC_IN_DEVELOPMENT}


def walk_routes(app: QuartTrio) -> Iterator[tuple[str, Rule]]:
    """Every method of every rule that runs code of ours."""
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            yield method, rule


def walk_guarded(served: Served) -> Iterator[tuple[str, Rule]]:
    public = list_public(served)
    for method, rule in walk_routes(served.app):
        if ("GET" if method == "HEAD" else method, rule.rule) not in public:
            yield method, rule


def fill_in(rule: Rule) -> str:
    """A path that the rule matches, also if its route has other rules: an id does for any part that varies."""
    built = rule.build(dict.fromkeys(rule.arguments, UUID(int=7)))
    assert built is not None
    return built[1]


async def test_whatever_is_not_public_by_name_is_refused_without_credentials_before_its_body_is_read(
    served: Served,
) -> None:
    open_routes = []
    for method, rule in walk_guarded(served):
        head = build_head(method, fill_in(rule), {"Content-Length": str(UNSENT_BYTES)})
        answer = await served.send(head)
        if answer.status != 401:
            open_routes.append((method, rule.rule, answer.status))
    assert open_routes == [], "guard these routes, or name them as public, with a reason"


async def test_the_paths_that_are_asked_are_those_of_the_rules(served: Served) -> None:
    urls = served.app.url_map.bind("cloche")
    for method, rule in walk_routes(served.app):
        assert urls.match(fill_in(rule), method, return_rule=True)[0] is rule


async def test_what_is_public_by_name_is_there(served: Served) -> None:
    known = {(method, rule.rule) for method, rule in walk_routes(served.app)}
    assert set(list_public(served)) - known == set(), "a public route is gone: take it off the list"


async def test_what_is_public_by_name_is_so_in_truth(served: Served) -> None:
    for method, rule in walk_routes(served.app):
        if ("GET" if method == "HEAD" else method, rule.rule) in list_public(served):
            rules = getattr(served.app.view_functions[rule.endpoint], "access", GUARDED)
            assert rules.is_public, f"{rule.rule} is guarded: take it off the list"


async def test_what_is_for_people_stands_here_by_name(served: Served) -> None:
    found = set()
    for method, rule in walk_routes(served.app):
        if getattr(served.app.view_functions[rule.endpoint], "access", GUARDED).is_for_people and method != "HEAD":
            found.add((method, rule.rule))
    assert found == FOR_PEOPLE


async def test_no_route_answers_where_the_guard_does_not_ask(served: Served) -> None:
    """OPTIONS is everybody's, so no code of ours may answer it; and a WebSocket needs a guard of its own, before it is
    accepted. Whoever adds one brings that, and its test.
    """
    for rule in served.app.url_map.iter_rules():
        assert not rule.websocket, rule
        assert getattr(rule, "provide_automatic_options", False), rule
    assert served.app.has_static_folder is False


async def test_every_request_is_asked(served: Served) -> None:
    """A blueprint may not bring what runs before the guard."""
    assert [name for name, functions in served.app.before_request_funcs.items() if functions] == [None]
    assert served.app.before_request_funcs[None][0].__name__ == "guard"


async def test_a_route_that_says_nothing_is_guarded(served: Served) -> None:
    async def tell() -> str:
        return "a secret"

    served.app.add_url_rule("/somewhere", "somewhere", tell, methods=["GET", "POST"])
    for method in ("GET", "POST"):
        answer = await served.ask(method, "/somewhere")
        assert answer.status == 401
        assert b"a secret" not in answer.body


async def test_a_body_that_never_comes_keeps_nobody_waiting(served: Served) -> None:
    """The check of the first test, that it can fail: a public route does read its body."""
    head = build_head("POST", "/auth0/finalize-login", {"Content-Length": str(UNSENT_BYTES)})
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        await stream.send_all(head)
        with trio.move_on_after(0.3) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
