"""Signing in: what the browser passes through, and what the app asks meanwhile."""

import secrets
from typing import Any

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


class FinalizeBody(msgspec.Struct):
    """The issuer's access token has the name that the shipped apps give it, or the right one; both spellings count."""

    auth0_id_token: str | None = None
    auth0_access_token: str | None = None
    auth0IdToken: str | None = None  # noqa: N815 - the wire's name
    auth0AccessToken: str | None = None  # noqa: N815 - the wire's name
    auth0_refresh_token: str | None = None
    auth0RefreshToken: str | None = None  # noqa: N815 - the wire's name
    device_id: str | None = None
    deviceId: str | None = None  # noqa: N815 - the wire's name


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


@blueprint.get("/auth0/poll-status")
@access(is_public=True)
async def poll_status() -> Response:
    """Each login has a budget of its own, for an app polls twenty times a minute and many share an address."""
    pid = read_polling_id(request.args)
    limits = services().limits
    polls = [(limits.budgets.polls, pid), (limits.budgets.poll_floods, "")]
    g.verdict = await limits.take_for_address(circumstances().address, polls)
    result = await services().sign_in.states.read_result(pid)
    if result is None:
        return Response(b"", 204, headers=NO_STORE)
    if result.code is None:
        return encode_problem(describe_status(400, result.error or ADVICE))
    return as_json({"status": "ready", "authorizationCode": result.code, "tauriCsrfToken": result.csrf})


@blueprint.post("/auth0/finalize-login")
@access(is_public=True, budget="sign_ins")
async def finalize_login() -> Response:
    body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    token, refresh_token, device_id = read_finalize_body(body)
    return tell_session(await services().sign_in.finalize(token, refresh_token, device_id))


def read_finalize_body(body: bytes) -> tuple[str, str | None, str | None]:
    """The issuer's access token, its refresh token, and the device's id in lower case. Raises RequestInvalid, naming
    the member.
    """
    try:
        found = msgspec.json.decode(body or b"{}", type=FinalizeBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"the body: {error}") from error
    token = found.auth0_id_token or found.auth0_access_token or found.auth0IdToken or found.auth0AccessToken
    if not token:
        raise RequestInvalid("auth0_id_token: is missing; send the issuer's access token")
    refresh_token = found.auth0_refresh_token or found.auth0RefreshToken or None
    if len(token) > MAX_TOKEN or len(refresh_token or "") > MAX_TOKEN:
        raise RequestInvalid(f"auth0_id_token, auth0_refresh_token: at most {MAX_TOKEN} characters")
    return token, refresh_token, _read_device_id(found.device_id or found.deviceId)


def tell_session(session: Session) -> Response:
    user = session.user
    return as_json(
        {
            "user": {"id": str(user.id), "email": user.email, "name": user.name, "role": user.role},
            "token": session.token,
            "tokenType": "Bearer",
            "expiresIn": session.expires_in_seconds,
        }
    )


def as_json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), headers=NO_STORE, content_type="application/json")


def _read_device_id(text: str | None) -> str | None:
    if text is None:
        return None
    if not is_uuid(text):
        raise RequestInvalid("device_id: must be a UUID, or null")
    return text.lower()


def _send_to(location: str) -> Response:
    return Response(b"", 302, headers={"Location": location, **NO_STORE})
