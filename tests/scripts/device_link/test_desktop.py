"""What a desktop makes of calls and binds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from scripts.device_link.desktop import Desktop
from scripts.device_link.device import Device
from scripts.device_link.methods import Answer
from scripts.device_link.terminal_frames import build_frame
from tests.scripts.device_link.relay_stand_in import Serve, Side, open_stand_in
from tests.scripts.device_link.test_device import make, welcome


@asynccontextmanager
async def open_desktop(serve: Serve, desktop: Desktop) -> AsyncIterator[tuple[Device, list[Any]]]:
    async def begin(side: Side) -> None:
        await welcome(side)
        await serve(side)
        await side.hear_away()

    async with open_stand_in(begin) as (url, heard), trio.open_nursery() as nursery:
        device = make(url, desktop)
        nursery.start_soon(device.stay)
        await device.wait_registered()
        yield device, heard
        nursery.cancel_scope.cancel()


async def ask(side: Side, method: str, params: object = None, *, id_: str = "1", **members: object) -> None:
    payload = {"id": id_, "method": method, "params": params or {}, "clientId": "c", "userId": "u", **members}
    await side.say("rpc.request", payload=payload)


async def hear_answers(heard: list[Any], count: int) -> list[Any]:
    with trio.fail_after(5):
        while len(found := [one["payload"] for one in heard if one["type"] == "rpc.response"]) < count:
            await trio.sleep(0.005)
    return found


async def test_a_call_is_answered_to_its_client() -> None:
    async def call(side: Side) -> None:
        await ask(side, "echo", {"n": 1})

    async with open_desktop(call, Desktop()) as (_, heard):
        (answer,) = await hear_answers(heard, 1)
        assert answer == {"clientId": "c", "id": "1", "result": {"n": 1}, "error": None, "isFinal": True}


async def test_a_repeated_key_is_answered_from_memory_with_the_first_id() -> None:
    counts: list[int] = []

    async def count(_params: Any) -> Answer:
        counts.append(1)
        return len(counts), None

    async def call(side: Side) -> None:
        await ask(side, "count", id_="1", idempotencyKey="k")
        await side.hear_next("rpc.response")
        await ask(side, "count", id_="2", idempotencyKey="k")
        await side.hear_next("rpc.response")
        await ask(side, "count", id_="3")

    async with open_desktop(call, Desktop({"count": count})) as (_, heard):
        answers = await hear_answers(heard, 3)
        assert [(answer["id"], answer["result"]) for answer in answers] == [("1", 1), ("1", 1), ("3", 2)]


async def test_a_call_that_the_apps_types_do_not_fit_is_swallowed() -> None:
    async def call(side: Side) -> None:
        await ask(side, "echo", id_="1", clientId=None)
        await ask(side, "echo", id_="2", idempotencyKey=5)
        await ask(side, "echo", id_="3", clientId="")
        await ask(side, "echo", id_="4", idempotencyKey=None)

    async with open_desktop(call, Desktop()) as (_, heard):
        assert [answer["id"] for answer in await hear_answers(heard, 1)] == ["4"]


async def test_a_slow_call_delays_no_other() -> None:
    async def never(_params: Any) -> Answer:
        await trio.sleep_forever()
        raise AssertionError

    async def call(side: Side) -> None:
        await ask(side, "never", id_="1")
        await ask(side, "echo", id_="2")

    async with open_desktop(call, Desktop({"never": never})) as (_, heard):
        assert [answer["id"] for answer in await hear_answers(heard, 1)] == ["2"]


async def test_a_terminal_says_what_is_typed_while_it_is_bound_and_keeps_it_while_not() -> None:
    async def use(side: Side) -> None:
        await ask(side, "terminal.start", {"jobId": "t-1"}, id_="1")
        await ask(side, "terminal.write", {"sessionId": "t-1", "text": "before"}, id_="2")
        bind = {"sessionId": "t-1", "includeSnapshot": False, "forceSnapshot": False}
        for _ in range(2):
            await side.hear_next("rpc.response")
        await side.say("terminal.binary.bind", payload=bind)
        assert await side.hear_bytes() == build_frame("t-1", b"before")
        await ask(side, "terminal.write", {"sessionId": "t-1", "data": "aGk="}, id_="3")
        assert await side.hear_bytes() == build_frame("t-1", b"hi")
        await side.say("terminal.binary.unbind", payload={"sessionId": "t-1"})
        await ask(side, "terminal.write", {"sessionId": "t-1", "text": "after"}, id_="4")
        await ask(side, "terminal.write", {"sessionId": "t-2", "text": "after"}, id_="5")

    desktop = Desktop()
    async with open_desktop(use, desktop) as (device, heard):
        with trio.fail_after(5):
            while not [one for one in heard if isinstance(one, dict) and one.get("payload", {}).get("id") == "5"]:
                await trio.sleep(0.005)
        answers = [one["payload"] for one in heard if isinstance(one, dict) and one["type"] == "rpc.response"]
        errors = {answer["id"]: answer["error"] for answer in answers}
        assert {id_ for id_, error in errors.items() if error is None} == {"1", "2", "3", "4"}
        assert errors["5"]["code"] == -32002
        assert desktop.terminals.open("t-1").pending_bytes == len("after")
        assert device.faults == []


async def test_a_counter_counts_and_a_killed_terminal_says_so() -> None:
    async def use(side: Side) -> None:
        await ask(side, "terminal.start", {"jobId": "t-1", "shell": "counter"}, id_="1")
        bind = {"sessionId": "t-1", "includeSnapshot": False, "forceSnapshot": False}
        await side.say("terminal.binary.bind", payload=bind)
        while b"1" not in await side.hear_bytes():
            pass
        for number, method in enumerate(("getActiveSessions", "getMetadata", "getStatus", "getLog", "resize", "kill")):
            await ask(side, f"terminal.{method}", {"sessionId": "t-1"}, id_=f"{number + 2}")
        assert (await side.hear_next("event"))["payload"]["eventType"] == "terminal.exit"

    async with open_desktop(use, Desktop()) as (_, heard):
        with trio.fail_after(5):
            while not [one for one in heard if isinstance(one, dict) and one["type"] == "event"]:
                await trio.sleep(0.005)
        answers = [one["payload"] for one in heard if isinstance(one, dict) and one["type"] == "rpc.response"]
        assert {answer["id"]: answer["error"] for answer in answers} == {f"{number}": None for number in range(1, 8)}


async def test_a_desktop_with_a_session_tells_of_it() -> None:
    async def listen(side: Side) -> None:
        await side.hear_next("event")

    async with open_desktop(listen, Desktop(announces_session="s1")) as (device, heard):
        with trio.fail_after(5):
            while not [one for one in heard if one["type"] == "event"]:
                await trio.sleep(0.005)
        (event,) = [one["payload"] for one in heard if one["type"] == "event"]
        assert (event["eventType"], event["payload"]["sessionId"]) == ("session-snapshot", "s1")
        assert device.active_session_id == "s1"


async def test_a_desktop_that_leaves_has_said_all_that_it_had_to_say() -> None:
    over = trio.Event()
    size = 3_000_000

    async def listen(side: Side) -> None:
        bind = {"sessionId": "t-1", "includeSnapshot": False, "forceSnapshot": False}
        await side.say("terminal.binary.bind", payload=bind)
        try:
            await side.hear_away()
        finally:
            over.set()

    desktop = Desktop()
    async with open_desktop(listen, desktop) as (device, heard):
        await device.wait_for(lambda: desktop.terminals.open("t-1").is_bound)
        desktop.terminals.write_nowait("t-1", bytes(size))
        await desktop.leave()
        desktop.terminals.write_nowait("t-1", b"kept")
        with trio.fail_after(5):
            await over.wait()
        assert sum(len(one) - 9 for one in heard if isinstance(one, bytes)) == size
        assert (desktop.terminals.lost_bytes, desktop.terminals.open("t-1").pending_bytes) == (0, 4)
