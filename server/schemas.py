"""The JSON Schemas of all types that clients send or get. Pure.

Made by msgspec from the types themselves. A type that goes both ways has two schemas where they differ: what comes in
may leave out what has a default, and write a Decimal as a number or in a string; what goes out has every member that is
not UNSET, and a Decimal is a number.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"

_DECIMAL = {"type": "string", "format": "decimal"}
_DECIMAL_TEXT = {**_DECIMAL, "pattern": r"^[+-]?[0-9]+(\.[0-9]+)?$"}
_ASKED_DECIMAL: Schema = {"anyOf": [{"type": "number"}, _DECIMAL_TEXT]}
_ANSWERED_DECIMAL: Schema = {"type": "number"}


class Schemas:
    """`components` are those that have names. `queries` are Structs, whose members are parameters: they have none.

    Two types with one name are a fault: ValueError.
    """

    def __init__(self, asked: Iterable[Any], answered: Iterable[Any], queries: Iterable[Any] = ()) -> None:
        asked_types, answered_types, query_types = _index(asked), _index(answered), _index(queries)
        types = asked_types | answered_types | query_types
        schemas, found = msgspec.json.schema_components(
            types.values(), schema_hook=_describe_other, ref_template=REFERENCE
        )
        of_type: dict[str, Schema] = dict(zip(types, schemas, strict=True))
        ways_in = {name: _accept(schema) for name, schema in found.items()}
        ways_out = {name: _tell(schema) for name, schema in found.items()}
        self._queries = {key: ways_in[find_name(of_type[key])] for key in query_types}
        taken = _find_reached([*(of_type[key] for key in asked_types), *self._queries.values()], ways_in)
        told = _find_reached([of_type[key] for key in answered_types], ways_out)
        renamed = {name: f"{name}Answer" for name in _find_different(ways_in, ways_out) & taken & told}
        _check_names([*found, *renamed.values()])
        references = {REFERENCE.format(name=name): REFERENCE.format(name=new) for name, new in renamed.items()}
        self.components: Mapping[str, Schema] = {name: ways_in[name] for name in taken} | {
            renamed.get(name, name): _rename(ways_out[name], references) for name in told
        }
        self._asked: Mapping[str, Schema] = {key: _accept(of_type[key]) for key in asked_types}
        self._answered: Mapping[str, Schema] = {
            key: _rename(_tell(of_type[key]), references) for key in answered_types
        }

    def find_asked(self, type_: Any) -> Schema:
        return self._asked[repr(type_)]

    def find_answered(self, type_: Any) -> Schema:
        return self._answered[repr(type_)]

    def find_members(self, query: Any) -> tuple[Mapping[str, Schema], frozenset[str]]:
        """The members of a query, and which of them are required."""
        whole = self._queries[repr(query)]
        return whole["properties"], frozenset(whole["required"])


def find_name(schema: Schema) -> str:
    """Of the component that a schema refers to; empty if it is none."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _index(types: Iterable[Any]) -> dict[str, Any]:
    """By their names, for not every type can be hashed."""
    return {repr(type_): type_ for type_ in types if type_ is not None}


def _describe_other(type_: type) -> Schema:
    """An object of any kind is any JSON. For any other type that msgspec does not know it wants this error, and says
    which type it is: https://jcristharif.com/msgspec/api.html#msgspec.json.schema_components.
    """
    if type_ is object:
        return {"description": "Any JSON."}
    raise NotImplementedError


def _check_names(names: Iterable[str]) -> None:
    """msgspec writes the module before a name that two types have."""
    listed = list(names)
    wrong = [name for name in listed if "." in name or name.startswith("_") or listed.count(name) > 1]
    if wrong:
        raise ValueError(f"types that clients see need public names of their own: {', '.join(sorted(set(wrong)))}")


def _accept(schema: Schema) -> Schema:
    return cast(Schema, _replace(schema, _ASKED_DECIMAL))


def _tell(schema: Schema) -> Schema:
    """A member with a default is always there; what is neither required nor has one may be UNSET."""
    shown = cast(Schema, _replace(schema, _ANSWERED_DECIMAL))
    if "properties" not in shown:
        return shown
    required = {*shown["required"], *(name for name, member in shown["properties"].items() if "default" in member)}
    members = {
        name: {key: value for key, value in member.items() if key != "default"}
        for name, member in shown["properties"].items()
    }
    return {**shown, "properties": members, "required": [name for name in members if name in required]}


def _replace(schema: Any, decimal: Schema) -> Any:
    """`decimal` for what msgspec says of a Decimal."""
    if isinstance(schema, dict):
        if _DECIMAL.items() <= schema.items():
            return {**{name: value for name, value in schema.items() if name not in _DECIMAL}, **decimal}
        return {name: _replace(value, decimal) for name, value in schema.items()}
    return [_replace(item, decimal) for item in schema] if isinstance(schema, list) else schema


def _find_reached(schemas: Iterable[Schema], components: Mapping[str, Schema]) -> set[str]:
    """The names of all components that the schemas lead to."""
    reached: set[str] = set()
    waiting = [name for schema in schemas for name in _find_references(schema)]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _find_references(components[name])
    return reached


def _find_different(some: Mapping[str, Schema], others: Mapping[str, Schema]) -> set[str]:
    """The names of those that differ, or lead to one that does."""
    return {
        name for name in some if any(some[one] != others[one] for one in {name, *_find_reached([some[name]], some)})
    }


def _find_references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        own = [find_name(schema)] if "$ref" in schema else []
        return own + [name for value in schema.values() for name in _find_references(value)]
    return [name for item in schema for name in _find_references(item)] if isinstance(schema, list) else []


def _rename(schema: Any, references: Mapping[str, str]) -> Any:
    """Also where a discriminator names the components that it chooses from."""
    if isinstance(schema, dict):
        return {name: _rename(value, references) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_rename(item, references) for item in schema]
    return references.get(schema, schema) if isinstance(schema, str) else schema
