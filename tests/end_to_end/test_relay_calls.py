"""Calls: each is answered once, whatever happens to the desktop; and what no desktop is asked at all."""

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from scripts.device_link.link import Link, Message
from scripts.device_link.methods import Answer
from scripts.device_link.phone import CallFailed
from tests.end_to_end.cloche import Stores
from tests.end_to_end.relay_scene import (
    Pocket,
    beat,
    check_ids,
    make_identity,
    open_scene,
    publish_numbers,
    receive,
    register,
    wait_back,
)

MEBIBYTE = 1024 * 1024
GRACE_SECONDS = 10
OFFLINE = {"code": -32010, "message": "Desktop is offline"}
TEXT, CONTINUATION, PING = 1, 0, 9


async def never(_params: Any) -> Answer:
    await trio.sleep_forever()
    raise AssertionError


async def exchange(phone: Pocket, method: str, answers: list[Message], **members: Any) -> None:
    answers.append(await phone.app.exchange(method, **members))
    phone.device.note_news()


@pytest.mark.parametrize(("count", "comes_back_to"), [(1, 0), (2, 0), (2, 1)])
async def test_of_a_desktop_that_drops_a_keyed_call_is_sent_again_and_another_is_answered_within_the_grace(
    stores: Stores, count: int, comes_back_to: int
) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop(methods={"slow": never})
        phone = await scene.open_phone()
        answers: list[Message] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: exchange(phone, "slow", answers, id_="plain"))
            nursery.start_soon(lambda: exchange(phone, "slow", answers, id_="keyed", key="k"))
            await desktop.device.wait_for(lambda: len(desktop.app.calls) == 2)
            desktop.app.add_method("slow", quick)
            scene.move(desktop.device, scene.servers[comes_back_to])
            started = trio.current_time()
            desktop.device.cut()
        assert trio.current_time() - started < GRACE_SECONDS
        by_id = {answer["id"]: answer for answer in answers}
        assert (by_id["plain"]["error"], by_id["plain"]["result"]) == (OFFLINE, None)
        assert (by_id["keyed"]["error"], by_id["keyed"]["result"]) == (None, "quick")
        assert [(call["id"], call.get("idempotencyKey")) for call in desktop.app.calls[2:]] == [("keyed", "k")]
        await beat(phone.device)
        assert (phone.app.repeats, phone.app.strays) == ([], [])


async def quick(_params: Any) -> Answer:
    return "quick", None


@pytest.mark.parametrize("count", [1, 2])
async def test_of_a_desktop_that_stays_away_all_calls_are_answered_when_the_grace_ends_and_a_ping_at_once(
    stores: Stores, count: int
) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop(methods={"slow": never, "system.ping": never})
        phone = await scene.open_phone()
        answers: list[Message] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: exchange(phone, "system.ping", answers, id_="ping"))
            nursery.start_soon(lambda: exchange(phone, "slow", answers, id_="plain"))
            nursery.start_soon(lambda: exchange(phone, "slow", answers, id_="keyed", key="k"))
            await desktop.device.wait_for(lambda: len(desktop.app.calls) == 3)
            started = trio.current_time()
            scene.stop(desktop.device)
            await phone.device.wait_for(lambda: answers)
            assert trio.current_time() - started < 1
            assert answers[0]["id"] == "ping"
            with pytest.raises(CallFailed, match="Desktop is offline"):
                await phone.app.call("echo")
            assert trio.current_time() - started < 1
        assert GRACE_SECONDS - 1 < trio.current_time() - started < GRACE_SECONDS + 3
        assert [answer["error"] for answer in answers] == [OFFLINE] * 3
        assert {(answer["result"], answer["isFinal"]) for answer in answers} == {(None, True)}


@pytest.mark.parametrize("count", [1, 2])
async def test_answers_come_in_any_order_and_in_several_parts(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop()
        phone = await scene.open_phone()
        release = trio.Event()

        async def wait(params: Message) -> Answer:
            if params["waits"]:
                client, part = phone.device.device_id, {"result": "part", "error": None, "isFinal": False}
                await desktop.device.say("rpc.response", {"clientId": client, "id": "first", **part})
                await release.wait()
            return params, None

        desktop.app.add_method("wait", wait)
        answers: list[Message] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: exchange(phone, "wait", answers, id_="first", params={"waits": True}))
            await phone.device.wait_heard(lambda message: message["type"] == "rpc.response")
            await exchange(phone, "wait", answers, id_="second", params={"waits": False})
            release.set()
        assert [answer["id"] for answer in answers] == ["second", "first"]
        responses = [one for one in phone.device.received if isinstance(one, dict) and one["type"] == "rpc.response"]
        assert [(one["payload"]["id"], one["payload"]["isFinal"]) for one in responses] == [
            ("first", False),
            ("second", True),
            ("first", True),
        ]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_call_that_is_sent_in_fragments_with_a_ping_between_is_one_call(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        desktop = await scene.open_desktop()
        link = await open_registered(scene, stack)
        request = {"id": "x", "method": "echo", "params": {"text": "grüße" * 1000}}
        text = json.dumps({"type": "rpc.request", "payload": request}, ensure_ascii=False).encode()
        pieces = [text[start : start + 777] for start in range(0, len(text), 777)]
        for number, piece in enumerate(pieces):
            opcode = CONTINUATION if number else TEXT
            await link.send_frame(opcode, piece, is_final=number == len(pieces) - 1)
            await link.send_frame(PING, b"between")
        answer = await receive(link)
        assert (answer["payload"]["id"], answer["payload"]["result"]) == ("x", request["params"])
        assert desktop.app.calls[0]["params"] == request["params"]


async def open_registered(scene: Any, stack: AsyncExitStack, client_type: str = "mobile") -> Link:
    identity = make_identity(scene.owner, client_type)
    link: Link = await scene.open_bare(stack, device_id=identity.device_id, client_type=client_type)
    assert (await register(link, identity.device_id))["type"] == "registered"
    return link


@pytest.mark.parametrize("count", [1, 2])
async def test_an_answer_of_thirty_one_mebibytes_arrives_and_a_call_of_twenty_is_refused(
    stores: Stores, count: int
) -> None:
    text = "x" * (31 * MEBIBYTE)

    async def long(_params: Any) -> Answer:
        return text, None

    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop(methods={"long": long})
        phone = await scene.open_phone()
        assert await phone.app.call("long") == text
        with pytest.raises(CallFailed) as caught:
            await phone.app.call("echo", {"text": text[: 20 * MEBIBYTE]}, id_="much")
        assert caught.value.code in {-32600, -32602}
        assert [call["method"] for call in desktop.app.calls] == ["long"]
        assert (await phone.app.call("system.ping"))["pong"] is True
        assert (phone.device.registrations, desktop.device.registrations) == (1, 1)


@pytest.mark.parametrize("count", [1, 2])
async def test_an_answer_that_no_phone_could_take_becomes_an_error_to_the_caller(stores: Stores, count: int) -> None:
    """Just under the largest frame that the server takes, and over what iOS takes with what is around it."""

    async def long(_params: Any) -> Answer:
        return "x" * (32 * MEBIBYTE - 200), None

    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop(methods={"long": long})
        phone = await scene.open_phone()
        answer = await phone.app.exchange("long")
        assert answer["error"] is not None or len(answer["result"]) < 32 * MEBIBYTE
        assert (await phone.app.call("system.ping"))["pong"] is True
        assert desktop.device.registrations == 1


REFUSED: Sequence[tuple[str, object, str]] = [
    ("session.syncHistoryState", {"state": 1}, "a state that is no object"),
    ("session.syncHistoryState", [], "params that are no object"),
]


@pytest.mark.parametrize("count", [1, 2])
async def test_what_is_wrong_with_a_call_is_answered_to_the_call(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop()
        phone = await scene.open_phone()
        for method, params, why in REFUSED:
            answer = await phone.app.exchange(method, params)
            assert answer["error"]["code"] == -32602, why
        for version, becomes in ((3.0, 3), ("4", 4), (True, 1), (None, 0), ("x", 0), (2**53 + 1, 2**53 + 1)):
            await phone.app.exchange("session.syncHistoryState", {"state": {}, "expectedVersion": version})
            assert desktop.app.calls[-1]["params"] == {"state": {}, "expectedVersion": becomes}


@pytest.mark.parametrize("count", [1, 2])
async def test_an_unregistered_socket_is_told_so(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene, AsyncExitStack() as stack:
        await scene.open_desktop()
        link = await scene.open_bare(stack)
        await link.send("heartbeat", {})
        assert await receive(link) == {"type": "pong"}
        for kind, payload in (
            ("rpc.request", {"id": "x", "method": "echo", "params": {}}),
            ("event", {"eventType": "session-updated", "payload": {}}),
        ):
            await link.send(kind, payload)
            answer = await receive(link)
            assert (answer["type"], answer.get("code")) in {("error", "notRegistered"), ("rpc.response", None)}


@pytest.mark.parametrize("count", [1, 2])
async def test_a_phone_that_is_back_gets_no_answers_to_what_it_has_forgotten_twice(stores: Stores, count: int) -> None:
    async with open_scene(stores, count) as scene:
        desktop = await scene.open_desktop()
        phone = await scene.open_phone()
        await call_and_be_cut(phone)
        assert await phone.app.call("echo", {"n": 1}) == {"n": 1}
        await publish_numbers(desktop.device, [1])
        assert len(phone.app.strays) <= 1
        check_ids(phone.device)


async def call_and_be_cut(phone: Pocket) -> None:
    await phone.device.say("rpc.request", {"id": "lost", "method": "echo", "params": {}})
    phone.device.cut()
    await wait_back(phone.device, 2)
