"""What is known of the request at hand, wherever its code runs: tasks inherit it, logs and the audit log tell it."""

from contextvars import ContextVar
from dataclasses import dataclass

_current: "ContextVar[Circumstances | None]" = ContextVar("circumstances", default=None)


@dataclass(slots=True)
class Circumstances:
    """`address` is the client's, as far as the proxies in between can be trusted; `user_id` is empty until the caller
    is known.
    """

    request_id: str
    address: str
    user_agent: str = ""
    user_id: str = ""


def set_circumstances(circumstances: Circumstances) -> None:
    """For this task and those that it starts."""
    _current.set(circumstances)


def circumstances() -> Circumstances:
    """Of the request at hand; empty ones outside of any."""
    return _current.get() or Circumstances("", "")
