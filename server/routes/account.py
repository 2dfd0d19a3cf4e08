"""The account of whoever is signed in: who it is, a fresh token, signing out, leaving for good."""

from typing import Literal

import msgspec
import trio
from quart import Blueprint, Response, g, request

from server.auth.callers import Caller
from server.auth.tokens import SECONDS_PER_DAY, AppToken
from server.errors import NotAllowed
from server.guard import access, caller
from server.operations import APP_TOKEN, Content, operation
from server.routes.sign_in import SessionAnswer, UserAnswer, describe_session
from server.services import services

CLOSE_PAGES_SECONDS = 5.0
"""A Stripe that does not answer keeps nobody from leaving."""

blueprint = Blueprint("account", __name__)


class SignedOutAnswer(msgspec.Struct):
    """`message` is for people."""

    message: str


class AccountDeletedAnswer(msgspec.Struct):
    status: Literal["deleted"]


@blueprint.get("/api/auth/userinfo")
@operation("Show who you are")
async def show_user() -> UserAnswer:
    who = caller()
    return UserAnswer(who.user_id, who.email, who.name, who.role)


@blueprint.post("/api/auth0/refresh-app-token")
@access(is_public=True)
@operation("Get a fresh token", credentials=APP_TOKEN, is_counted=True)
async def refresh_token() -> SessionAnswer:
    """Takes the token that you have, for a while also after its end, if `X-Device-ID` and `X-Token-Binding` both name
    its device. An API key gets no token.
    """
    # Public for the guard: the caller is found here, for here alone a token counts after its end.
    grace_seconds = services().config.sign_in.refresh_grace_days * SECONDS_PER_DAY
    who = await services().callers.find_for_refresh(request.headers, grace_seconds)
    g.verdict = who.verdict
    return describe_session(await services().sign_in.refresh(who, _require_token(who)))


@blueprint.post("/api/auth/logout")
@operation("Sign out", answers={200: (Content(SignedOutAnswer), Content(media_type="text/html"))})
async def sign_out() -> SignedOutAnswer | Response:
    """All tokens of this sign-in end at once. An API key has nothing to sign out of: its answer is empty."""
    who = caller()
    if who.token is None:
        return Response(b"")
    await services().sign_in.sign_out(who, who.token)
    return SignedOutAnswer("You are signed out")


@blueprint.delete("/api/auth/account")
@operation("Delete your account", credentials=APP_TOKEN)
async def delete_account() -> AccountDeletedAnswer:
    """For good, with all that belongs to it. Pages where you could still pay are closed first. An API key cannot do
    this.
    """
    who = caller()
    token = _require_token(who)
    if services().config.billing.sells:
        with trio.move_on_after(CLOSE_PAGES_SECONDS):
            await services().billing.checkout.close_pages(who.user_id)
    await services().sign_in.delete_account(who, token)
    return AccountDeletedAnswer("deleted")


def _require_token(who: Caller) -> AppToken:
    if who.token is None:
        raise NotAllowed("an API key cannot do this; sign in for it")
    return who.token
