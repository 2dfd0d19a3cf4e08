"""Whom a call asks, how often and for how long, over real sockets."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from proxy.chat import Message, Sampling, Text
from proxy.errors import RequestNotSupported
from proxy.events import ChatEvent, Completed, Failed, TextDelta
from proxy.provider import ProviderCall
from proxy.pump import RETRIES, Patience
from proxy.transport import Deadlines
from tests.fake_upstream import RecordedRequest
from tests.fakes import (
    END_OF_CHUNKS,
    Pause,
    Reset,
    SendChunk,
    Step,
    WaitForClose,
    openai_error,
    openai_stream,
    openai_whole,
    sse_chunk,
    stream_head,
)
from tests.proxy.calls import MODEL, REQUEST, USER, WORDS, Bench, ask, open_bench, read_all, settle_down, text_chunk

PATIENT = Patience(first_token_seconds=30, total_seconds=100, retry_seconds=10)
NO_HURRY = Deadlines(connect_seconds=90, response_seconds=90, idle_seconds=90, write_seconds=90)
SPARE_ANSWER = openai_stream(["From", " the", " spare"], usage=(1000, 500))
BUSY = openai_error(503, "server_error", None, "busy")
USAGE = sse_chunk({"choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 9}})
OVERLOADED = sse_chunk({"error": {"message": "overloaded", "type": "overloaded_error"}})


def text_of(events: Iterable[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def asked(bench: Bench) -> list[str]:
    """The providers that were asked, in order."""
    return ["spare" if request.path.startswith("/spare") else "openai" for request in bench.upstream.requests]


def in_turn(*scripts: Sequence[Step]) -> Callable[[RecordedRequest], Sequence[Step]]:
    """One script a request; the last one for all that follow."""
    waiting = list(scripts)
    return lambda _request: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def failure_of(events: list[ChatEvent]) -> Failed:
    failed = events[-1]
    assert isinstance(failed, Failed)
    return failed


@pytest.mark.parametrize(
    "script",
    [
        *[openai_error(status, "some_error", None, "no") for status in (408, 409, 429, 500, 502, 503, 504, 529)],
        [Reset()],
        [stream_head(), Reset()],
        [stream_head(), END_OF_CHUNKS],
        [stream_head(), OVERLOADED, WaitForClose()],
        [stream_head(), USAGE, OVERLOADED, WaitForClose()],
    ],
)
async def test_the_next_provider_answers_for_one_that_fails_for_now(script: list[Step]) -> None:
    """With one hold, one charge and one row of usage; what the first one said of its usage is owed by nobody."""
    async with open_bench(script, fallback=SPARE_ANSWER) as bench:
        events = await ask(bench)
        assert text_of(events) == "From the spare"
        assert asked(bench) == ["openai", "spare"]
        assert bench.upstream.requests[1].headers["authorization"] == "Bearer sk-spare"
        assert bench.upstream.requests[1].json["model"] == "spare/gpt-4o-mini"
        assert bench.settlement.provider_code == "spare"
        bench.assert_charged("0.010500")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 418, 422])
async def test_nobody_stands_in_where_the_request_or_the_key_is_wrong(status: int) -> None:
    async with open_bench(openai_error(status, "some_error", None, "no"), fallback=SPARE_ANSWER) as bench:
        failed = failure_of(await ask(bench))
        assert (failed.status, failed.fallback_attempted) == (status, False)
        assert asked(bench) == ["openai"]
        bench.assert_charged("0")


async def test_nobody_stands_in_once_a_word_has_come() -> None:
    script: list[Step] = [stream_head(), text_chunk(WORDS[0]), Pause(0.01), Reset()]
    async with open_bench(script, fallback=SPARE_ANSWER) as bench:
        events = await ask(bench)
        assert text_of(events) == WORDS[0]
        assert failure_of(events).code == "network_error"
        assert asked(bench) == ["openai"]
        bench.assert_charged_as_counted(WORDS[:1])


async def test_if_all_fail_the_first_one_is_told_and_each_was_asked_once() -> None:
    async with open_bench(BUSY, fallback=openai_error(401, "auth", None, "no")) as bench:
        failed = failure_of(await ask(bench))
        assert (failed.status, failed.provider, failed.fallback_attempted) == (503, "openai", True)
        assert asked(bench) == ["openai", "spare"]
        assert [code for code, *_ in bench.breakers.failures] == ["openai"]
        assert [code for code, _ in bench.breakers.successes] == ["spare"]
        bench.assert_charged("0")


async def test_a_provider_that_cannot_do_what_is_asked_does_not_stand_in() -> None:
    """The first one's failure is told, and nobody says that another was tried."""
    async with open_bench(BUSY, fallback=SPARE_ANSWER) as bench:
        upstreams = dict(bench.gateway.upstreams)
        blind = replace(upstreams["spare"].provider, build_call=_refuse_everything)
        upstreams["spare"] = replace(upstreams["spare"], provider=blind)
        async with replace(bench.gateway, upstreams=upstreams).open_chat(USER, REQUEST) as chat:
            failed = failure_of(await read_all(chat))
        assert (failed.status, failed.fallback_attempted) == (503, False)
        assert asked(bench) == ["openai"]


async def test_a_provider_whom_nobody_can_stand_in_for_is_asked_again(autojump_clock: MockClock) -> None:
    script = in_turn(BUSY, openai_stream(WORDS, usage=(1000, 500)))
    for hinder in ("cannot", "rests"):
        async with open_bench(script, patience=PATIENT, fallback=SPARE_ANSWER) as bench:
            upstreams = dict(bench.gateway.upstreams)
            if hinder == "cannot":
                blind = replace(upstreams["spare"].provider, build_call=_refuse_everything)
                upstreams["spare"] = replace(upstreams["spare"], provider=blind)
            else:
                bench.breakers.opened.add(("spare", MODEL.id))
            async with replace(bench.gateway, upstreams=upstreams).open_chat(USER, REQUEST) as chat:
                assert text_of(await read_all(chat)) == "".join(WORDS)
        assert "spare" not in asked(bench)


async def test_a_breaker_that_opens_ends_the_retries(autojump_clock: MockClock) -> None:
    async with open_bench(BUSY, patience=PATIENT) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, bench)
            await trio.sleep(0.1)
            bench.breakers.opened.add(("openai", MODEL.id))
        assert len(bench.upstream.requests) == 1


def _refuse_everything(*_: object) -> ProviderCall:
    raise RequestNotSupported("seed: not here")


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_another_key_is_tried_where_it_may_help(status: int) -> None:
    script = in_turn(openai_error(status, "some_error", None, "no"), openai_stream(WORDS, usage=(1000, 500)))
    async with open_bench(script, keys=("sk-a", "sk-b", "sk-c"), fallback=SPARE_ANSWER) as bench:
        assert text_of(await ask(bench)) == "".join(WORDS)
        assert asked(bench) == ["openai", "openai"]
        first, second = [request.headers["authorization"] for request in bench.upstream.requests]
        assert first != second
        bench.assert_charged("0.010500")


async def test_every_key_is_tried_once_and_no_key_helps_a_bad_request() -> None:
    for status, times in ((401, 3), (400, 1)):
        async with open_bench(openai_error(status, "e", None, "no"), keys=("sk-a", "sk-b", "sk-c")) as bench:
            assert failure_of(await ask(bench)).status == status
            keys = [request.headers["authorization"] for request in bench.upstream.requests]
            assert len(keys) == len(set(keys)) == times


async def test_the_last_provider_is_asked_again_after_a_pause_that_grows(autojump_clock: MockClock) -> None:
    script = in_turn(BUSY, BUSY, openai_stream(WORDS, usage=(1000, 500)))
    async with open_bench(script, patience=PATIENT) as bench:
        started = trio.current_time()
        assert text_of(await ask(bench)) == "".join(WORDS)
        assert 0.5 + 1 <= trio.current_time() - started <= (0.5 + 1) * 1.25 + 0.2
        bench.assert_charged("0.010500")


async def test_a_provider_that_keeps_failing_is_asked_a_few_times(autojump_clock: MockClock) -> None:
    async with open_bench(BUSY, patience=PATIENT, fallback=BUSY) as bench:
        failed = failure_of(await ask(bench))
        assert (failed.provider, failed.fallback_attempted) == ("openai", True)
        assert asked(bench) == ["openai", *["spare"] * (1 + RETRIES)]
        bench.assert_charged("0")


@pytest.mark.parametrize(("wanted", "is_waited_for"), [(3, True), (9, True), (10.5, False), (600, False)])
async def test_a_provider_is_given_the_time_that_it_asks_for_if_that_is_short(
    autojump_clock: MockClock, wanted: float, is_waited_for: bool
) -> None:
    patience = replace(PATIENT, retry_seconds=13)
    refusal = openai_error(429, "rate", None, "slow down", headers={"Retry-After": str(wanted)})
    script = in_turn(refusal, openai_stream(WORDS, usage=(1000, 500)))
    async with open_bench(script, patience=replace(patience, retry_seconds=12 if wanted < 10 else 10)) as bench:
        started = trio.current_time()
        events = await ask(bench)
        seconds = trio.current_time() - started
        assert isinstance(events[-1], Completed) == is_waited_for
        assert (seconds >= wanted) == is_waited_for
        if not is_waited_for:
            assert failure_of(events).retry_after_seconds == wanted


async def test_a_client_that_leaves_in_a_pause_owes_nothing(autojump_clock: MockClock) -> None:
    async with open_bench(BUSY, patience=PATIENT) as bench:
        with trio.move_on_after(0.2):
            await ask(bench)
        assert len(bench.upstream.requests) == 1
        assert bench.settlement.outcome == "cancelled"
        bench.assert_charged("0")


async def test_a_client_that_leaves_the_stand_in_pays_what_it_got() -> None:
    script: list[Step] = [stream_head(), *map(text_chunk, WORDS[:2]), WaitForClose()]
    async with open_bench(BUSY, fallback=script) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            texts: list[ChatEvent] = []
            while len(texts) < 2:
                texts += await chat.next_events()
            with trio.move_on_after(0.05):
                await chat.next_events()
        assert bench.settlement.provider_code == "spare"
        bench.assert_charged_as_counted(WORDS[:2])
        await bench.assert_closed()


_COMMENTS: list[Step] = [SendChunk(b": still here\n\n"), Pause(1)] * 200
SILENT: list[list[Step]] = [
    [WaitForClose()],
    [stream_head(), WaitForClose()],
    [stream_head(), USAGE, WaitForClose()],
    [stream_head(), *_COMMENTS],
]


@pytest.mark.parametrize("script", SILENT)
async def test_a_provider_that_does_not_begin_is_given_up(autojump_clock: MockClock, script: list[Step]) -> None:
    """Whatever it says besides an answer."""
    async with open_bench(script, patience=PATIENT, deadlines=NO_HURRY) as bench:
        started = trio.current_time()
        failed = failure_of(await ask(bench))
        assert (failed.code, failed.status) == ("timeout_error", 0)
        assert trio.current_time() - started == pytest.approx(30, abs=0.5)
        bench.assert_charged("0")
        await bench.assert_closed()


@pytest.mark.parametrize("script", SILENT)
async def test_another_answers_for_one_that_does_not_begin(autojump_clock: MockClock, script: list[Step]) -> None:
    async with open_bench(script, patience=PATIENT, fallback=SPARE_ANSWER) as bench:
        assert text_of(await ask(bench)) == "From the spare"
        assert [code for code, *_ in bench.breakers.failures] == ["openai"]
        assert [code for code, _ in bench.breakers.successes] == ["spare"]
        bench.assert_charged("0.010500")


async def test_an_answer_that_has_begun_may_take_as_long_as_the_whole_call(autojump_clock: MockClock) -> None:
    mumble: list[Step] = [text_chunk(" and"), Pause(7)]
    async with open_bench([stream_head(), *mumble * 100], patience=PATIENT) as bench:
        started = trio.current_time()
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            events: list[ChatEvent] = []
            while batch := await chat.next_events():
                events += batch
        assert failure_of(events).code == "timeout_error"
        assert trio.current_time() - started == pytest.approx(100, abs=1)
        await bench.assert_closed()


async def test_a_provider_at_rest_is_not_asked() -> None:
    async with open_bench(openai_stream(WORDS), fallback=SPARE_ANSWER) as bench:
        bench.breakers.opened.add(("openai", MODEL.id))
        assert text_of(await ask(bench)) == "From the spare"
        assert asked(bench) == ["spare"]


async def test_if_all_are_at_rest_the_client_is_told_when_to_come_again() -> None:
    async with open_bench(openai_stream(WORDS)) as bench:
        bench.breakers.opened.add(("openai", MODEL.id))
        failed = failure_of(await ask(bench))
        assert (failed.code, failed.retry_after_seconds) == ("provider_unavailable", 5)
        assert not failed.fallback_attempted
        assert asked(bench) == []
        bench.assert_charged("0")


@pytest.mark.parametrize(
    ("script", "outcomes"),
    [
        (openai_stream(WORDS), (1, 0)),
        (openai_whole("Hello"), (1, 0)),
        (openai_error(400, "e", None, "no"), (1, 0)),
        (openai_error(500, "e", None, "no"), (0, 1)),
        ([stream_head(), text_chunk("Hel"), Pause(0.01), Reset()], (1, 1)),
    ],
)
async def test_the_breaker_hears_of_every_outcome(script: list[Step], outcomes: tuple[int, int]) -> None:
    async with open_bench(script) as bench:
        await ask(bench)
        assert (len(bench.breakers.successes), len(bench.breakers.failures)) == outcomes


async def test_a_call_has_one_vote_however_often_a_provider_was_asked(autojump_clock: MockClock) -> None:
    async with open_bench(BUSY, patience=PATIENT, keys=("a", "b")) as bench:
        await ask(bench)
        assert len(bench.upstream.requests) == 2 + RETRIES
        assert (len(bench.breakers.failures), len(bench.breakers.successes)) == (1, 0)


async def test_a_failure_of_the_stand_in_says_that_it_was_one() -> None:
    script: list[Step] = [stream_head(), text_chunk("Hel"), Pause(0.01), Reset()]
    async with open_bench(BUSY, fallback=script) as bench:
        assert failure_of(await ask(bench)).fallback_attempted


async def test_nothing_is_left_of_fifty_calls_that_fall_back_at_once() -> None:
    async with open_bench(BUSY, fallback=SPARE_ANSWER) as bench:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask, bench)
        await settle_down()
        assert len(bench.ledger.settlements) == 50
        assert bench.ledger.running == {}
        assert bench.transport.open_connections == bench.transport.idle_connections


async def test_a_long_prompt_is_said_again_to_the_stand_in() -> None:
    request = replace(REQUEST, messages=(Message("user", (Text("word " * 50_000),)),), sampling=Sampling(seed=7))
    async with open_bench(BUSY, fallback=SPARE_ANSWER) as bench:
        assert text_of(await ask(bench, request)) == "From the spare"
        first, second = [request.json for request in bench.upstream.requests]
        assert {**first, "model": ""} == {**second, "model": ""}

