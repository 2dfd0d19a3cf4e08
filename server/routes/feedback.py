"""Feedback: a token with which the user is signed in at Featurebase, where people vote for what is built next."""

import time

import jwt
import msgspec
from quart import Blueprint

from server.auth.callers import Caller
from server.errors import NotFound
from server.guard import access, caller
from server.operations import Answer, operation
from server.services import services

TOKEN_SECONDS = 300
NOT_STORED = {"Cache-Control": "no-store"}

blueprint = Blueprint("feedback", __name__)


class FeedbackTokenAnswer(msgspec.Struct):
    """A JWT for `/api/v1/auth/access/jwt` of the organisation's Featurebase site. It counts for five minutes."""

    token: str


@blueprint.get("/api/featurebase/sso-token")
@access(is_for_people=True)
@operation("Get a token for the feedback site")
async def issue() -> Answer[FeedbackTokenAnswer]:
    """Signs you in at the feedback site under your name and e-mail address. Where no feedback site is set up, the
    answer is 404.
    """
    secret = services().config.feedback_secret
    if secret is None:
        raise NotFound("feedback is not set up on this server: it has no FEATUREBASE_SSO_SECRET")
    return Answer(FeedbackTokenAnswer(build_token(secret, caller(), time.time())), headers=NOT_STORED)


def build_token(secret: str, who: Caller, now: float) -> str:
    """HS256; `now` in Unix seconds. The name is null for a user without one. A role that is empty is left out, and so
    is what stands for an address where none was verified: the user's id will do, says
    https://help.featurebase.app/articles/5257986-creating-and-signing-a-jwt.
    """
    claims: dict[str, object] = {"userId": str(who.user_id), "name": who.name, "exp": int(now) + TOKEN_SECONDS}
    if "@" in who.email:
        claims["email"] = who.email
    if who.role:
        claims["role"] = who.role
    return jwt.encode(claims, secret, algorithm="HS256")
