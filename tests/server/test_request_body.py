"""How much of a body waits in memory: held back unless its route collects, and dropped when nobody reads on."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from werkzeug.exceptions import RequestEntityTooLarge

from server.request_body import ROOM_BYTES, RequestBody

PIECE = b"x" * 65536


async def fill(body: RequestBody, pieces: int) -> None:
    """As a connection does."""
    for _ in range(pieces):
        body.append(PIECE)
        await body.wait_room()
    body.set_complete()


async def test_a_body_that_is_read_in_pieces_never_has_much_waiting() -> None:
    body, most, read = RequestBody(None, None), 0, 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, body, 50)
        await wait_all_tasks_blocked()
        async for piece in body:
            most, read = max(most, len(piece)), read + len(piece)
    assert (read, most <= ROOM_BYTES) == (50 * len(PIECE), True)


async def test_a_body_of_which_nobody_knows_what_it_is_for_waits() -> None:
    body = RequestBody(None, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, body, 50)
        await wait_all_tasks_blocked()
        assert body.waiting_bytes == ROOM_BYTES
        body.collect(100 * len(PIECE))
        assert await body == PIECE * 50


async def test_a_body_that_is_there_as_a_whole_needs_no_room() -> None:
    body = RequestBody(None, None)
    body.append(bytes(2 * ROOM_BYTES))
    body.set_complete()
    with trio.fail_after(1):
        await body.wait_room()


async def test_what_nobody_reads_any_more_is_dropped() -> None:
    body = RequestBody(None, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, body, 50)
        await wait_all_tasks_blocked()
        body.discard()
    assert body.waiting_bytes == 0


async def test_a_body_that_is_collected_can_be_read_after_the_answer_has_begun() -> None:
    body = RequestBody(None, None)
    body.collect(100)
    body.append(b"all of it")
    body.set_complete()
    body.discard()
    assert await body == b"all of it"


@pytest.mark.parametrize("expected_bytes", [None, 11])
async def test_more_than_is_collected_is_refused_to_who_reads(expected_bytes: int | None) -> None:
    body = RequestBody(expected_bytes, 5)
    body.collect(10)
    body.append(b"x" * 11)
    with pytest.raises(RequestEntityTooLarge):
        await body


async def test_what_came_before_the_route_was_known_counts() -> None:
    body = RequestBody(None, None)
    body.append(b"x" * 11)
    body.collect(10)
    with pytest.raises(RequestEntityTooLarge):
        await body
