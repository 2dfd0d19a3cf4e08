"""How a conversation may end: with the user's words, with the results of tools, or with the start of the answer.

What was thought matters there alone: https://platform.claude.com/docs/en/build-with-claude/extended-thinking.
"""

from collections.abc import Iterator
from typing import Any

THOUGHTS = frozenset({"thinking", "redacted_thinking"})

Turn = dict[str, Any]


def trim_end(turns: list[Turn], *, thinks: bool) -> list[Turn]:
    """An answer that the client began: the API refuses white space at its end, and thoughts in it if the model is not
    to think.
    """
    last = turns[-1]
    if last["role"] != "assistant":
        return turns
    blocks = [block for block in last["content"] if thinks or block["type"] not in THOUGHTS]
    if blocks and blocks[-1]["type"] == "text":
        blocks[-1] = blocks[-1] | {"text": blocks[-1]["text"].rstrip()}
    return [*turns[:-1], {**last, "content": blocks}] if blocks else turns[:-1]


def began_without_thought(turns: list[Turn]) -> bool:
    """Whether the model is in the middle of an answer, calling tools, that it began without a thought, or whose
    thoughts the client has lost: it cannot be told to think with a budget until that answer is over.
    """
    answer = list(_current_answer(turns))
    if not answer or turns[-1]["role"] == "assistant":
        return False
    return answer[-1]["content"][0]["type"] not in THOUGHTS


def _current_answer(turns: list[Turn]) -> Iterator[Turn]:
    """The assistant's turns since the user last spoke, the last one first. Results of tools are part of the answer."""
    for turn in reversed(turns):
        if turn["role"] == "assistant":
            yield turn
        elif turn["content"][0]["type"] != "tool_result":
            return
