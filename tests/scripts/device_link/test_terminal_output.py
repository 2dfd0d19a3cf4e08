"""A desktop's terminal, as the protocol's table says it behaves."""

from scripts.device_link.terminal_output import PENDING_BYTES, SMALL_SNAPSHOT_BYTES, SNAPSHOT_BYTES, TerminalOutput


def bind(output: TerminalOutput, now: float = 1000.0, *, snapshot: bool = False, force: bool = False) -> bytes:
    return output.bind(now, includes_snapshot=snapshot, forces_snapshot=force)


def test_output_is_pending_until_somebody_binds_and_then_goes_at_once() -> None:
    output = TerminalOutput()
    assert output.write(b"before") == b""
    assert bind(output) == b"before"
    assert output.write(b"after") == b"after"
    assert output.pending_bytes == 0


def test_a_snapshot_comes_only_if_asked_for_and_nothing_is_pending() -> None:
    output = TerminalOutput()
    output.write(b"before")
    assert bind(output, snapshot=True) == b"before"
    assert bind(output) == b""
    assert bind(output, snapshot=True) == b"before"


def test_a_forced_snapshot_stands_for_what_is_pending() -> None:
    output = TerminalOutput()
    output.write(bytes(100_000))
    assert len(bind(output, force=True)) == SNAPSHOT_BYTES
    assert output.pending_bytes == 0


def test_of_too_much_the_oldest_is_trimmed_and_a_snapshot_follows() -> None:
    output = TerminalOutput()
    output.write(bytes(PENDING_BYTES))
    assert not output.is_trimmed
    output.write(b"x")
    assert (output.is_trimmed, output.pending_bytes) == (True, PENDING_BYTES)
    assert bind(output) == bytes(SNAPSHOT_BYTES - 1) + b"x"
    assert not output.is_trimmed


def test_unbinding_gives_up_what_is_pending_and_keeps_what_follows() -> None:
    output = TerminalOutput()
    output.write(b"before")
    output.unbind()
    output.write(b"after")
    assert output.cleared_bytes == len(b"before")
    assert bind(output) == b"after"


def test_a_lost_link_forgets_the_binding_and_many_make_snapshots_small_and_then_rare() -> None:
    output = TerminalOutput()
    bind(output)
    output.write(bytes(100_000))
    output.note_lost(999)
    output.note_lost(1000)
    assert not output.is_bound
    assert len(bind(output, force=True)) == SMALL_SNAPSHOT_BYTES
    output.note_lost(1000)
    assert bind(output, snapshot=True) == b""
    assert len(bind(output, 1121.0, snapshot=True)) == SNAPSHOT_BYTES
