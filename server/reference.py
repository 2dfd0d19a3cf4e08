"""The description of all routes as people read it: what the page at `/docs` shows, made from the document. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.openapi import API_KEY, DONE, TOKEN
from server.schemas import Schema, find_name

METHODS = ("get", "post", "put", "patch", "delete")
ANY = "any JSON"
CREDENTIALS: Mapping[str, str] = {
    TOKEN: "an app token",
    API_KEY: "an API key",
    "deploymentToken": "the deployment token",
}

Notes = Mapping[bool, str]
ASKED: Notes = {True: "required", False: ""}
ANSWERED: Notes = {True: "", False: "not always there"}
"""What is told of a member that is required, or is not."""

_REFUSAL = re.compile(r"(\D+?)(\d{3}|Default)$")
_CODE = re.compile(r"`([^`]+)`")
_BOUNDS: Mapping[str, str] = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "default": "{} if left out",
}


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    is_code: bool


Prose = Sequence[Sequence[Span]]
"""Paragraphs."""


@dataclass(frozen=True, slots=True)
class Member:
    """`kind` is its type in words, `members` are those of the objects that it is, or holds. `note` says whether it has
    to be there, or always is.
    """

    name: str
    kind: str
    note: str
    text: Prose
    members: Sequence["Member"] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What is in a body."""

    media_type: str
    kind: str
    text: Prose
    members: Sequence[Member]


@dataclass(frozen=True, slots=True)
class Reply:
    status: str
    text: Prose
    shapes: Sequence[Shape]


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation. `refusals` are the statuses of errors that are told of for all."""

    id: str
    method: str
    path: str
    summary: str
    text: Prose
    credentials: Sequence[str]
    parameters: Sequence[Member]
    body: Sequence[Shape]
    replies: Sequence[Reply]
    refusals: Sequence[str]


@dataclass(frozen=True, slots=True)
class Refusals:
    """The errors of one envelope: for each status when it comes, and what all of them hold."""

    name: str
    statuses: Sequence[tuple[str, Prose]]
    shapes: Sequence[Shape]


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    name: str
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    version: str
    summary: str
    text: Prose
    groups: Sequence[Group]
    refusals: Sequence[Refusals]


def build_page(document: Mapping[str, Any]) -> Page:
    info, components = document["info"], document["components"]
    reader = _Reader(components["schemas"])
    entries: dict[str, list[Entry]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                entries[methods[method]["tags"][0]].append(reader.read_entry(method.upper(), path, methods[method]))
    return Page(
        title=info["title"],
        version=info["version"],
        summary=info["summary"],
        text=read_prose(info["description"]),
        groups=[Group(name.lower().replace(" ", "-"), name, found) for name, found in entries.items()],
        refusals=reader.read_refusals(components["responses"]),
    )


def read_prose(text: str) -> Prose:
    """Paragraphs stand apart by an empty line; what stands in backticks is code."""
    return [_read_spans(" ".join(paragraph.split())) for paragraph in text.split("\n\n") if paragraph.strip()]


class _Reader:
    """Reads schemas, whose references lead into `components`."""

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components

    def read_entry(self, method: str, path: str, said: Mapping[str, Any]) -> Entry:
        replies = said["responses"]
        return Entry(
            id=said["operationId"],
            method=method,
            path=path,
            summary=said["summary"],
            text=read_prose(said.get("description", "")),
            credentials=[CREDENTIALS.get(name, name) for scheme in said.get("security", ()) for name in scheme],
            parameters=[self._read_parameter(parameter) for parameter in said.get("parameters", ())],
            body=self._read_shapes(said.get("requestBody", {}), ASKED),
            replies=[self.read_reply(status, reply) for status, reply in replies.items() if "$ref" not in reply],
            refusals=[status for status, reply in replies.items() if "$ref" in reply],
        )

    def read_refusals(self, responses: Mapping[str, Any]) -> list[Refusals]:
        """Each is named by its envelope, then its status."""
        found: dict[str, list[Reply]] = {}
        for name, reply in responses.items():
            envelope, status = _REFUSAL.findall(name)[0]
            found.setdefault(envelope, []).append(self.read_reply(status.lower(), reply))
        return [
            Refusals(name, [(reply.status, reply.text) for reply in replies], replies[0].shapes)
            for name, replies in found.items()
        ]

    def read_reply(self, status: str, reply: Mapping[str, Any]) -> Reply:
        """What goes without saying is left out."""
        text = reply["description"] if reply["description"] != DONE else ""
        return Reply(status, read_prose(text), self._read_shapes(reply, ANSWERED))

    def _read_shapes(self, holder: Mapping[str, Any], notes: Notes) -> Sequence[Shape]:
        return [
            self._read_shape(media_type, media["schema"], notes)
            for media_type, media in holder.get("content", {}).items()
        ]

    def _read_shape(self, media_type: str, schema: Schema, notes: Notes) -> Shape:
        text = self._components.get(find_name(schema), schema).get("description", "")
        return Shape(media_type, self._name(schema), read_prose(text), self._list_members(schema, notes, ()))

    def _read_parameter(self, parameter: Mapping[str, Any]) -> Member:
        place = {"path": "in the path", "query": "in the query", "header": "a header"}[parameter["in"]]
        kind = f"{self._name(parameter['schema'])}, {place}{_tell_bounds(parameter['schema'])}"
        text = read_prose(parameter.get("description", ""))
        return Member(parameter["name"], kind, ASKED[parameter["required"]], text)

    def _list_members(self, schema: Schema, notes: Notes, above: tuple[str, ...]) -> Sequence[Member]:
        """Of every object that the schema is, or is made of; those that hold themselves are opened once."""
        found: list[Member] = []
        for name in self._find_objects(schema):
            if name not in above:
                found += self._read_members(self._components[name], notes, (*above, name))
        return found

    def _read_members(self, component: Schema, notes: Notes, above: tuple[str, ...]) -> list[Member]:
        required = component.get("required", ())
        return [
            Member(
                name,
                self._name(schema) + _tell_bounds(schema),
                notes[name in required],
                read_prose(schema.get("description", "")),
                self._list_members(schema, notes, above),
            )
            for name, schema in component.get("properties", {}).items()
        ]

    def _find_objects(self, schema: Schema) -> list[str]:
        if name := find_name(schema):
            return [name]
        inner = [*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")]
        return [name for one in inner if isinstance(one, dict) for name in self._find_objects(one)]

    def _name(self, schema: Schema) -> str:
        if name := find_name(schema):
            return name
        if "anyOf" in schema:
            return " or ".join(dict.fromkeys(self._name(one) for one in schema["anyOf"]))
        if "enum" in schema:
            return " or ".join(_quote(value) for value in schema["enum"])
        if schema.get("type") == "array":
            return f"list of {self._name(schema['items'])}" if "items" in schema else "list"
        if isinstance(schema.get("additionalProperties"), dict):
            return f"object with values of {self._name(schema['additionalProperties'])}"
        form = f" ({schema['format']})" if "format" in schema else ""
        return f"{schema.get('type', ANY)}{form}"


def _read_spans(paragraph: str) -> Sequence[Span]:
    pieces = _CODE.split(paragraph)
    return [Span(text, bool(number % 2)) for number, text in enumerate(pieces) if text]


def _tell_bounds(schema: Schema) -> str:
    """Also those of what it is where it is not null."""
    forms = (schema, *schema.get("anyOf", ()))
    found = [(words, form.get(name)) for form in forms for name, words in _BOUNDS.items()]
    told = [words.format(_quote(bound)) for words, bound in found if bound is not None]
    return "".join(f", {words}" for words in told)


def _quote(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
