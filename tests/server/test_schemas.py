"""Schemas: what comes in and what goes out of the same types."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from server.schemas import Schemas


class Inner(msgspec.Struct):
    amount: Decimal = Decimal(0)


class Same(msgspec.Struct):
    word: Literal["a", "b"]


class Outer(msgspec.Struct):
    """Both ways."""

    inner: Inner
    same: Same
    inners: list[Inner] = []
    seen: int | UnsetType = UNSET


class OnlyAsked(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(ge=1, description="How many.")] = 20
    same: Same | None = None


class Anything(msgspec.Struct):
    details: Mapping[str, object]


class Ann(msgspec.Struct, tag="ann"):
    inner: Inner


class Bob(msgspec.Struct, tag="bob"):
    same: Same


def refer(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def test_a_decimal_comes_as_a_number_or_text_and_goes_as_a_number() -> None:
    schemas = Schemas([Decimal], [Decimal])
    asked = schemas.find_asked(Decimal)
    assert [one["type"] for one in asked["anyOf"]] == ["number", "string"]
    assert schemas.find_answered(Decimal) == {"type": "number"}


def test_what_has_a_default_may_be_left_out_and_is_always_told() -> None:
    schemas = Schemas([Outer], [Outer]).components
    assert schemas["Outer"]["required"] == ["inner", "same"]
    assert schemas["Outer"]["properties"]["inners"]["default"] == []
    assert schemas["OuterAnswer"]["required"] == ["inner", "same", "inners"]
    assert "default" not in schemas["OuterAnswer"]["properties"]["inners"]


def test_a_type_that_goes_both_ways_has_two_schemas_where_it_or_what_it_holds_differs() -> None:
    schemas = Schemas([Outer], [Outer])
    assert set(schemas.components) == {"Outer", "OuterAnswer", "Inner", "InnerAnswer", "Same"}
    assert (schemas.find_asked(Outer), schemas.find_answered(Outer)) == (refer("Outer"), refer("OuterAnswer"))
    answered = schemas.components["OuterAnswer"]["properties"]
    assert (answered["inner"], answered["inners"]["items"]) == (refer("InnerAnswer"), refer("InnerAnswer"))
    assert schemas.components["Outer"]["properties"]["inner"] == refer("Inner")


def test_a_type_that_holds_one_that_differs_differs() -> None:
    class Holder(msgspec.Struct):
        inner: Inner

    schemas = Schemas([Holder], [Holder])
    assert schemas.components["HolderAnswer"]["properties"]["inner"] == refer("InnerAnswer")
    assert schemas.components["Holder"]["properties"]["inner"] == refer("Inner")


def test_what_goes_one_way_alone_keeps_its_name() -> None:
    assert set(Schemas([], [Outer]).components) == {"Outer", "Inner", "Same"}
    assert set(Schemas([Outer], []).components) == {"Outer", "Inner", "Same"}


def test_a_choice_between_types_names_those_that_it_chooses_from() -> None:
    schemas = Schemas([Ann | Bob], [Ann | Bob])
    assert schemas.find_asked(Ann | Bob)["discriminator"]["mapping"]["ann"] == refer("Ann")["$ref"]
    assert schemas.find_answered(Ann | Bob)["discriminator"]["mapping"]["ann"] == refer("AnnAnswer")["$ref"]
    assert refer("AnnAnswer") in schemas.find_answered(Ann | Bob)["anyOf"]


def test_the_members_of_a_query_are_told_and_it_has_no_schema_itself() -> None:
    schemas = Schemas([], [], [OnlyAsked])
    members, required = schemas.find_members(OnlyAsked)
    assert (members["limit"]["default"], members["limit"]["description"], required) == (20, "How many.", frozenset())
    assert set(schemas.components) == {"Same"}


def test_an_object_of_any_kind_is_any_json() -> None:
    assert "type" not in Schemas([], [Anything]).components["Anything"]["properties"]["details"]["additionalProperties"]


def test_two_types_with_one_name_are_a_fault() -> None:
    other: Any = msgspec.defstruct("Same", [("word", int)], module="elsewhere")
    with pytest.raises(ValueError, match=r"names of their own: elsewhere\.Same"):
        Schemas([Same], [other])
    answer: Any = msgspec.defstruct("InnerAnswer", [("word", int)])
    with pytest.raises(ValueError, match="InnerAnswer"):
        Schemas([Inner], [Inner, answer])


def test_a_private_name_is_a_fault() -> None:
    hidden: Any = msgspec.defstruct("_Hidden", [("word", int)])
    with pytest.raises(ValueError, match="_Hidden"):
        Schemas([hidden], [])
