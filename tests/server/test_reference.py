"""What the page at `/docs` tells, read off a document."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Union
from uuid import UUID

import msgspec
import pytest

from server.guard import Access
from server.openapi import RouteFacts, build_document
from server.operations import Content, Operation
from server.reference import Entry, Member, Page, Span, build_page, read_prose


class Leaf(msgspec.Struct):
    """A leaf."""

    id: UUID
    price: Decimal


class Tree(msgspec.Struct):
    """Holds `leaves`."""

    leaves: list[Leaf]
    parent: Union["Tree", None] = None
    kind: Literal["big", "small"] = "big"
    size: Annotated[int, msgspec.Meta(ge=1, le=9, description="In metres.")] = 3
    notes: Mapping[str, Leaf] | msgspec.UnsetType = msgspec.UNSET
    other: Any = None
    label: Annotated[str, msgspec.Meta(max_length=20)] | None = None


def build(operation: Operation, method: str = "PUT", **rules: Any) -> Page:
    routes = [
        RouteFacts("/trees/<uuid:tree_id>", method, "big_trees", operation, Access(**rules)),
        RouteFacts("/alone", "GET", "alone", Operation("Be alone"), Access(is_public=True)),
    ]
    return build_page(build_document(routes, "1.0", "http://cloche"))


PAGE = build(Operation("Plant a tree", "First.\n\nThen\nsecond.", body=Tree, answers={200: (Content(Tree),)}))
ENTRY: Entry = PAGE.groups[1].entries[0]


def find(members: Any, name: str) -> Member:
    (found,) = [member for member in members if member.name == name]
    assert isinstance(found, Member)
    return found


def test_operations_stand_in_groups() -> None:
    assert [(group.id, group.name, len(group.entries)) for group in PAGE.groups] == [
        ("alone", "Alone", 1),
        ("big-trees", "Big trees", 1),
    ]
    assert (ENTRY.method, ENTRY.path, ENTRY.summary) == ("PUT", "/trees/{tree_id}", "Plant a tree")
    assert ENTRY.credentials == ["an app token", "an API key"]
    assert PAGE.groups[0].entries[0].credentials == []


def test_a_text_has_paragraphs_and_code() -> None:
    assert ENTRY.text == [[Span("First.", False)], [Span("Then second.", False)]]
    (spans,) = read_prose("Say `a` or `b`")
    assert spans == [Span("Say ", False), Span("a", True), Span(" or ", False), Span("b", True)]
    assert read_prose("") == []


def test_members_are_told_with_their_types_and_bounds() -> None:
    members = ENTRY.body[0].members
    assert {member.name: member.kind for member in members} == {
        "leaves": "list of Leaf",
        "parent": "Tree or null",
        "kind": '"big" or "small", "big" if left out',
        "size": "integer, at least 1, at most 9, 3 if left out",
        "notes": "object with values of Leaf",
        "other": "any JSON",
        "label": "string or null, at most 20 characters",
    }
    assert find(members, "size").text == [[Span("In metres.", False)]]
    assert ENTRY.body[0].text == [[Span("Holds ", False), Span("leaves", True), Span(".", False)]]


def test_what_a_member_holds_is_opened_in_place() -> None:
    members = ENTRY.body[0].members
    for name in ("leaves", "notes"):
        assert [inner.name for inner in find(members, name).members] == ["id", "price"]
    assert find(find(members, "leaves").members, "id").kind == "string (uuid)"


def test_what_holds_itself_is_opened_once() -> None:
    assert find(ENTRY.body[0].members, "parent").members == []


def test_what_is_asked_may_be_required_and_what_is_answered_may_be_missing() -> None:
    asked, answered = ENTRY.body[0].members, ENTRY.replies[0].shapes[0].members
    assert {member.name for member in asked if member.note == "required"} == {"leaves"}
    assert {member.name for member in answered if member.note == "not always there"} == {"notes"}


def test_parameters_say_where_they_are() -> None:
    (parameter,) = ENTRY.parameters
    assert (parameter.name, parameter.kind, parameter.note) == ("tree_id", "string (uuid), in the path", "required")


def test_errors_that_all_share_are_told_once() -> None:
    assert ENTRY.refusals == ["400", "401", "403", "429", "default"]
    shipped, openai = PAGE.refusals
    assert [status for status, _ in shipped.statuses] == ["400", "401", "403", "429", "default"]
    assert find(shipped.shapes[0].members, "message").kind == "string"
    assert find(openai.shapes[0].members, "error").members


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_every_method_is_shown(method: str) -> None:
    assert build(Operation("Do"), method).groups[1].entries[0].method == method
