"""The description of all routes: valid, complete, and of the types that the code uses."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Annotated, Any
from uuid import UUID

import jsonschema_rs
import msgspec
import pytest
from quart import Quart
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from server.app import find_blueprints, load_routes
from server.guard import Access
from server.openapi import RouteFacts, build_document, name_group, name_operation, write_path
from server.operations import (
    APP_TOKEN,
    EMPTY,
    EVENT_STREAM,
    IDEMPOTENCY,
    Answer,
    Content,
    Credentials,
    Operation,
    View,
    operation,
)
from server.routes import local_issuer
from server.routes.openapi import find_routes

NOT_DESCRIBED = {"metrics", "billing_pages", "browser", "openapi.show_page"}
"""Pages for browsers, and what Prometheus reads."""


class Wish(msgspec.Struct):
    amount: Decimal


class Query(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(description="How many.", ge=1)] = 20
    start: str | None = None


class Shown(msgspec.Struct):
    amount: Decimal


@operation("Show", query=Query)
async def show() -> Shown:
    """All of it."""
    raise NotImplementedError


@operation("Change", headers=IDEMPOTENCY, status=201)
async def change(body: Wish | None) -> Answer[Shown]:
    raise NotImplementedError(body)


def build_app() -> Quart:
    """With all routes, and nothing behind them."""
    app = Quart("server", static_folder=None)
    for module in load_routes():
        if module is not local_issuer:
            for blueprint in find_blueprints(module):
                app.register_blueprint(blueprint)
    return app


@cache
def describe_all() -> Mapping[str, Any]:
    return build_document(find_routes(build_app()), "1.2.3", "https://cloche.example")


def walk() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in describe_all()["paths"].items():
        for method, described in methods.items():
            yield method, path, described


def describe(view: View, rule: str = "/api/things/<uuid:thing_id>", **rules: Any) -> tuple[Any, Mapping[str, Any]]:
    """The operation, and the whole document that it is in."""
    said: Operation = getattr(view, "operation")  # noqa: B009 - mypy knows of no such attribute of a function
    document = build_document([RouteFacts(rule, "GET", "things", said, Access(**rules))], "1", "http://cloche")
    (methods,) = document["paths"].values()
    return methods["get"], document


def mark(summary: str = "Show", **said: Any) -> View:
    async def view() -> None:
        raise NotImplementedError

    return operation(summary, **said)(view)


def test_the_document_is_openapi() -> None:
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(describe_all())] == []


def test_every_schema_is_a_schema() -> None:
    for schema in describe_all()["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_every_reference_leads_somewhere_and_every_component_is_led_to() -> None:
    document = describe_all()
    named = {f"#/components/{kind}/{name}" for kind, found in document["components"].items() for name in found}
    found = set(re.findall(r'"\$ref":"([^"]+)"', msgspec.json.encode(document).decode()))
    schemes = {name for name in named if "/securitySchemes/" in name}
    assert (found - named, {name for name in named - found - schemes if "/responses/" not in name}) == (set(), set())


def test_whatever_speaks_json_is_described() -> None:
    views = build_app().view_functions
    missing = {name for name, view in views.items() if not hasattr(view, "operation")}
    assert {name for name in missing if not {name, name.partition(".")[0]} & NOT_DESCRIBED} == set()


def test_every_operation_has_a_short_summary_and_a_readable_tag() -> None:
    tags = {tag["name"] for tag in describe_all()["tags"]}
    for method, path, described in walk():
        assert re.fullmatch(r"[A-Z][^\n]{3,79}[^.\n]", described["summary"]), (method, path)
        assert set(described["tags"]) <= tags
    assert all(re.fullmatch(r"[A-Z][A-Za-z ]+", tag) for tag in tags)


def test_every_operation_has_an_id_of_its_own_that_any_language_can_say() -> None:
    ids = [described["operationId"] for _, _, described in walk()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+_[A-Za-z0-9_]+", id_) for id_ in ids)


def test_every_part_of_a_path_is_a_parameter() -> None:
    for method, path, described in walk():
        told = [each["name"] for each in described.get("parameters", ()) if each["in"] == "path"]
        assert told == re.findall(r"\{(\w+)\}", path), (method, path)


def test_descriptions_are_for_people_and_tell_nothing_of_the_inside() -> None:
    for method, path, described in walk():
        text = described.get("description", "")
        assert not re.search(r"\bRaises\b|services\(\)|[a-z]_[a-z]+\(", text), (method, path)


def test_names_of_components_are_public_and_no_two_types_share_one() -> None:
    """Two that did would stop the document from being made: tests/server/test_schemas.py."""
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]+", name) for name in describe_all()["components"]["schemas"])


def test_an_id_follows_from_the_path_alone() -> None:
    assert name_operation("GET", "/api/things/<uuid:thing_id>") == "get_api_things_by_thing_id"
    assert name_operation("DELETE", "/v1/models/<path:id>") == "delete_v1_models_by_id"
    assert write_path("/v1/<path:id>/<string(length=2):code>/<name>") == "/v1/{id}/{code}/{name}"


def test_a_group_is_named_for_people() -> None:
    assert [name_group(name) for name in ("api_keys", "sign_in", "openapi")] == ["API keys", "Sign in", "OpenAPI"]


def test_what_is_guarded_says_so_and_lists_its_refusals() -> None:
    told, _ = describe(show)
    assert told["security"] == [{"token": []}, {"apiKey": []}]
    assert list(told["responses"]) == ["200", "400", "401", "403", "429", "default"]


def test_what_is_for_people_takes_no_api_key() -> None:
    assert describe(mark(), is_for_people=True)[0]["security"] == [{"token": []}]


def test_what_is_public_needs_nothing_and_is_counted_only_by_a_budget() -> None:
    counted, free = describe(mark(), is_public=True, budget="public")[0], describe(mark(), is_public=True)[0]
    assert ("security" in counted, "security" in free) == (False, False)
    assert list(counted["responses"]) == ["204", "429", "default"]
    assert list(free["responses"]) == ["204", "default"]
    assert list(free["responses"]["204"]["headers"]) == ["X-Request-ID"]
    assert "RateLimit-Remaining" in counted["responses"]["204"]["headers"]


def test_what_is_public_may_look_at_credentials_by_itself() -> None:
    own = Credentials("operatorToken", "The operator's.")
    told, document = describe(mark(credentials=own), is_public=True)
    assert (told["security"], "401" in told["responses"]) == ([{"operatorToken": []}], True)
    assert document["components"]["securitySchemes"]["operatorToken"]["description"] == "The operator's."
    known, _ = describe(mark(credentials=APP_TOKEN, is_counted=True), is_public=True)
    assert (known["security"], "429" in known["responses"]) == ([{"token": []}], True)


def test_what_an_operation_says_of_an_error_comes_before_what_holds_for_all() -> None:
    told, _ = describe(mark(answers={200: Content(Shown), 401: Content(Shown, description="Not you.")}))
    assert told["responses"]["401"]["description"] == "Not you."


def test_errors_are_in_the_dialect_of_the_path() -> None:
    for rule, envelope in (("/v1/things", "OpenAiError"), ("/api/v1/things", "ErrorEnvelope")):
        told, document = describe(mark(), rule)
        name = told["responses"]["429"]["$ref"].rpartition("/")[2]
        refusal = document["components"]["responses"][name]
        assert refusal["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{envelope}"}
        assert "Retry-After" in refusal["headers"]


def test_a_query_is_a_parameter_for_each_of_its_members() -> None:
    told, _ = describe(show, "/api/things")
    limit, start = told["parameters"]
    assert limit == {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "How many.",
        "schema": {"type": "integer", "minimum": 1, "default": 20},
    }
    assert (start["name"], "description" in start) == ("start", False)


def test_parameters_of_the_path_have_the_type_of_their_converter() -> None:
    told, _ = describe(mark(), "/things/<uuid:one>/<int:two>/<three>")
    assert [each["schema"].get("format", each["schema"]["type"]) for each in told["parameters"]] == [
        "uuid",
        "integer",
        "string",
    ]


def test_a_body_that_may_be_null_may_be_left_out() -> None:
    assert describe(change)[0]["requestBody"]["required"] is False
    assert describe(mark(body=Wish))[0]["requestBody"]["required"] is True


def test_an_answer_may_have_several_forms() -> None:
    stream = Content(media_type=EVENT_STREAM, description="As it comes.")
    told, _ = describe(mark(answers={200: (Content(Shown, description="Whole."), stream)}))
    assert set(told["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert told["responses"]["200"]["description"] == "Whole. As it comes."


def test_what_may_be_unchanged_has_a_version() -> None:
    told, _ = describe(mark(answers={200: Content(Shown), 304: Content(media_type=EMPTY)}), "/things")
    assert "ETag" in told["responses"]["200"]["headers"]
    assert "content" not in told["responses"]["304"]
    assert [each["name"] for each in told["parameters"]] == ["If-None-Match"]


@pytest.mark.parametrize("path", ["/api/llm/chat/completions", "/v1/chat/completions"])
def test_a_chat_is_described_whole_and_streamed(path: str) -> None:
    told = describe_all()["paths"][path]["post"]
    assert set(told["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert [each["name"] for each in told["parameters"]] == ["Idempotency-Key"]


def test_what_no_api_key_may_do_asks_for_no_api_key() -> None:
    assert describe_all()["paths"]["/api/auth/account"]["delete"]["security"] == [{"token": []}]


def test_a_path_is_described_once_and_its_aliases_are_told_of() -> None:
    document = describe_all()
    assert [path for path in document["paths"] if path.startswith(("/api/v1/", "/api-key/"))] == []
    assert all(alias in document["info"]["description"] for alias in ("`/api/v1/`", "`/api-key/`"))


def test_ids_in_answers_are_uuids() -> None:
    """What msgspec writes and what the document says of it are the same."""
    schemas = describe_all()["components"]["schemas"]
    key = schemas["ApiKeyAnswer"]["properties"]
    assert (key["id"]["format"], key["createdAt"]["format"]) == ("uuid", "date-time")
    assert msgspec.json.encode(UUID(int=7)) == b'"00000000-0000-0000-0000-000000000007"'
