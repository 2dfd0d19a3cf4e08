"""What a phone makes of calls and terminals."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from scripts.device_link.device import Device
from scripts.device_link.phone import CallFailed, CallLost, Phone
from scripts.device_link.terminal_frames import build_frame
from tests.scripts.device_link.relay_stand_in import Serve, Side, open_stand_in
from tests.scripts.device_link.test_device import make, welcome


@asynccontextmanager
async def open_phone(serve: Serve) -> AsyncIterator[tuple[Phone, Device, list[Any]]]:
    async def begin(side: Side) -> None:
        await welcome(side)
        await serve(side)

    async with open_stand_in(begin) as (url, heard), trio.open_nursery() as nursery:
        phone = Phone()
        device = make(url, phone)
        nursery.start_soon(device.stay)
        await device.wait_registered()
        yield phone, device, heard
        nursery.cancel_scope.cancel()


async def answer(side: Side, id_: str, result: object, *, is_final: bool = True, error: object = None) -> None:
    await side.say("rpc.response", payload={"id": id_, "result": result, "error": error, "isFinal": is_final})


async def test_an_answer_is_to_its_call_also_if_another_comes_first() -> None:
    async def in_reverse(side: Side) -> None:
        first, second = [(await side.hear_next("rpc.request"))["payload"] for _ in range(2)]
        for request in (second, first):
            await answer(side, request["id"], "part", is_final=False)
            await answer(side, request["id"], request["params"])

    async with open_phone(in_reverse) as (phone, _, heard):
        results: dict[int, Any] = {}

        async def call(number: int) -> None:
            results[number] = await phone.call("echo", {"n": number})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 1)
            nursery.start_soon(call, 2)
        assert results == {1: {"n": 1}, 2: {"n": 2}}
        assert "idempotencyKey" not in heard[-1]["payload"]


async def test_a_call_that_changes_something_has_its_id_as_key() -> None:
    async def echo(side: Side) -> None:
        request = (await side.hear_next("rpc.request"))["payload"]
        await answer(side, request["id"], {})

    async with open_phone(echo) as (phone, _, heard):
        await phone.call("session.create", {})
        assert heard[-1]["payload"]["idempotencyKey"] == heard[-1]["payload"]["id"]


async def test_an_error_is_raised_with_its_code() -> None:
    async def refuse(side: Side) -> None:
        request = (await side.hear_next("rpc.request"))["payload"]
        await answer(side, request["id"], None, error={"code": -32010, "message": "Desktop is offline"})

    async with open_phone(refuse) as (phone, _, _heard):
        with pytest.raises(CallFailed, match="-32010 Desktop is offline"):
            await phone.call("echo")


async def test_nobody_waits_for_the_answer_of_a_connection_that_ended_and_a_late_one_is_a_stray() -> None:
    async def cut_and_answer(side: Side) -> None:
        if len(side.heard) == 1:
            await side.hear_next("rpc.request")
            await side.connection.aclose(1012)
        else:
            await answer(side, side.heard[1]["payload"]["id"], "late")
            await side.hear_away()

    async with open_phone(cut_and_answer) as (phone, device, _):
        with pytest.raises(CallLost):
            await phone.call("echo")
        await device.wait_for(lambda: phone.strays)
        assert (phone.strays[0]["result"], phone.repeats) == ("late", [])


async def test_a_second_answer_is_noticed() -> None:
    async def twice(side: Side) -> None:
        request = (await side.hear_next("rpc.request"))["payload"]
        for _ in range(2):
            await answer(side, request["id"], 1)

    async with open_phone(twice) as (phone, device, _):
        await phone.call("echo")
        await device.wait_for(lambda: phone.repeats)
        assert phone.strays == []


async def test_a_call_is_given_up_after_the_phones_own_patience(autojump_clock: trio.testing.MockClock) -> None:
    async def ignore(side: Side) -> None:
        await side.hear_away()

    async with open_phone(ignore) as (phone, _, _heard):
        for method, seconds in (("system.ping", 3), ("echo", 30)):
            started = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                await phone.call(method)
            assert seconds <= trio.current_time() - started < seconds + 1


async def test_a_terminal_is_bound_again_by_the_next_connection_without_a_snapshot() -> None:
    async def show(side: Side) -> None:
        await side.hear_next("terminal.binary.bind")
        await side.say("terminal.binary.bound", payload={"sessionId": "t-1"})
        await side.connection.send_message(build_frame("t-1", b"hi"))
        await side.connection.send_message(b"PTC")
        await side.hear_away()

    async with open_phone(show) as (phone, device, heard):
        await phone.bind("t-1")
        await device.wait_for(lambda: phone.output.get("t-1"))
        device.cut()
        await device.wait_for(lambda: phone.bound["t-1"] == 2)
        await device.wait_for(lambda: len(phone.output["t-1"]) == 4)
        binds = [message["payload"] for message in heard if message["type"] == "terminal.binary.bind"]
        assert binds == [
            {"sessionId": "t-1", "includeSnapshot": included, "forceSnapshot": False} for included in (True, False)
        ]
        assert bytes(phone.output["t-1"]) == b"hihi"


async def test_a_terminal_that_is_let_go_is_not_bound_again() -> None:
    async def listen(side: Side) -> None:
        await side.hear_away()

    async with open_phone(listen) as (phone, device, heard):
        await phone.bind("t-1", forces=True)
        await phone.unbind("t-1")
        device.cut()
        await device.wait_registered(2)
        kinds = [message["type"] for message in heard]
        assert kinds == ["register", "terminal.binary.bind", "terminal.binary.unbind", "register"]
        assert heard[1]["payload"] == {"sessionId": "t-1", "includeSnapshot": True, "forceSnapshot": True}
