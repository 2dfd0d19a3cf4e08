"""Signing in: what the browser passes through, and what the app asks meanwhile."""

import secrets
from typing import Literal
from uuid import UUID

import msgspec
from quart import Blueprint, Response, g, request

from server.auth.authorize import (
    build_location,
    is_uuid,
    read_callback,
    read_login_request,
    read_polling_id,
    read_state,
)
from server.auth.sign_in import Session
from server.circumstances import circumstances
from server.errors import RequestInvalid, ServerError, SignInRefused, describe_status
from server.guard import access
from server.operations import EMPTY, Content, decode_body, operation, read_body
from server.pages import (
    ADVICE,
    NO_STORE,
    NOT_SIGNED_IN,
    NOT_WORKED,
    answer_error,
    encode_problem,
    show_page,
    show_problem,
)
from server.services import services
from storage.errors import StorageError
from storage.login_states import LoginState

MAX_TOKEN = 16_384
STATE_BYTES = 32

blueprint = Blueprint("sign_in", __name__)
browser = Blueprint("browser", __name__, url_prefix="/auth/auth0")


class FinalizeLoginWish(msgspec.Struct):
    """The issuer's access token has the name that the shipped apps give it, or the right one; both spellings count.
    With a refresh token of the issuer's, who is signed in stays so for longer. `device_id` is a UUID: the token that
    you get counts on that device alone.
    """

    auth0_id_token: str | None = None
    auth0_access_token: str | None = None
    auth0IdToken: str | None = None  # noqa: N815 - the wire's name
    auth0AccessToken: str | None = None  # noqa: N815 - the wire's name
    auth0_refresh_token: str | None = None
    auth0RefreshToken: str | None = None  # noqa: N815 - the wire's name
    device_id: str | None = None
    deviceId: str | None = None  # noqa: N815 - the wire's name


class SignInCodeAnswer(msgspec.Struct, rename="camel"):
    """The issuer's code, which the app exchanges with the issuer, and the word that the app began with."""

    status: Literal["ready"]
    authorization_code: str
    tauri_csrf_token: str


class UserAnswer(msgspec.Struct):
    id: UUID
    email: str
    name: str | None
    role: str


class SessionAnswer(msgspec.Struct, rename="camel"):
    """`token` goes into the header `Authorization` of every other request."""

    user: UserAnswer
    token: str
    token_type: Literal["Bearer"]
    expires_in: int


@browser.get("/initiate-login")
@access(is_public=True, budget="sign_ins")
async def initiate_login() -> Response:
    settings = services().config.sign_in
    login = read_login_request(request.args, settings)
    endpoint = await services().sign_in.issuer.find_authorization_endpoint()
    state = secrets.token_urlsafe(STATE_BYTES)
    await services().sign_in.states.put_state(state, LoginState(login.pid, login.csrf))
    return _send_to(build_location(endpoint, login, state, settings))


@browser.get("/callback")
@access(is_public=True, budget="public")
async def receive_callback() -> Response:
    """Whatever the issuer says is left for the app, which polls; the browser is told how it went."""
    states = services().sign_in.states
    state, callback = read_state(request.args), read_callback(request.args)
    if state is None or not await states.finish(state, callback.code, callback.error):
        raise SignInRefused("this sign-in is over, or was never begun here")
    if callback.error is not None:
        title = NOT_SIGNED_IN if callback.is_denial else NOT_WORKED
        return await show_problem(describe_status(400, callback.error), title)
    if (website := services().config.sign_in.website_url) is not None:
        return _send_to(f"{website}/auth/callback")
    return await show_page("You are signed in", "You can close this window and go back to the app.")


@browser.get("/logged-out")
@access(is_public=True, budget="public")
async def show_logged_out() -> Response:
    if (website := services().config.sign_in.website_url) is not None:
        return _send_to(f"{website}/auth/auth0/logged-out")
    return await show_page("You are signed out", "You can close this window.")


@browser.errorhandler(ServerError)
@browser.errorhandler(StorageError)
async def tell_browser(error: Exception) -> Response:
    return await answer_error(error)


class PollQuery(msgspec.Struct):
    """`pid` is what the app made up for this login."""

    pid: UUID


@blueprint.get("/auth0/poll-status")
@access(is_public=True)
@operation(
    "Ask whether a login has come back",
    query=PollQuery,
    answers={
        200: Content(SignInCodeAnswer),
        204: Content(media_type=EMPTY, description="Not yet: ask again in some seconds."),
    },
    is_counted=True,
)
async def poll_status() -> SignInCodeAnswer | Response | None:
    """What the issuer has told the browser, once. 400 says that the login went wrong, and why."""
    # Each login has a budget of its own, for an app polls twenty times a minute and many share an address.
    pid = read_polling_id(request.args)
    limits = services().limits
    polls = [(limits.budgets.polls, pid), (limits.budgets.poll_floods, "")]
    g.verdict = await limits.take_for_address(circumstances().address, polls)
    result = await services().sign_in.states.read_result(pid)
    if result is None:
        return None
    if result.code is None:
        return encode_problem(describe_status(400, result.error or ADVICE))
    return SignInCodeAnswer("ready", result.code, result.csrf)


@blueprint.post("/auth0/finalize-login")
@access(is_public=True, budget="sign_ins")
@operation("Sign in with the issuer's token", body=FinalizeLoginWish)
async def finalize_login() -> SessionAnswer:
    """Takes the access token that the issuer gave for the code, and gives a token of this server. 401 says that it does
    not hold, or that its person may not come in.
    """
    token, refresh_token, device_id = read_finalize_body(await read_body())
    return describe_session(await services().sign_in.finalize(token, refresh_token, device_id))


def read_finalize_body(body: bytes) -> tuple[str, str | None, str | None]:
    """The issuer's access token, its refresh token, and the device's id in lower case. Raises RequestInvalid, naming
    the member.
    """
    found = decode_body(body or b"{}", FinalizeLoginWish)
    token = found.auth0_id_token or found.auth0_access_token or found.auth0IdToken or found.auth0AccessToken
    if not token:
        raise RequestInvalid("auth0_id_token: is missing; send the issuer's access token")
    refresh_token = found.auth0_refresh_token or found.auth0RefreshToken or None
    if len(token) > MAX_TOKEN or len(refresh_token or "") > MAX_TOKEN:
        raise RequestInvalid(f"auth0_id_token, auth0_refresh_token: at most {MAX_TOKEN} characters")
    return token, refresh_token, _read_device_id(found.device_id or found.deviceId)


def describe_session(session: Session) -> SessionAnswer:
    user = session.user
    shown = UserAnswer(user.id, user.email, user.name, user.role)
    return SessionAnswer(shown, session.token, "Bearer", session.expires_in_seconds)


def _read_device_id(text: str | None) -> str | None:
    if text is None:
        return None
    if not is_uuid(text):
        raise RequestInvalid("device_id: must be a UUID, or null")
    return text.lower()


def _send_to(location: str) -> Response:
    return Response(b"", 302, headers={"Location": location, **NO_STORE})
