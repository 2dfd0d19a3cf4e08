"""How calls end that the provider refuses or breaks, over real sockets."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from proxy.events import Completed, Failed, TextDelta
from proxy.tokens import count_tokens
from proxy.transport import Deadlines
from tests.fakes import (
    END_OF_CHUNKS,
    Close,
    Pause,
    Reset,
    Send,
    SendChunk,
    Step,
    WaitForClose,
    openai_error,
    openai_stream,
    response,
    sse_chunk,
    stream_head,
)
from tests.proxy.calls import (
    PROMPT_TOKENS,
    REQUEST,
    USER,
    WORDS,
    ask,
    open_bench,
    price_usd,
    read_all,
    saying,
    text_chunk,
)

HASTY = Deadlines(connect_seconds=3, response_seconds=5, idle_seconds=8, write_seconds=11)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "authentication_failed"),
        (403, "permission_denied"),
        (404, "not_found"),
        (408, "timeout_error"),
        (413, "context_length_exceeded"),
        (418, "external_service_error"),
        (422, "bad_request"),
        (429, "rate_limit_exceeded"),
        (500, "provider_internal_error"),
        (502, "provider_gateway_error"),
        (503, "provider_unavailable"),
        (504, "timeout_error"),
        (529, "provider_unavailable"),
    ],
)
async def test_a_provider_that_refuses_is_told_and_costs_nothing(status: int, code: str) -> None:
    script = openai_error(status, "some_error", None, "no", headers={"Retry-After": "7"})
    async with open_bench(script) as bench:
        [failed] = await ask(bench)
        assert isinstance(failed, Failed)
        assert (failed.status, failed.code, failed.provider) == (status, code, "openai")
        assert failed.retry_after_seconds == 7
        assert bench.settlement.outcome == "failed"
        bench.assert_charged("0")


@pytest.mark.parametrize(
    "script",
    [
        response(503, b"x" * 100_000, {"content-type": "text/html"}),
        [Send(b"HTTP/1.1 503 Busy\r\ncontent-length: 9\r\n\r\nbus"), Reset()],
    ],
)
async def test_a_refusal_that_cannot_be_read_is_known_by_its_status(script: list[Step]) -> None:
    async with open_bench(script) as bench:
        [failed] = await ask(bench)
        assert isinstance(failed, Failed)
        assert (failed.status, failed.code) == (503, "provider_unavailable")
        bench.assert_charged("0")


GARBAGE = SendChunk(b"data: {nothing that is JSON\n\n")
ERROR = sse_chunk({"error": {"message": "overloaded", "type": "server_error", "code": None}})
ERROR_OF_STATUS = sse_chunk({"error": {"message": "Upstream broke", "code": 502}})


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        ([Reset()], "network_error", 0),
        ([Close()], "network_error", 0),
        ([END_OF_CHUNKS], "network_error", 0),
        ([Send(b"zz\r\n")], "network_error", 0),
        ([GARBAGE, WaitForClose()], "parsing_error", 0),
        ([ERROR, WaitForClose()], "provider_internal_error", 0),
        ([ERROR_OF_STATUS, WaitForClose()], "provider_gateway_error", 502),
    ],
)
@pytest.mark.parametrize("words", [[], WORDS[:3]])
async def test_an_answer_that_breaks_off_costs_what_came(
    words: Sequence[str], ending: list[Step], code: str, status: int
) -> None:
    """Nothing at all if nothing came."""
    script = [stream_head(), *map(text_chunk, words), Pause(0.01), *ending]
    async with open_bench(script) as bench:
        events = await ask(bench)
        failed = events[-1]
        assert [event.text for event in events if isinstance(event, TextDelta)] == words
        assert isinstance(failed, Failed)
        assert (failed.code, failed.status) == (code, status)
        assert bench.settlement.outcome == "failed"
        assert bench.transport.open_connections == bench.transport.idle_connections
        if words:
            bench.assert_charged_as_counted(words)
        else:
            bench.assert_charged("0")


@pytest.mark.parametrize("script", [[Reset()], [Close()], [Send(b"HTTP/1.1 20"), Reset()], [Send(b"what?\r\n\r\n")]])
async def test_a_provider_that_breaks_before_it_answers_costs_nothing(script: list[Step]) -> None:
    async with open_bench(script) as bench:
        [failed] = await ask(bench)
        assert isinstance(failed, Failed)
        assert failed.code == "network_error"
        assert "127.0.0.1" not in failed.message
        bench.assert_charged("0")
        await bench.assert_closed()


async def test_a_provider_that_nobody_can_reach_costs_nothing() -> None:
    async with open_bench() as bench:
        url = f"http://127.0.0.1:{await _unused_port()}"
        nowhere = {"openai": replace(bench.gateway.upstreams["openai"], base_url=url)}
        async with replace(bench.gateway, upstreams=nowhere).open_chat(USER, REQUEST) as chat:
            [failed] = await read_all(chat)
        assert isinstance(failed, Failed)
        assert failed.code == "network_error"
        bench.assert_charged("0")


async def _unused_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = int(listener.socket.getsockname()[1])
    await listener.aclose()
    return port


@pytest.mark.parametrize("ending", [[Reset()], [Close()], [Send(b"zz\r\n")]])
async def test_an_answer_that_had_its_end_is_whole_however_the_connection_ends(ending: list[Step]) -> None:
    script = openai_stream(WORDS, usage=(1000, 500))[:-1]
    async with open_bench([*script, Pause(0.01), *ending]) as bench:
        assert isinstance((await ask(bench))[-1], Completed)
        assert bench.settlement.outcome == "completed"
        bench.assert_charged("0.010500")


async def test_a_provider_that_never_answers_is_given_up(autojump_clock: MockClock) -> None:
    async with open_bench([WaitForClose()], deadlines=HASTY) as bench:
        [failed] = await ask(bench)
        assert isinstance(failed, Failed)
        assert failed.code == "timeout_error"
        bench.assert_charged("0")
        await bench.assert_closed()


async def test_a_provider_that_falls_silent_is_given_up(autojump_clock: MockClock) -> None:
    async with open_bench(saying(3), deadlines=HASTY) as bench:
        started_at = trio.current_time()
        failed = (await ask(bench))[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "timeout_error"
        assert trio.current_time() - started_at == pytest.approx(8, abs=0.5)
        bench.assert_charged_as_counted(WORDS[:3])
        await bench.assert_closed()


_MUMBLE: list[Step] = [Pause(7), text_chunk(" and")]


async def test_an_answer_without_an_end_is_given_up(autojump_clock: MockClock) -> None:
    """A provider that is never silent for long and never finishes."""
    script: list[Step] = [stream_head(), *_MUMBLE * 300]
    async with open_bench(script, deadlines=HASTY) as bench:
        started_at = trio.current_time()
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            events = []
            while batch := await chat.next_events():
                events += batch
        assert isinstance(events[-1], Failed)
        assert events[-1].code == "timeout_error"
        assert trio.current_time() - started_at == pytest.approx(1740, abs=10)
        await bench.assert_closed()
        bench.assert_nothing_left()


IMPOSSIBLE: list[tuple[dict[str, object], int | None, int | None]] = [
    ({"prompt_tokens": -1, "completion_tokens": 5}, None, 5),
    ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": -7}}, 9, 5),
    ({"prompt_tokens": 1_000_000_001, "completion_tokens": 5}, None, None),
    ({"prompt_tokens": 10**30, "completion_tokens": 5}, None, 5),
    ({"prompt_tokens": 900_000_000, "completion_tokens": 5}, None, None),
]


@pytest.mark.parametrize(("usage", "prompt", "completion"), IMPOSSIBLE)
async def test_a_number_that_cannot_be_is_no_word(
    usage: dict[str, object], prompt: int | None, completion: int | None
) -> None:
    """What was counted here stands for it; of usage that nobody could pay, for all of it."""
    ending: list[Step] = [sse_chunk({"choices": [], "usage": usage}), SendChunk(b"data: [DONE]\n\n"), END_OF_CHUNKS]
    async with open_bench([*openai_stream(WORDS)[:-2], *ending]) as bench:
        events = await ask(bench)
        assert isinstance(events[-1], Completed)
        counted = sum(count_tokens(word) for word in WORDS)
        charge = price_usd(PROMPT_TOKENS if prompt is None else prompt, counted if completion is None else completion)
        bench.assert_charged(str(charge))
        assert bench.settlement.provisional == (prompt is None or completion is None)


async def test_a_whole_answer_that_breaks_off_costs_nothing_whatever_its_provider_says() -> None:
    """Nobody gets anything of it."""
    usage = sse_chunk({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}})
    script: list[Step] = [stream_head(), text_chunk(WORDS[0]), usage, Pause(0.01), Reset()]
    async with open_bench(script) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            assert isinstance((await chat.collect()).ended, Failed)
        assert bench.settlement.outcome == "failed"
        bench.assert_charged("0")
