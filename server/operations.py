"""Operations: what a route takes and what it answers, said once, in its signature. The same types decode, encode and
describe it (server/openapi.py), so that none of them can say something else than the others.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Annotated, Any, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from quart import Response, request

from server.errors import RequestInvalid

JSON = "application/json"
FORM = "multipart/form-data"
EVENT_STREAM = "text/event-stream"
EMPTY = "empty"
"""A media type for answers that have no body."""

IDEMPOTENCY: Mapping[str, str] = {"Idempotency-Key": "What has this key is done once, however often it is sent."}

UploadedFile = Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]
"""The type of a form's member that is a file."""

NO_BODY = "Input data was truncated"
"""As msgspec says it of any JSON that ends too early."""

View = Callable[..., Awaitable[Any]]
Body = TypeVar("Body")

_ENCODER = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Content:
    """A body: its type, as msgspec knows it, for JSON; else its media type alone."""

    type: Any = None
    media_type: str = JSON
    description: str = ""


@dataclass(frozen=True, slots=True)
class Answer(Generic[Body]):
    """For a route whose answer has another status, or headers of its own."""

    body: Body
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How callers of a route say who they are, where it is not as everywhere. `name` is that of the scheme in the
    description; `description` is for who has to bring them.
    """

    name: str
    description: str


APP_TOKEN = Credentials("token", "The app token that signing in gives.")


@dataclass(frozen=True, slots=True)
class Operation:
    """`answers` are those that are no errors, by status: one content, or one for each media type that it may have.
    `query` is a Struct, each member a parameter; of `form` each is a part of an upload, which the route reads itself.
    `headers` are those that the route reads itself, each with what it is for. `credentials` and `is_counted` are for
    public routes that look at credentials, or draw on budgets, themselves.
    """

    summary: str
    description: str = ""
    body: Any = None
    form: Any = None
    query: Any = None
    answers: Mapping[int, Sequence[Content]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: Credentials | None = None
    is_counted: bool = False


def operation(  # noqa: PLR0913 - one for each thing that cannot be read off a signature
    summary: str,
    *,
    body: Any = None,
    form: Any = None,
    query: Any = None,
    answers: Mapping[int, Content | Sequence[Content]] | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials | None = None,
    is_counted: bool = False,
) -> Callable[[View], View]:
    """Makes a route of a function `async def view(*, body: B, query: Q, **what the path names) -> A`.

    `body` is decoded from JSON, `query` converted from the query string, both before the view runs; RequestInvalid is
    raised if they do not fit. What the view returns is encoded: `A`, or `Answer[A]`; None is JSON's null, or nothing
    where a 204 is among the answers. A view that returns a Response encodes by itself; its types are then said here:
    `body=`, `query=`, `answers={status: Content(…)}`. A Decimal is a JSON number in answers.
    """

    def mark(view: View) -> View:
        hints = get_type_hints(view, include_extras=True)
        found = Operation(
            summary=summary,
            description=inspect.getdoc(view) or "",
            body=hints.get("body", body),
            form=form,
            query=hints.get("query", query),
            answers=_read_said(answers) if answers else _read_hint(hints["return"], status),
            headers=headers or {},
            credentials=credentials,
            is_counted=is_counted,
        )
        encodes_itself = hints["return"] is Response and not hints.keys() & {"body", "query"}
        run = view if encodes_itself else _wrap(view, hints, found)
        cast(Any, run).operation = found
        return run

    return mark


def _wrap(view: View, hints: Mapping[str, Any], found: Operation) -> View:
    query = hints.get("query")
    body = hints.get("body")

    @wraps(view)
    async def run(**arguments: Any) -> Response:
        if query is not None:
            arguments["query"] = read_query(request.args.to_dict(), query)
        if body is not None:
            arguments["body"] = decode_body(await read_body(), body)
        return as_response(await view(**arguments), found)

    return run


async def read_body() -> bytes:
    """Raises werkzeug's RequestEntityTooLarge before more than the limit is in memory."""
    return await request.get_data(cache=False, as_text=False, parse_form_data=False)


def decode_body(body: bytes, type_: Any) -> Any:
    """An empty body is as good as null where that is taken. Raises RequestInvalid, naming the member."""
    try:
        return msgspec.json.decode(body or b"null", type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"the body: {error if body else NO_BODY}") from error


def read_query(query: Mapping[str, str], type_: Any) -> Any:
    """A parameter that is empty counts as absent. Raises RequestInvalid, naming the parameter."""
    given = {name: value for name, value in query.items() if value}
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise RequestInvalid(f"the query: {error}") from error


def encode_answer(body: Any) -> bytes:
    return _ENCODER.encode(body)


def as_response(found: Any, described: Operation) -> Response:
    if isinstance(found, Response):
        return found
    if isinstance(found, Answer):
        return Response(encode_answer(found.body), found.status, dict(found.headers), content_type=JSON)
    if found is None and 204 in described.answers:
        return Response(b"", 204)
    return Response(encode_answer(found), next(iter(described.answers)), content_type=JSON)


def answer_version(body: bytes, media_type: str, version: str, headers: Mapping[str, str]) -> Response:
    """With `version` as its ETag; 304 for who has it: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2"""
    told = {**headers, "ETag": f'"{version}"'}
    if not request.if_none_match.contains_weak(version):
        return Response(body, 200, told, content_type=media_type)
    response = Response(b"", 304, told)
    for name in ("Content-Type", "Content-Length"):  # they would tell of the document, and of a wrong one
        response.headers.pop(name, None)
    return response


def _read_said(answers: Mapping[int, Content | Sequence[Content]]) -> Mapping[int, Sequence[Content]]:
    return {status: (said,) if isinstance(said, Content) else tuple(said) for status, said in answers.items()}


def _read_hint(hint: Any, status: int) -> Mapping[int, Sequence[Content]]:
    if hint is type(None):
        return {204: (Content(media_type=EMPTY),)}
    if hint is Response or Response in get_args(hint):
        raise TypeError("a view that returns a Response says what is in it: answers={status: Content(…)}")
    if get_origin(hint) is Answer:
        return {status: (Content(get_args(hint)[0]),)}
    return {status: (Content(hint),)}
