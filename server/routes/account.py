"""The account of whoever is signed in: who it is, a fresh token, signing out, leaving for good."""

import trio
from quart import Blueprint, Response, g, request

from server.auth.callers import Caller
from server.auth.tokens import SECONDS_PER_DAY, AppToken
from server.errors import NotAllowed
from server.guard import access, caller
from server.routes.sign_in import as_json, tell_session
from server.services import services

CLOSE_PAGES_SECONDS = 5.0
"""A Stripe that does not answer keeps nobody from leaving."""

blueprint = Blueprint("account", __name__)


@blueprint.get("/api/auth/userinfo")
async def show_user() -> Response:
    who = caller()
    return as_json({"id": str(who.user_id), "email": who.email, "name": who.name, "role": who.role})


@blueprint.post("/api/auth0/refresh-app-token")
@access(is_public=True)
async def refresh_token() -> Response:
    """Finds its caller itself, for here alone a token counts for a while after its end."""
    grace_seconds = services().config.sign_in.refresh_grace_days * SECONDS_PER_DAY
    who = await services().callers.find_for_refresh(request.headers, grace_seconds)
    g.verdict = who.verdict
    return tell_session(await services().sign_in.refresh(who, _require_token(who)))


@blueprint.post("/api/auth/logout")
async def sign_out() -> Response:
    """An API key has nothing to sign out of."""
    who = caller()
    if who.token is None:
        return Response(b"")
    await services().sign_in.sign_out(who, who.token)
    return as_json({"message": "You are signed out"})


@blueprint.delete("/api/auth/account")
async def delete_account() -> Response:
    """Pages at Stripe where the user could still pay are closed first."""
    who = caller()
    token = _require_token(who)
    if services().config.billing.sells:
        with trio.move_on_after(CLOSE_PAGES_SECONDS):
            await services().billing.checkout.close_pages(who.user_id)
    await services().sign_in.delete_account(who, token)
    return as_json({"status": "deleted"})


def _require_token(who: Caller) -> AppToken:
    if who.token is None:
        raise NotAllowed("an API key cannot do this; sign in for it")
    return who.token
