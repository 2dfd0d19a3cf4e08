"""Answers made in the background, over real sockets: asked for once, looked up, called off, deleted."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio
from trio.testing import MockClock

from proxy.background import CALL_OFF_PAUSES_SECONDS, MAX_FAILED_LOOKUPS, Notes, call_off, open_background
from proxy.errors import UpstreamError
from proxy.events import Usage
from proxy.provider import Background, BackgroundState, UpstreamRequest
from proxy.providers import openai, sandbox
from proxy.routing import Upstream
from proxy.transport import Exchange, NetworkTransport
from tests.fake_upstream import RecordedRequest
from tests.fakes import FakeUpstream, Pause, Reset, Step, open_fake_upstream, response

OVER = {"done", "cancelled"}


def say(status: str, **more: object) -> list[Step]:
    return response(200, json.dumps({"id": "r1", "status": status, **more}).encode())


BUSY = response(503, b"busy")
GONE = response(404, b"{}")


def read_state(body: bytes) -> BackgroundState | None:
    try:
        said = json.loads(body)
        return BackgroundState(said["id"], said["status"] in OVER)
    except (ValueError, KeyError):
        return None


def read_usage(body: bytes) -> Usage | None:
    try:
        return Usage(output_tokens=json.loads(body)["used"])
    except (ValueError, KeyError):
        return None


def build_background(url: str) -> Background:
    def build(method: str, path: str) -> Callable[[str], UpstreamRequest]:
        return lambda id_: UpstreamRequest(f"{url}/{id_}{path}", (), b"", method)

    return Background(read_state, read_usage, build("GET", ""), build("POST", "/cancel"), build("DELETE", ""))


@dataclass(slots=True)
class Play:
    """What the provider says: to the creation, to each lookup (the last one for all that follow), to a cancel."""

    created: Sequence[Step] = field(default_factory=lambda: say("queued"))
    lookups: list[Sequence[Step]] = field(default_factory=list)
    cancelled: Sequence[Step] = field(default_factory=lambda: say("cancelled", used=3))

    def respond(self, request: RecordedRequest) -> Sequence[Step]:
        match request.method, request.path:
            case "POST", "/":
                return self.created
            case "GET", _:
                return self.lookups.pop(0) if len(self.lookups) > 1 else self.lookups[0]
            case "POST", _:
                return self.cancelled
        return response(200, b"{}")


@dataclass(slots=True)
class Stage:
    upstream: FakeUpstream
    transport: NetworkTransport
    called_off: list[Usage] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Exchange]:
        request = UpstreamRequest(f"{self.upstream.url}/", (), b"{}")
        background = build_background(self.upstream.url)
        notes = Notes(self.note_begun, self.called_off.append)
        async with open_background(self.transport, request, background, notes) as exchange:
            yield exchange

    async def note_begun(self, id_: str) -> None:
        await trio.lowlevel.checkpoint()
        self.begun.append(id_)

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.upstream.requests]


@asynccontextmanager
async def open_stage(play: Play, transport: NetworkTransport) -> AsyncIterator[Stage]:
    async with open_fake_upstream(play.respond) as upstream:
        yield Stage(upstream, transport)


async def test_an_answer_is_looked_up_until_it_is_over_and_then_deleted(
    autojump_clock: MockClock, transport: NetworkTransport
) -> None:
    play = Play(lookups=[say("queued"), say("busy"), say("busy"), say("done", text="at last")])
    async with open_stage(play, transport) as stage:
        started = trio.current_time()
        async with stage.open() as exchange:
            assert exchange.status == 200
            assert json.loads(await exchange.receive_some())["text"] == "at last"
            assert await exchange.receive_some() == b""
        assert stage.asked == ["POST /", *["GET /r1"] * 4, "DELETE /r1"]
        assert (stage.begun, stage.called_off) == (["r1"], [])
        assert 2 + 2.2 + 2.42 + 2.662 <= trio.current_time() - started <= 11.5


async def test_the_pauses_grow_to_a_limit(autojump_clock: MockClock, transport: NetworkTransport) -> None:
    async with open_stage(Play(lookups=[*[say("busy")] * 99, say("done")]), transport) as stage:
        started = trio.current_time()
        async with stage.open() as exchange:
            await exchange.receive_some()
        assert 450 < trio.current_time() - started < 100 * 5.6


async def test_an_answer_that_is_there_at_once_needs_no_lookup(transport: NetworkTransport) -> None:
    async with open_stage(Play(created=say("done")), transport) as stage:
        async with stage.open() as exchange:
            assert json.loads(await exchange.receive_some())["status"] == "done"
        assert stage.asked == ["POST /", "DELETE /r1"]


async def test_whoever_leaves_calls_the_answer_off(autojump_clock: MockClock, transport: NetworkTransport) -> None:
    async with open_stage(Play(lookups=[say("busy")]), transport) as stage:
        with trio.move_on_after(7):
            async with stage.open() as exchange:
                await exchange.receive_some()
        assert stage.asked[-2:] == ["POST /r1/cancel", "DELETE /r1"]
        assert stage.called_off == [Usage(output_tokens=3)]
        assert transport.open_connections == transport.idle_connections


async def test_whoever_leaves_while_it_is_asked_for_calls_it_off_all_the_same(
    autojump_clock: MockClock, transport: NetworkTransport
) -> None:
    """Its id has to be waited for: without it nobody could."""
    play = Play(created=[Pause(5), *say("queued")], lookups=[say("busy")])
    async with open_stage(play, transport) as stage:
        with trio.move_on_after(1):
            async with stage.open() as exchange:
                await exchange.receive_some()
        assert stage.asked == ["POST /", "POST /r1/cancel", "DELETE /r1"]
        assert stage.begun == ["r1"]


async def test_an_answer_that_ended_before_it_could_be_called_off_says_what_it_used(
    autojump_clock: MockClock, transport: NetworkTransport
) -> None:
    play = Play(cancelled=response(400, b"too late"), lookups=[say("busy"), say("done", used=9)])
    async with open_stage(play, transport) as stage:
        with trio.move_on_after(3):
            async with stage.open() as exchange:
                await exchange.receive_some()
        assert stage.called_off == [Usage(output_tokens=9)]


async def test_a_refusal_is_no_answer_under_way(transport: NetworkTransport) -> None:
    async with open_stage(Play(created=response(400, b"no")), transport) as stage:
        async with stage.open() as exchange:
            assert exchange.status == 400
            assert await exchange.receive_all(100) == b"no"
        assert stage.asked == ["POST /"]


async def test_what_is_no_answer_is_handed_on_as_it_is(transport: NetworkTransport) -> None:
    async with open_stage(Play(created=response(200, b"<html>")), transport) as stage:
        async with stage.open() as exchange:
            assert await exchange.receive_some() == b"<html>"
        assert stage.asked == ["POST /"]


@pytest.mark.parametrize("trouble", [BUSY, GONE, [Reset()], response(200, b"<html>")])
async def test_lookups_may_fail_for_a_while(
    autojump_clock: MockClock, transport: NetworkTransport, trouble: list[Step]
) -> None:
    play = Play(lookups=[*[trouble] * (MAX_FAILED_LOOKUPS - 1), say("done")])
    async with open_stage(play, transport) as stage, stage.open() as exchange:
        assert json.loads(await exchange.receive_some())["status"] == "done"


@pytest.mark.parametrize("trouble", [BUSY, [Reset()]])
async def test_lookups_that_fail_for_good_end_it_and_call_it_off(
    autojump_clock: MockClock, transport: NetworkTransport, trouble: list[Step]
) -> None:
    async with open_stage(Play(lookups=[trouble]), transport) as stage:
        with pytest.raises(UpstreamError):
            async with stage.open() as exchange:
                await exchange.receive_some()
        assert "POST /r1/cancel" in stage.asked


async def test_a_provider_that_never_says_that_it_began_is_given_up(
    autojump_clock: MockClock, transport: NetworkTransport
) -> None:
    async with open_stage(Play(created=[Pause(1000)]), transport) as stage:
        with pytest.raises(UpstreamError):
            async with stage.open():
                raise AssertionError("there is nothing to open")


async def test_a_provider_that_is_gone_when_it_is_called_off_holds_nobody_up(
    autojump_clock: MockClock, transport: NetworkTransport
) -> None:
    async with open_stage(Play(lookups=[say("busy")], cancelled=[Pause(1000)]), transport) as stage:
        started = trio.current_time()
        with trio.move_on_after(3):
            async with stage.open() as exchange:
                await exchange.receive_some()
        assert trio.current_time() - started < 3 + 11


def upstream_at(url: str, *keys: str) -> Upstream:
    """A provider whose requests name their key, as only a test may."""
    provider = replace(openai.PROVIDER, build_background=lambda target: build_background(f"{url}/{target.api_key}"))
    return Upstream(provider, url, keys)


async def test_a_lost_answer_is_called_off_with_the_key_that_it_belongs_to(transport: NetworkTransport) -> None:
    def respond(request: RecordedRequest) -> Sequence[Step]:
        return say("cancelled", used=7) if request.path.startswith("/k2") else GONE

    async with open_fake_upstream(respond) as fake:
        assert await call_off(transport, upstream_at(fake.url, "k1", "k2", "k3"), "r1") == Usage(output_tokens=7)
        paths = [request.path for request in fake.requests]
        assert paths == ["/k1/r1/cancel", "/k1/r1", "/k2/r1/cancel", "/k2/r1"]
        assert await call_off(transport, upstream_at(fake.url, "k1"), "r1") is None
        assert await call_off(transport, Upstream(sandbox.PROVIDER, fake.url, ("k2",)), "r1") is None


@pytest.mark.parametrize("trouble", [BUSY, response(429, b"slow down"), [Reset()], say("busy")])
async def test_a_provider_that_does_not_call_an_answer_off_is_asked_again(
    autojump_clock: MockClock, transport: NetworkTransport, trouble: list[Step]
) -> None:
    """Else it would work on for many minutes, and nobody would know."""
    refusals = [trouble] * len(CALL_OFF_PAUSES_SECONDS)

    def respond(request: RecordedRequest) -> Sequence[Step]:
        if request.path.endswith("/cancel"):
            return refusals.pop() if refusals else say("cancelled", used=7)
        return say("busy")

    async with open_fake_upstream(respond) as fake:
        assert await call_off(transport, upstream_at(fake.url, "k"), "r1") == Usage(output_tokens=7)
        refusals += [trouble] * 20
        with pytest.raises(UpstreamError):
            await call_off(transport, upstream_at(fake.url, "k"), "r1")
        assert [request.method for request in fake.requests].count("DELETE") == 1


async def test_what_an_answer_has_used_is_known_also_if_it_cannot_be_deleted(transport: NetworkTransport) -> None:
    def respond(request: RecordedRequest) -> Sequence[Step]:
        return [Reset()] if request.method == "DELETE" else say("cancelled", used=7)

    async with open_fake_upstream(respond) as fake:
        assert await call_off(transport, upstream_at(fake.url, "k"), "r1") == Usage(output_tokens=7)
