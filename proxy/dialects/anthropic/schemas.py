"""JSON Schemas as Anthropic takes them where it keeps to them strictly: a smaller language than JSON Schema.

Every object must be closed, and bounds of numbers, texts and lists are refused. A bound that is taken away is said in
the description instead, as Anthropic's own SDKs do: the model reads it, and whoever asked checks the answer anyway.
https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from collections.abc import Mapping
from typing import Any

import msgspec

Schema = dict[str, Any]

_BOUNDS = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    }
)
_OF_ONE = frozenset({"items", "not", "additionalProperties"})
_OF_MANY = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
_BY_NAME = frozenset({"properties", "$defs", "definitions"})


def narrow(schema: Mapping[str, object]) -> Schema:
    """The same schema without what would be refused. Its depth has been bounded where it came in."""
    narrowed: Schema = {}
    bounds: Schema = {}
    for name, value in schema.items():
        if name in _BOUNDS and not (name == "minItems" and value in {0, 1}):
            bounds[name] = value
        else:
            narrowed[name] = _narrow_member(name, value)
    if bounds:
        narrowed["description"] = _describe(schema.get("description"), bounds)
    if _is_object(schema) and narrowed.get("additionalProperties") is not False:
        narrowed["additionalProperties"] = False
    return narrowed


def _narrow_member(name: str, value: object) -> object:
    if name in _OF_ONE and isinstance(value, dict):
        return narrow(value)
    if name in _OF_MANY and isinstance(value, list):
        return [narrow(one) if isinstance(one, dict) else one for one in value]
    if name in _BY_NAME and isinstance(value, dict):
        return {key: narrow(one) if isinstance(one, dict) else one for key, one in value.items()}
    return value


def _is_object(schema: Mapping[str, object]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _describe(description: object, bounds: Schema) -> str:
    said = f"{description} " if isinstance(description, str) and description else ""
    return f"{said}({msgspec.json.encode(bounds).decode()[1:-1]})"
