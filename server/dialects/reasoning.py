"""How clients ask a model to think, and how they bring back what it thought. Pure.

The shapes are OpenRouter's (https://openrouter.ai/docs/use-cases/reasoning-tokens), which Responses' `reasoning` is a
part of, and Anthropic's `thinking` (https://platform.claude.com/docs/en/build-with-claude/extended-thinking).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.chat import Part, ProviderItem, Reasoning
from server.dialects.bounds import MAX_TOKENS, check_name, check_range
from server.errors import RequestInvalid

ANTHROPIC = "anthropic-claude-v1"
SUMMARIES = frozenset({"auto", "concise", "detailed", "none"})

_SAID_ELSEWHERE = frozenset({"message", "function_call", "function_call_output", "item_reference"})
"""Items of Responses that are a client's own words, or name what another client stored with the same provider."""


class WireReasoning(msgspec.Struct):
    effort: str | None = None
    max_tokens: int | None = None
    summary: str | None = None
    exclude: bool | None = None
    enabled: bool | None = None


class WireThinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class WireDetail(msgspec.Struct):
    """One entry of `reasoning_details`. Which members are there says more than its `type`: SDKs join entries."""

    type: str | None = None
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    id: str | None = None
    format: str | None = None
    index: int | None = None


class WireItem(msgspec.Struct):
    """One entry of `provider_items`. `after_reasoning` says how many blocks of reasoning came before it."""

    format: str
    item: dict[str, Any]
    after_reasoning: int | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """What Sampling says of thinking."""

    effort: str | None = None
    tokens: int | None = None
    summary: str | None = None


def read_thinking_options(
    effort: str | None, reasoning: WireReasoning | None, thinking: WireThinking | None
) -> Thinking:
    """OpenAI's `reasoning_effort`, then `reasoning`, then `thinking`: the first that speaks of a thing decides it."""
    sources = [Thinking(check_name(effort, "reasoning_effort")), _read_reasoning(reasoning), _read_thinking(thinking)]
    tokens = next((source.tokens for source in sources if source.tokens is not None), None)
    summary = next((source.summary for source in sources if source.summary is not None), None)
    return Thinking(next((source.effort for source in sources if source.effort), None), tokens, summary)


def _read_reasoning(reasoning: WireReasoning | None) -> Thinking:
    """`enabled` alone asks for what OpenRouter makes of it, a medium effort."""
    if reasoning is None:
        return Thinking()
    check_range(reasoning.max_tokens, 0, MAX_TOKENS, "reasoning.max_tokens")
    if reasoning.summary is not None and reasoning.summary not in SUMMARIES:
        raise RequestInvalid(f"reasoning.summary: one of {', '.join(sorted(SUMMARIES))}")
    effort, tokens = check_name(reasoning.effort, "reasoning.effort"), reasoning.max_tokens
    if reasoning.enabled is False:
        effort, tokens = None, 0
    elif reasoning.enabled and not effort and tokens is None:
        effort = "medium"
    return Thinking(effort, tokens, "none" if reasoning.exclude else reasoning.summary)


def _read_thinking(thinking: WireThinking | None) -> Thinking:
    """Without a budget the model is to decide, which Anthropic does with a high effort."""
    if thinking is None:
        return Thinking()
    check_range(thinking.budget_tokens, 1, MAX_TOKENS, "thinking.budget_tokens")
    summary = {None: None, "omitted": "none", "summarized": "auto"}.get(thinking.display, "")
    if summary == "":
        raise RequestInvalid("thinking.display: 'summarized' or 'omitted'")
    match thinking.type:
        case "disabled":
            return Thinking(tokens=0)
        case "enabled" | "adaptive":
            effort = "high" if thinking.budget_tokens is None else None
            return Thinking(effort, thinking.budget_tokens, summary)
    raise RequestInvalid("thinking.type: 'enabled', 'disabled' or 'adaptive'")


def read_thoughts(details: Sequence[WireDetail], items: Sequence[WireItem], where: str) -> list[Part]:
    """What an assistant's message brings back, in the order in which it came. Raises RequestInvalid."""
    blocks = [(block.number, block.join()) for block in _read_blocks(details, where)]
    found: list[tuple[float, int, Part]] = [(number, 1, part) for number, part in blocks if _says(part)]
    for item, part in zip(items, read_items(items, where), strict=True):
        found.append((float("inf") if item.after_reasoning is None else item.after_reasoning, 0, part))
    return [part for _, _, part in sorted(found, key=lambda one: one[:2])]


def read_thinking_part(part: dict[str, Any]) -> Reasoning | None:
    """Anthropic's own content blocks; None for any other part."""
    match part:
        case {"type": "thinking", "thinking": str(text)}:
            signature = part.get("signature")
            return Reasoning(text, ANTHROPIC, signature=signature if isinstance(signature, str) else None)
        case {"type": "redacted_thinking", "data": str(data)}:
            return Reasoning(format=ANTHROPIC, encrypted=data)
    return None


def _says(part: Reasoning) -> bool:
    return bool(part.text or part.signature or part.encrypted or part.id)


def read_items(items: Sequence[WireItem], where: str) -> list[ProviderItem]:
    return [_read_item(item, f"{where}.provider_items[{number}]") for number, item in enumerate(items)]


def _read_item(item: WireItem, where: str) -> ProviderItem:
    """Each provider's dialect says which of its items it takes back; what none may take is refused here."""
    type_ = item.item.get("type")
    if "role" in item.item or (isinstance(type_, str) and type_ in _SAID_ELSEWHERE):
        raise RequestInvalid(f"{where}: only what a provider made or ran itself; say the rest in messages")
    if isinstance(type_, str) and type_.endswith("_output") and _names_outside(item.item):
        raise RequestInvalid(f"{where}: neither files by id nor remote addresses are fetched; inline the data")
    check_name(item.format, f"{where}.format")
    return ProviderItem(item.format, item.item)


def _names_outside(item: object) -> bool:
    """Whether a result that a client gives names something that the provider would have to fetch."""
    waiting = [item]
    while waiting:
        match waiting.pop():
            case {"file_id": str()} | {"file_url": str()}:
                return True
            case {"image_url": str(url)} if not url.startswith("data:"):
                return True
            case dict() as members:
                waiting += members.values()
            case list() as members:
                waiting += members
    return False


@dataclass(slots=True)
class _Block:
    """The entries that speak of one block: its pieces, if nobody joined them, and its seal."""

    number: int
    index: int | None
    words: list[str] = field(default_factory=list)
    is_summary: bool | None = None
    format: str = ""
    id: str | None = None
    signature: str | None = None
    encrypted: str | None = None

    def takes(self, detail: WireDetail, is_summary: bool | None) -> bool:
        is_of_another_kind = None not in {is_summary, self.is_summary} and is_summary != self.is_summary
        is_another = (detail.id or self.id) != (self.id or detail.id)
        is_sealed = bool(self.signature or self.encrypted) and bool(detail.text or detail.summary)
        is_sealed_twice = bool(self.signature and detail.signature) or bool(self.encrypted and detail.data)
        return not (is_of_another_kind or is_another or is_sealed or is_sealed_twice)

    def add(self, detail: WireDetail, words: str | None, is_summary: bool | None) -> None:
        if words:
            self.words.append(words)
        self.is_summary = is_summary if self.is_summary is None else self.is_summary
        self.format = self.format or detail.format or ""
        self.id = self.id or detail.id
        self.signature = self.signature or detail.signature or None
        self.encrypted = self.encrypted or detail.data or None

    def join(self) -> Reasoning:
        text = "".join(self.words)
        return Reasoning(text, self.format, self.id, self.signature, self.encrypted, bool(self.is_summary))


def _read_blocks(details: Sequence[WireDetail], where: str) -> list[_Block]:
    """Entries that follow each other with the same index belong to one block."""
    blocks: list[_Block] = []
    for detail in details:
        check_name(detail.format, f"{where}.reasoning_details.format")
        if detail.text and detail.summary:
            _add(blocks, msgspec.structs.replace(detail, text=None, data=None, signature=None), detail.summary, True)
            _add(blocks, msgspec.structs.replace(detail, summary=None), detail.text, False)
        else:
            kind = bool(detail.summary) if detail.text or detail.summary else None
            _add(blocks, detail, detail.text or detail.summary, kind)
    return blocks


def _add(blocks: list[_Block], detail: WireDetail, words: str | None, is_summary: bool | None) -> None:
    last = blocks[-1] if blocks else None
    is_same_index = last is not None and detail.index is not None and last.index == detail.index
    if last is None or not is_same_index or not last.takes(detail, is_summary):
        number = 0 if last is None else last.number + (0 if is_same_index else 1)
        last = _Block(number, detail.index)
        blocks.append(last)
    last.add(detail, words, is_summary)
