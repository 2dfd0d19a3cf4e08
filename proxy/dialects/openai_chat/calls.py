"""Tool calls in OpenAI's chat dialect, numbered from 0 whatever a server does with their index and their id.

OpenAI counts with `index` and tells id and name once; others send whole calls without an index, all with index 0, an
empty id or none, or repeat id and name in every piece.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec

from proxy.answer import NOT_JSON
from proxy.events import ToolCallDelta

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
    id: str | int | None = None
    function: WireFunction | None = None
    custom: WireFunction | None = None
    extra_content: Any = None


@dataclass(slots=True)
class _Call:
    number: int
    id: str
    has_name: bool = False
    is_whole: bool = False
    """Whether its arguments came in one piece: what follows under its index is another call."""


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
        arguments = function.arguments if isinstance(function.arguments, str) else _encode_arguments(function)
        piece = _Piece(_text(wire.id), wire.index, function.name or "", arguments)
        call = None if is_whole else self._find(piece)
        is_new = call is None
        if call is None:
            if len(self._calls) == MAX_CALLS:
                return None
            call = self._start(piece)
        name = None if call.has_name else piece.name or None
        call.has_name = call.has_name or name is not None
        signature = read_signature(wire.extra_content)
        return ToolCallDelta(call.number, call.id if is_new else None, name, arguments, signature)

    def _find(self, piece: "_Piece") -> _Call | None:
        """The call that a piece goes on with. Another id together with a name is another call, whatever its index."""
        known = self._by_id.get(piece.id) if piece.id else None
        if piece.index is None:
            return known or (None if piece.id or piece.name or not self._calls else self._calls[-1])
        current = self._by_index.get(piece.index)
        if current is None:
            return None if piece.name else known
        if piece.id and piece.name and piece.id != current.id:
            return known
        return None if _is_another(piece, current) else current

    def _start(self, piece: "_Piece") -> _Call:
        is_free = piece.id and piece.id not in self._by_id
        call = _Call(len(self._calls), piece.id if is_free else self._make_id(), is_whole=piece.is_whole)
        self._calls.append(call)
        self._by_id[call.id] = call
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a call, as far as it says which call it belongs to."""

    id: str
    index: int | None
    name: str
    arguments: str

    @property
    def is_whole(self) -> bool:
        """Whether it is a call by itself."""
        if not self.name or not self.arguments.endswith("}"):
            return False
        try:
            return isinstance(msgspec.json.decode(self.arguments), dict)
        except NOT_JSON:
            return False


def _is_another(piece: _Piece, current: _Call) -> bool:
    """Whole calls without ids, all with the same index, as Gemini's servers of this dialect have sent them."""
    return piece.id in {"", current.id} and current.is_whole and piece.is_whole


def _text(id_: str | int | None) -> str:
    """Some servers number their calls, from 0."""
    return "" if id_ is None else str(id_)


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
