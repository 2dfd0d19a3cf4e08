"""How long, and how much, a client may keep us waiting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines count from the last progress, not from the start, unless their name says total."""

    write_deadline_seconds: float = 30.0
    # From the first byte of a request head to its last: a head that drips in holds a connection, nothing more.
    head_deadline_seconds: float = 30.0
    # A client that pipelines more than this while it is being answered is not one of ours.
    pipelined_bytes: int = 64 * 1024
    # After an early answer: the client must find it before our kernel resets what it still uploads.
    linger_total_seconds: float = 30.0
    linger_silence_seconds: float = 5.0
    linger_bytes: int = 64 * 1024 * 1024
    # The same when the whole server wants to leave.
    linger_stopping_seconds: float = 1.0
    # After our close frame, for the client's own.
    echo_seconds: float = 5.0
    # close() does not wait for the network: this is a bound against surprises.
    close_seconds: float = 5.0
