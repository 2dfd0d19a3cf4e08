"""Schemas that Anthropic takes, out of those that people write."""

from typing import Any

import pydantic
import pytest

from proxy.dialects.anthropic.schemas import narrow

CLOSED: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        CLOSED,
        {"type": "string", "enum": ["a"], "description": "d", "format": "date", "pattern": "^a"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        {"anyOf": [{"type": "null"}, CLOSED], "$defs": {"minimum": {"type": "integer"}}},
        {"const": {"minimum": 1}, "default": {"maxLength": 3}},
    ],
)
def test_what_is_taken_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert narrow(schema) == schema


def test_a_property_may_be_called_like_a_bound() -> None:
    schema = {**CLOSED, "properties": {"minimum": {"type": "number"}, "maxItems": {"type": "string"}}}
    assert narrow(schema) == schema


@pytest.mark.parametrize("open_", [{}, {"additionalProperties": True}, {"additionalProperties": {"type": "string"}}])
def test_every_object_is_closed(open_: dict[str, Any]) -> None:
    inner = {"type": "object", "properties": {}, **open_}
    places = {"properties": {"p": inner}, "items": inner, "anyOf": [inner], "$defs": {"d": inner}}
    narrowed = narrow({"type": "object", **places})
    found = [narrowed, narrowed["properties"]["p"], narrowed["items"], narrowed["anyOf"][0], narrowed["$defs"]["d"]]
    assert [one["additionalProperties"] for one in found] == [False] * 5


def test_a_bound_is_said_in_words() -> None:
    assert narrow({"type": "integer", "minimum": 1, "maximum": 9}) == {
        "type": "integer",
        "description": '("minimum":1,"maximum":9)',
    }
    assert narrow({"type": "array", "minItems": 2, "description": "Towns."})["description"] == 'Towns. ("minItems":2)'


def test_the_schema_that_was_given_does_not_change() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    narrow(schema)
    assert schema == {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}


class Order(pydantic.BaseModel):
    """As a program would write it."""

    count: int = pydantic.Field(ge=1, le=9, description="How many")
    name: str = pydantic.Field(min_length=1, max_length=40)


def test_what_pydantic_writes_is_taken() -> None:
    narrowed = narrow(Order.model_json_schema())
    text = str(narrowed["properties"])
    assert narrowed["additionalProperties"] is False
    assert not {"minimum", "maximum", "minLength", "maxLength"} & {
        member for one in narrowed["properties"].values() for member in one
    }
    assert '"minimum":1' in text
