"""The queue by which a desktop's terminals leave."""

import trio
import trio.testing

from scripts.device_link.link import Link, open_link
from scripts.device_link.terminal_frames import build_frame
from scripts.device_link.terminals import QUEUE_BYTES, Terminals
from tests.scripts.device_link.relay_stand_in import Side, open_stand_in


def bind(terminals: Terminals, session_id: str) -> None:
    terminals.bind(session_id, includes_snapshot=False, forces_snapshot=False)


async def listen(side: Side) -> None:
    await side.hear_away()


async def run_until_empty(terminals: Terminals, link: Link) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminals.run, link)
        await terminals.drain()
        nursery.cancel_scope.cancel()


async def test_output_leaves_in_the_order_in_which_it_was_written_whatever_its_terminal() -> None:
    async with open_stand_in(listen) as (url, heard), open_link(url, {}) as link:
        terminals = Terminals()
        for session_id in ("a", "b"):
            bind(terminals, session_id)
        for number in range(5):
            terminals.write_nowait("ab"[number % 2], b"%d" % number)
        await run_until_empty(terminals, link)
        with trio.fail_after(5):
            while len(heard) < 5:
                await trio.sleep(0.005)
        assert heard == [build_frame("ab"[number % 2], b"%d" % number) for number in range(5)]


async def test_who_writes_much_waits_until_it_has_left_or_the_link_is_down() -> None:
    terminals = Terminals()
    bind(terminals, "a")
    written = trio.Event()

    async def write() -> None:
        await terminals.write("a", bytes(2 * QUEUE_BYTES))
        written.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert not written.is_set()
        terminals.end()
    assert terminals.lost_bytes >= 2 * QUEUE_BYTES
    await terminals.write("a", bytes(2 * QUEUE_BYTES))  # nobody waits for a link that is down
    assert terminals.open("a").pending_bytes == 2 * QUEUE_BYTES
