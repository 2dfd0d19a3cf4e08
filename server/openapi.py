"""The description of every route, as OpenAPI 3.1 has it (https://spec.openapis.org/oas/v3.1.1.html). Pure.

It is made from the operations: their types are described by msgspec, which also decodes and encodes them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from server.envelopes import ErrorEnvelope, OpenAiError
from server.guard import Access
from server.operations import EMPTY, EVENT_STREAM, FORM, JSON, Content, Operation
from server.schemas import Schema, Schemas

TITLE = "Cloche"
SUMMARY = "The backend of AI desktop and mobile products: sign-in, streaming chats with any model, billing"
DESCRIPTION = """\
Send `Authorization: Bearer <token>` with the app token that signing in gives, or `X-API-Key: <key>` with an API key. \
A token that is bound to a device counts only with that device's id in `X-Device-ID`.

Every error has the same body, with the status in `code`, a word for programs in `error_type` (and, the same, in \
`errorType`), and a sentence for people in `message`. Paths that begin with `/v1/` speak OpenAI's dialect, errors \
included, so that OpenAI's libraries work with this server as their base URL.

`RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` tell what is left of the budget that a request drew \
on. After a 429, and after most 503s, `Retry-After` says in how many seconds it is worth trying again. `X-Request-ID` \
names every request; who sends one gets it back.

Every path that begins with `/api/` is served under `/api/v1/` and `/api-key/` as well, as older clients expect it. \
Members that are not described here are passed over where they are sent, and may be added to answers at any time."""

TOKEN, API_KEY = "token", "apiKey"
SCHEMES: Mapping[str, Mapping[str, str]] = {
    TOKEN: {"type": "http", "scheme": "bearer", "description": "The app token that signing in gives, or an API key."},
    API_KEY: {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key, made when signed in."},
}

REQUEST_ID, RETRY_AFTER, ETAG = "X-Request-ID", "Retry-After", "ETag"
BUDGET = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
HEADERS: Mapping[str, Schema] = {
    REQUEST_ID: {
        "description": "Names the request in our logs.",
        "required": True,
        "schema": {"type": "string"},
    },
    RETRY_AFTER: {
        "description": "In how many seconds it is worth trying again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    ETAG: {"description": "Names this version of the answer.", "schema": {"type": "string"}},
    "RateLimit-Limit": {
        "description": "How many requests the budget is for.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimit-Remaining": {"description": "How many are left of it.", "schema": {"type": "integer", "minimum": 0}},
    "RateLimit-Reset": {
        "description": "In how many seconds all of it is there again.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
REFUSALS: Mapping[str, str] = {
    "400": "What was sent is not of the form, or out of its bounds: the message names the place.",
    "401": "The credentials are missing, or do not hold.",
    "403": "The caller is known, and may not do this.",
    "429": "The caller has had what it may have for now.",
    "default": "Any other error.",
}
DONE, NOTHING, UNCHANGED = "Done.", "Done; there is nothing to tell.", "Nothing has changed since that version."
WORDS: Mapping[str, str] = {"api": "API", "openai": "OpenAI", "openapi": "OpenAPI", "stripe": "Stripe"}
"""How words of names are written that are no plain ones."""
EVENT: Schema = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
"""OpenAPI 3.1 has no word for the items of a stream (3.2: `itemSchema`); its readers take the schema for theirs."""

_CONVERTERS: Mapping[str, Schema] = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "minimum": 0},
    "string": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    "path": {"type": "string", "minLength": 1},
}
_VARIABLE = re.compile(r"<(?:(?P<converter>[a-z]+)(?:\([^)]*\))?:)?(?P<name>[a-z0-9_]+)>")


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """One method of one rule, which is as werkzeug writes it. `group` is the name of the file that has its view."""

    rule: str
    method: str
    group: str
    operation: Operation
    access: Access


def build_document(routes: Iterable[RouteFacts], version: str, server_url: str) -> dict[str, Any]:
    """The whole document. Routes come in any order, and stand in that of their paths."""
    ordered = sorted(routes, key=lambda route: (route.rule, route.method))
    schemas = _build_schemas(ordered)
    paths: dict[str, dict[str, Any]] = {}
    for route in ordered:
        paths.setdefault(write_path(route.rule), {})[route.method.lower()] = _describe(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version,
            "summary": SUMMARY,
            "description": DESCRIPTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": name} for name in sorted({name_group(route.group) for route in ordered}, key=str.lower)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "headers": HEADERS,
            "responses": {
                name_refusal(status, error): _describe_refusal(status, error, schemas)
                for error in (ErrorEnvelope, OpenAiError)
                for status in REFUSALS
            },
            "securitySchemes": {**SCHEMES, **_find_other_schemes(ordered)},
        },
    }


def name_group(name: str) -> str:
    """For people: `auto_top_off` is `Auto top off`."""
    words = " ".join(WORDS.get(word, word) for word in name.split("_"))
    return words[0].upper() + words[1:]


def name_operation(method: str, rule: str) -> str:
    """Stays the same for as long as the path does, whatever the code is called."""
    said = _VARIABLE.sub(lambda variable: f"by_{variable['name']}", rule)
    return f"{method.lower()}_{'_'.join(re.findall('[A-Za-z0-9]+', said))}"


def write_path(rule: str) -> str:
    return _VARIABLE.sub(lambda variable: "{" + variable["name"] + "}", rule)


def name_refusal(status: str, error: type) -> str:
    return f"{error.__name__}{status.title()}"


def _build_schemas(routes: Iterable[RouteFacts]) -> Schemas:
    operations = [route.operation for route in routes]
    contents = [content for each in operations for several in each.answers.values() for content in several]
    return Schemas(
        [described for each in operations for described in (each.body, each.form)],
        [*(content.type for content in contents), ErrorEnvelope, OpenAiError],
        [each.query for each in operations],
    )


def _find_other_schemes(routes: Iterable[RouteFacts]) -> Mapping[str, Schema]:
    found = (route.operation.credentials for route in routes)
    return {
        each.name: {"type": "http", "scheme": "bearer", "description": each.description}
        for each in found
        if each is not None and each.name not in SCHEMES
    }


def _describe(route: RouteFacts, schemas: Schemas) -> dict[str, Any]:
    said = route.operation
    described: dict[str, Any] = {
        "operationId": name_operation(route.method, route.rule),
        "tags": [name_group(route.group)],
        "summary": said.summary,
    }
    if said.description:
        described["description"] = said.description
    if parameters := _describe_parameters(route, schemas):
        described["parameters"] = parameters
    if said.body is not None:
        described["requestBody"] = _describe_body(schemas.find_asked(said.body))
    elif said.form is not None:
        described["requestBody"] = _describe_form(schemas.find_asked(said.form))
    described["responses"] = _describe_answers(route, schemas)
    if schemes := _find_schemes(route):
        described["security"] = [{name: []} for name in schemes]
    return described


def _find_schemes(route: RouteFacts) -> list[str]:
    if route.operation.credentials is not None:
        return [route.operation.credentials.name]
    if route.access.is_public:
        return []
    return [TOKEN] if route.access.is_for_people else [TOKEN, API_KEY]


def _describe_parameters(route: RouteFacts, schemas: Schemas) -> list[Schema]:
    path: list[Schema] = [
        {
            "name": variable["name"],
            "in": "path",
            "required": True,
            "schema": _CONVERTERS[variable["converter"] or "string"],
        }
        for variable in _VARIABLE.finditer(route.rule)
    ]
    query = [] if route.operation.query is None else _describe_query(route.operation.query, schemas)
    headers: Mapping[str, str] = route.operation.headers
    if 304 in route.operation.answers:
        headers = {**headers, "If-None-Match": "The ETag of the version that you have."}
    return [*path, *query, *(_describe_header(name, text) for name, text in headers.items())]


def _describe_query(query: Any, schemas: Schemas) -> list[Schema]:
    members, required = schemas.find_members(query)
    described = []
    for name, schema in members.items():
        text = {"description": schema["description"]} if "description" in schema else {}
        shown = {key: value for key, value in schema.items() if key != "description"}
        described.append({"name": name, "in": "query", "required": name in required, **text, "schema": shown})
    return described


def _describe_header(name: str, text: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _describe_body(schema: Schema) -> Schema:
    return {"required": {"type": "null"} not in schema.get("anyOf", []), "content": {JSON: {"schema": schema}}}


def _describe_form(schema: Schema) -> Schema:
    return {"required": True, "content": {FORM: {"schema": schema}}}


def _describe_answers(route: RouteFacts, schemas: Schemas) -> dict[str, Schema]:
    """What an operation says of a status comes before what holds for all."""
    answers = route.operation.answers
    headers = [REQUEST_ID, *(BUDGET if _is_counted(route) else ()), *([ETAG] if 304 in answers else ())]
    described = {
        str(status): _describe_answer(status, contents, headers, schemas) for status, contents in answers.items()
    }
    error = OpenAiError if route.rule.startswith("/v1/") else ErrorEnvelope
    for status in _list_refusals(route):
        described.setdefault(status, {"$ref": f"#/components/responses/{name_refusal(status, error)}"})
    return dict(sorted(described.items()))


def _list_refusals(route: RouteFacts) -> list[str]:
    said = route.operation
    asks = any(asked is not None for asked in (said.body, said.form, said.query))
    statuses = {"400": asks, "401": bool(_find_schemes(route)), "403": not route.access.is_public}
    statuses["429"] = _is_counted(route)
    return [*(status for status, applies in statuses.items() if applies), "default"]


def _is_counted(route: RouteFacts) -> bool:
    """Whether it draws on a budget."""
    return not route.access.is_public or route.access.budget is not None or route.operation.is_counted


def _describe_answer(status: int, contents: Iterable[Content], headers: Iterable[str], schemas: Schemas) -> Schema:
    told = [content for content in contents if content.media_type != EMPTY]
    usual = UNCHANGED if status == 304 else DONE if told else NOTHING
    described: Schema = {
        "description": " ".join(content.description for content in contents if content.description) or usual,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
    }
    if told:
        described["content"] = {content.media_type: {"schema": _find_schema(content, schemas)} for content in told}
    return described


def _find_schema(content: Content, schemas: Schemas) -> Schema:
    if content.type is not None:
        return schemas.find_answered(content.type)
    return EVENT if content.media_type == EVENT_STREAM else {"type": "string"}


def _describe_refusal(status: str, error: type, schemas: Schemas) -> Schema:
    headers = [REQUEST_ID, *(BUDGET if status != "default" else ()), *([RETRY_AFTER] if status in _LATER else [])]
    return {
        "description": REFUSALS[status],
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {JSON: {"schema": schemas.find_answered(error)}},
    }


_LATER = frozenset({"429", "default"})
"""What is worth trying again, some of it."""
