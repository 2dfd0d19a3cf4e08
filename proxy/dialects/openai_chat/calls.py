"""Tool calls in OpenAI's chat dialect, numbered from 0 whatever a server does with their index and their id.

OpenAI counts with `index` and tells id and name once; others send whole calls without an index, all with index 0, an
empty id or none, or repeat id and name in every piece.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec

from proxy.chat import ToolCallDelta

MAX_CALLS = 1000
"""More calls in one answer are a server gone wrong, and every one is remembered here."""


def make_call_id() -> str:
    """For a call without an id: no two have the same, in no turn of a conversation."""
    return f"call_{uuid4().hex[:24]}"


class WireFunction(msgspec.Struct):
    name: str | None = None
    arguments: Any = None
    """A text; some servers write an object."""
    input: str | None = None
    """Of a custom tool, which takes any text."""


class WireCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None
    custom: WireFunction | None = None
    extra_content: Any = None


@dataclass(slots=True)
class _Call:
    number: int
    id: str
    has_name: bool = False


class CallNumbers:
    """The calls of one answer so far."""

    def __init__(self, make_id: Callable[[], str] = make_call_id) -> None:
        self._make_id = make_id
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def read(self, wire: WireCall, *, is_whole: bool) -> ToolCallDelta | None:
        """A piece of a call, or a whole one. None if there are too many."""
        function = wire.function or wire.custom or WireFunction()
        call = None if is_whole else self._find(wire, function)
        is_new = call is None
        if call is None:
            if len(self._calls) == MAX_CALLS:
                return None
            call = self._start(wire)
        name = None if call.has_name else function.name or None
        call.has_name = call.has_name or name is not None
        arguments = function.arguments if isinstance(function.arguments, str) else _encode_arguments(function)
        signature = read_signature(wire.extra_content)
        return ToolCallDelta(call.number, call.id if is_new else None, name, arguments, signature)

    def _find(self, wire: WireCall, function: WireFunction) -> _Call | None:
        """The call that a piece goes on with. Another id together with a name is another call, whatever its index."""
        known = self._by_id.get(wire.id) if wire.id else None
        if wire.index is None:
            return known or (None if wire.id or function.name or not self._calls else self._calls[-1])
        current = self._by_index.get(wire.index)
        if current is None:
            return None if function.name else known
        is_other = wire.id and function.name and wire.id != current.id
        return known if is_other else current

    def _start(self, wire: WireCall) -> _Call:
        is_free = wire.id and wire.id not in self._by_id
        call = _Call(len(self._calls), wire.id if wire.id and is_free else self._make_id())
        self._calls.append(call)
        self._by_id[call.id] = call
        if wire.index is not None:
            self._by_index[wire.index] = call
        return call


def _encode_arguments(function: WireFunction) -> str:
    if function.arguments is None:
        return function.input or ""
    return msgspec.json.encode(function.arguments).decode()


def read_signature(extra: object) -> str | None:
    """https://ai.google.dev/gemini-api/docs/thought-signatures, in OpenAI's dialect."""
    match extra:
        case {"google": {"thought_signature": str(signature)}} if signature:
            return signature
    return None
