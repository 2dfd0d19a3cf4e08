"""How conversations with Anthropic may end."""

from typing import Any

import pytest

from proxy.dialects.anthropic.endings import began_without_thought, trim_end

TEXT = {"type": "text", "text": "Sure. \n"}
THOUGHT = {"type": "thinking", "thinking": "Hm ", "signature": "s"}
CALL = {"type": "tool_use", "id": "a"}
RESULT = {"type": "tool_result", "tool_use_id": "a"}


def user(*blocks: dict[str, str]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: dict[str, str]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def test_an_answer_that_the_client_began_ends_without_white_space() -> None:
    turns = [user(TEXT), assistant(TEXT), user(TEXT), assistant(TEXT, TEXT)]
    assert trim_end(turns, thinks=False) == [*turns[:3], assistant(TEXT, TEXT | {"text": "Sure."})]
    assert trim_end(turns[:3], thinks=False) == turns[:3]


def test_thoughts_stay_in_it_only_if_the_model_thinks_on() -> None:
    turns = [user(TEXT), assistant(THOUGHT, CALL)]
    assert trim_end(turns, thinks=True) == turns
    assert trim_end(turns, thinks=False) == [user(TEXT), assistant(CALL)]
    assert trim_end([user(TEXT), assistant(THOUGHT)], thinks=False) == [user(TEXT)]


@pytest.mark.parametrize(
    ("turns", "began"),
    [
        ([user(TEXT)], False),
        ([user(TEXT), assistant(CALL), user(RESULT)], True),
        ([user(TEXT), assistant(TEXT, CALL), user(RESULT, TEXT)], True),
        ([user(TEXT), assistant(THOUGHT, CALL), user(RESULT)], False),
        ([user(TEXT), assistant(THOUGHT, CALL), user(RESULT), assistant(CALL), user(RESULT)], False),
        ([user(TEXT), assistant(CALL), user(RESULT), assistant(TEXT), user(TEXT)], False),
        ([user(TEXT), assistant(CALL)], False),
        ([assistant(CALL), user(RESULT)], True),
    ],
)
def test_an_answer_goes_on_as_it_began(turns: list[dict[str, Any]], began: bool) -> None:
    assert began_without_thought(turns) is began
