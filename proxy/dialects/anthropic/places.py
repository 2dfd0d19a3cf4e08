"""Where in its answer a Claude had a thought. A thought between words or calls must come back exactly there:
https://platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows.

What clients keep has the thoughts, the text and the calls each in a list of their own, so the place goes with the
thought, as its id. A thought with which an answer begins needs none.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from proxy.chat import Reasoning

_PLACE = re.compile(r"after_(\d{1,8})_(\d{1,4})", re.ASCII)

Block = dict[str, Any]


@dataclass(slots=True)
class Placed:
    """A thought and what followed it directly, and how many characters of text and calls came before."""

    characters: int
    calls: int
    blocks: list[Block] = field(default_factory=list)


def name_place(characters: int, calls: int) -> str | None:
    return f"after_{characters}_{calls}" if characters or calls else None


def read_place(reasoning: Reasoning) -> Placed | None:
    found = _PLACE.fullmatch(reasoning.id or "")
    return None if found is None else Placed(int(found[1]), int(found[2]))


def put_back(blocks: list[Block], thoughts: list[Placed]) -> list[Block]:
    """`blocks` are the rest of the answer, its texts before its calls; a text that a thought interrupted is cut there.
    """
    waiting = sorted(thoughts, key=lambda placed: (placed.calls, placed.characters))
    built: list[Block] = []
    said = called = 0
    for block in blocks:
        if block["type"] == "text":
            built += _interrupt(block, said, [placed for placed in waiting if placed.calls <= called])
            said += len(block["text"])
            waiting = [placed for placed in waiting if placed.calls > called or placed.characters >= said]
        elif block["type"] == "tool_use":
            built += [one for placed in waiting if placed.calls <= called for one in placed.blocks]
            waiting = [placed for placed in waiting if placed.calls > called]
            called += 1
            built.append(block)
        else:
            built.append(block)
    return built + [one for placed in waiting for one in placed.blocks]


def _interrupt(block: Block, said: int, thoughts: list[Placed]) -> list[Block]:
    """A text with the thoughts that came in it. White space alone is no block."""
    text, start = block["text"], 0
    built: list[Block] = []
    for placed in thoughts:
        at = max(placed.characters - said, start)
        if at < len(text):
            built += [*_as_blocks(text[start:at], {"type": "text"}), *placed.blocks]
            start = at
    return built + _as_blocks(text[start:], block)


def _as_blocks(text: str, like: Block) -> list[Block]:
    return [{**like, "text": text}] if text.strip() else []
