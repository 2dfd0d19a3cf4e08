"""The local issuer's endpoints, in development alone: what browsers see of it, and what apps and this server ask."""

import msgspec
from quart import Blueprint, Response, render_template, request

from server.auth.local_issuer import LocalIssuer
from server.auth.local_requests import (
    Authorization,
    AuthorizationRefused,
    GrantRefused,
    build_discovery,
    read_authorization,
    read_fields,
    read_logout_location,
    read_person,
)
from server.auth.settings import LOCAL_ISSUER_PATH, SignInSettings
from server.errors import NotAllowed, NotAuthenticated, NotFound, RequestInvalid, ServerError
from server.guard import access
from server.pages import NO_STORE, PAGE_HEADERS, answer_error
from server.services import services
from storage.errors import StorageError

POLICY = "Content-Security-Policy"
SAME_ORIGIN = "same-origin"
CANCELLED = "you chose not to sign in"

blueprint = Blueprint("local_issuer", __name__, url_prefix=LOCAL_ISSUER_PATH)
browser = Blueprint("local_issuer_browser", __name__, url_prefix=LOCAL_ISSUER_PATH)
browser.register_error_handler(ServerError, answer_error)
browser.register_error_handler(StorageError, answer_error)


@browser.get("/authorize")
@access(is_public=True, budget="sign_ins")
async def show_form() -> Response:
    try:
        wanted = read_authorization(issuer().settings, read_fields(request.args.to_dict(flat=False)))
    except AuthorizationRefused as refused:
        return send_to(refused.location)
    return await show(wanted, {})


@browser.post("/authorize")
@access(is_public=True, budget="sign_ins")
async def receive_form() -> Response:
    """The form carries the request, which is checked afresh. Another site's form is refused: what cannot reach a server
    on this machine may reach the developer's browser, which tells where a form is from
    (https://www.w3.org/TR/fetch-metadata/).
    """
    if request.headers.get("Sec-Fetch-Site", SAME_ORIGIN) != SAME_ORIGIN:
        raise NotAllowed("another site has sent this form")
    fields = read_fields((await request.form).to_dict(flat=False))
    try:
        wanted = read_authorization(issuer().settings, fields)
    except AuthorizationRefused as refused:
        return send_to(refused.location)
    if fields.get("choice") == "cancel":
        return send_to(wanted.build_answer(error="access_denied", error_description=CANCELLED))
    try:
        person = read_person(fields)
    except RequestInvalid as problem:
        return await show(wanted, fields, str(problem))
    return send_to(wanted.build_answer(code=await issuer().issue_code(wanted, person)))


@browser.get("/v2/logout")
@access(is_public=True, budget="public")
async def log_out() -> Response:
    """Nobody is remembered here, so there is nothing to end."""
    return send_to(read_logout_location(issuer().settings, read_fields(request.args.to_dict(flat=False))))


@blueprint.get("/.well-known/openid-configuration")
@access(is_public=True)
async def show_discovery() -> Response:
    return as_json(200, build_discovery(issuer().settings.issuer))


@blueprint.get("/.well-known/jwks.json")
@access(is_public=True)
async def show_keys() -> Response:
    return as_json(200, await issuer().list_keys())


@blueprint.post("/oauth/token")
@access(is_public=True)
async def issue_tokens() -> Response:
    try:
        return as_json(200, await issuer().issue_tokens(await read_form()))
    except (GrantRefused, RequestInvalid) as refused:
        return answer_refusal(refused)


@blueprint.post("/oauth/revoke")
@access(is_public=True)
async def revoke() -> Response:
    try:
        await issuer().revoke(await read_form())
    except (GrantRefused, RequestInvalid) as refused:
        return answer_refusal(refused)
    return as_json(200, {})


@blueprint.get("/userinfo")
@access(is_public=True)
async def show_user() -> Response:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise NotAuthenticated("there is no access token")
        return as_json(200, await issuer().find_user(token.strip()))
    except NotAuthenticated as refused:
        response = as_json(401, {"error": "invalid_token", "error_description": str(refused)})
        response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
        return response


def issuer() -> LocalIssuer:
    """Where there is none, its routes are not there either; this says so once more."""
    found = services().local_issuer
    if found is None:
        raise NotFound("there is nothing here")
    return found


async def show(wanted: Authorization, fields: dict[str, str], problem: str = "") -> Response:
    settings = issuer().settings
    page = await render_template(
        "local_issuer.html",
        hidden=wanted.build_form(settings),
        email=fields.get("email", ""),
        name=fields.get("name", ""),
        problem=problem,
        action=f"{LOCAL_ISSUER_PATH}/authorize",
    )
    headers = {**PAGE_HEADERS, POLICY: build_policy(settings, PAGE_HEADERS[POLICY])}
    return Response(page, 400 if problem else 200, headers=headers, content_type="text/html; charset=utf-8")


def build_policy(settings: SignInSettings, policy: str) -> str:
    """The page's form goes to us, and from here on: Chromium holds every redirect after it against `form-action`, too
    (https://github.com/w3c/webappsec-csp/issues/8).
    """
    places = " ".join(["'self'", *settings.callback_urls, *([settings.website_url] if settings.website_url else [])])
    return policy.replace("form-action 'none'", f"form-action {places}")


async def read_form() -> dict[str, str]:
    """A form, as the protocol has it, or JSON, as Auth0 takes it as well. Raises RequestInvalid."""
    if request.mimetype != "application/json":
        return read_fields((await request.form).to_dict(flat=False))
    try:
        return msgspec.json.decode(await request.get_data(as_text=False), type=dict[str, str])
    except msgspec.DecodeError as error:
        raise RequestInvalid("the body must be a form, or a JSON object of strings") from error


def answer_refusal(refused: GrantRefused | RequestInvalid) -> Response:
    """As RFC 6749, 5.2, has it."""
    error = refused.error if isinstance(refused, GrantRefused) else "invalid_request"
    status = 401 if error == "invalid_client" else 400
    return as_json(status, {"error": error, "error_description": str(refused)})


def send_to(location: str) -> Response:
    """303: whatever was posted to us is not posted there."""
    return Response("", 303, headers={"Location": location, **NO_STORE})


def as_json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status, headers=NO_STORE, content_type="application/json")
