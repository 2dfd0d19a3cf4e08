"""Operations: what comes in is decoded by the types of the signature, what goes out is encoded by them."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from quart import Response
from quart_trio import QuartTrio

from server.errors import RequestInvalid
from server.operations import (
    EMPTY,
    EVENT_STREAM,
    JSON,
    Answer,
    Content,
    Operation,
    View,
    decode_body,
    encode_answer,
    operation,
    read_body,
    read_query,
)


class Wish(msgspec.Struct):
    amount: Decimal
    label: str = "none"


class Query(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(ge=1)] = 20
    unread: bool = False
    search: str | None = None


class Shown(msgspec.Struct, rename="camel"):
    """What is shown."""

    total_usd: Decimal
    label: str


async def ask(view: View, method: str = "POST", path: str = "/", data: bytes = b"") -> tuple[int, str | None, bytes]:
    app = QuartTrio("test")
    app.add_url_rule("/", "view", view, methods=["GET", "POST"])
    app.add_url_rule("/<int:number>", "numbered", view, methods=["GET"])
    app.register_error_handler(RequestInvalid, refuse)
    client = app.test_client()
    response = await (client.get(path) if method == "GET" else client.post(path, data=data))
    return response.status_code, response.headers.get("Content-Type"), await response.get_data(as_text=False)


async def refuse(error: RequestInvalid) -> Response:
    return Response(str(error), 400)


def find(view: View) -> Operation:
    found = getattr(view, "operation")  # noqa: B009 - mypy knows of no such attribute of a function
    assert isinstance(found, Operation)
    return found


async def test_a_body_is_decoded_and_an_answer_encoded_by_their_types() -> None:
    @operation("Show")
    async def view(body: Wish) -> Shown:
        return Shown(body.amount, body.label)

    assert await ask(view, data=b'{"amount": "1.50", "more": 1}') == (200, JSON, b'{"totalUsd":1.50,"label":"none"}')


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b'{"amount": true}', b'{"amount": "x"}', b'{"amount": 1, "label": 2}', b"\xff", b"["],
)
async def test_a_body_that_does_not_fit_never_reaches_the_view(data: bytes) -> None:
    @operation("Show")
    async def view(body: Wish) -> None:
        raise AssertionError(body)

    status, _, told = await ask(view, data=data)
    assert (status, told.startswith(b"the body: ")) == (400, True)


def test_nobody_is_told_of_a_null_that_was_not_sent() -> None:
    with pytest.raises(RequestInvalid, match=r"^the body: Input data was truncated$"):
        decode_body(b"", Wish)
    with pytest.raises(RequestInvalid, match=r"^the body: Expected `object`, got `null`$"):
        decode_body(b"null", Wish)


async def test_a_body_that_may_be_null_may_be_empty() -> None:
    @operation("Show")
    async def view(body: Wish | None) -> bool:
        return body is None

    assert (await ask(view))[2] == b"true"


async def test_a_query_is_converted_and_what_the_path_names_comes_beside_it() -> None:
    @operation("Show")
    async def view(number: int, query: Query) -> list[Any]:
        return [number, query.limit, query.unread, query.search]

    assert (await ask(view, "GET", "/7?limit=3&unread=true&search=5&more=x"))[2] == b'[7,3,true,"5"]'
    assert (await ask(view, "GET", "/7?limit=&search="))[2] == b"[7,20,false,null]"


@pytest.mark.parametrize("query", [{"limit": "x"}, {"limit": "0"}, {"limit": "1.5"}, {"unread": "maybe"}])
def test_a_query_that_does_not_fit_is_refused_by_name(query: Mapping[str, str]) -> None:
    with pytest.raises(RequestInvalid, match=rf"^the query: .*\$\.{next(iter(query))}"):
        read_query(query, Query)


def test_a_nesting_without_end_is_refused() -> None:
    with pytest.raises(RequestInvalid):
        decode_body(b"[" * 100_000, Any)


async def test_nothing_is_a_204() -> None:
    @operation("Remove")
    async def view() -> None:
        return None

    status, _, data = await ask(view)
    assert (status, data) == (204, b"")
    assert find(view).answers == {204: (Content(media_type=EMPTY),)}


async def test_nothing_is_null_where_no_204_is_among_the_answers() -> None:
    @operation("Show")
    async def view() -> Shown | None:
        return None

    assert await ask(view) == (200, JSON, b"null")


async def test_a_view_may_answer_with_something_or_nothing() -> None:
    @operation("Show", answers={200: Content(Shown), 204: Content(media_type=EMPTY)})
    async def view(query: Query) -> Shown | None:
        return Shown(Decimal(1), "one") if query.unread else None

    assert (await ask(view, "GET"))[0] == 204
    assert await ask(view, "GET", "/?unread=1") == (200, JSON, b'{"totalUsd":1,"label":"one"}')


async def test_a_status_is_said_once_for_all_or_by_the_answer() -> None:
    @operation("Make", status=201)
    async def made() -> Shown:
        return Shown(Decimal(1), "one")

    @operation("Find", answers={200: Content(Shown), 503: Content(Shown)})
    async def found() -> Answer[Shown]:
        return Answer(Shown(Decimal(0), "away"), 503, {"Retry-After": "2"})

    assert ((await ask(made))[0], list(find(made).answers)) == (201, [201])
    assert (await ask(found))[0] == 503


def test_the_type_of_an_answer_with_headers_is_that_of_its_body() -> None:
    @operation("Show")
    async def view() -> Answer[Shown]:
        return Answer(Shown(Decimal(1), "one"))

    assert find(view).answers == {200: (Content(Shown),)}


def test_a_view_that_answers_by_itself_is_left_as_it_is() -> None:
    """No wrapper stands on the path of a chat."""

    async def view() -> Response:
        return Response(await read_body())

    contents = (Content(Shown), Content(media_type=EVENT_STREAM))
    marked = operation("Chat", body=Wish, answers={200: contents}, headers={"Idempotency-Key": "once"})(view)
    assert marked is view
    assert (find(view).body, find(view).answers, list(find(view).headers)) == (
        Wish,
        {200: contents},
        ["Idempotency-Key"],
    )


def test_a_view_that_answers_by_itself_says_what_is_in_it() -> None:
    async def alone() -> Response:
        raise NotImplementedError

    async def among_others() -> Shown | Response:
        raise NotImplementedError

    for view in (alone, among_others):
        with pytest.raises(TypeError, match="answers="):
            operation("Show")(view)


def test_what_a_view_does_is_told_by_its_docstring() -> None:
    @operation("Show")
    async def view(query: Query) -> Shown:
        """All of it.

        And more.
        """
        raise NotImplementedError(query)

    assert (find(view).summary, find(view).description, find(view).query) == ("Show", "All of it.\n\nAnd more.", Query)


@pytest.mark.parametrize("text", ["0.000001", "-12.340000", "0.1", "999999999999.999999", "0"])
def test_a_decimal_is_a_number_with_all_its_places(text: str) -> None:
    assert encode_answer({"amount": Decimal(text)}) == b'{"amount":%s}' % text.encode()
