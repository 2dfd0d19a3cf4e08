"""Files that are brought to a provider and taken away again, by calls through the gateway and over real sockets."""

import logging
from dataclasses import replace

import pytest
import trio

from proxy.dialects.gemini import attached
from proxy.errors import UpstreamError
from proxy.events import ChatEvent, Completed, Failed, TextDelta
from proxy.pump import Patience
from tests.fake_google_files import KEYS, Ways, open_google_files
from tests.google_files_state import Step
from tests.proxy.calls import USER, read_all
from tests.proxy.file_calls import HASTY, FileBench, MemoryFile, ask_about, make_file, open_file_bench

ALL_TO_THE_GOOD: list[Step] = ["start", "upload", "get", "generate", "delete"]
CHARGE = "0.000544"
"""356 tokens of text and video at 1, 64 of sound at 2 and 6 of output at 10 dollars a million."""
MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _small_files_go_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every test would move 19 MiB."""
    monkeypatch.setattr(attached, "INLINE_BYTES", 1000)


def text_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def failure_of(events: list[ChatEvent]) -> Failed:
    [failed] = [event for event in events if isinstance(event, Failed)]
    return failed


async def test_a_small_file_is_within_the_request() -> None:
    async with open_file_bench() as bench:
        file = make_file(999)
        assert text_of(await bench.ask(ask_about(file))) == "A green field."
        assert bench.google.steps == ["generate"]
        [generated] = bench.google.generated
        assert (generated.inline_bytes, generated.inline_sha256) == (999, file.sha256)
        [part, text] = generated.body["contents"][0]["parts"]
        assert part == {"inlineData": {"mimeType": "video/mp4"}, "videoMetadata": {"fps": 2.0}}
        assert text == {"text": "What is to be seen?"}
        bench.assert_charged(CHARGE)


async def test_a_large_file_is_uploaded_and_taken_away_afterwards() -> None:
    async with open_file_bench() as bench:
        file = make_file(1000)
        events = await bench.ask(ask_about(file, media_type="video/quicktime"))
        assert text_of(events) == "A green field."
        assert isinstance(events[-1], Completed)
        assert bench.google.steps == ALL_TO_THE_GOOD
        assert bench.ledger.taken[0].amount_usd > bench.settlement.charge_usd
        [(name, stored)] = bench.google.removed.items()
        assert (stored.media_type, stored.size_bytes, stored.sha256) == ("video/mov", 1000, file.sha256)
        [generated] = bench.google.generated
        part = {"mimeType": "video/mov", "fileUri": f"{bench.google.base_url}/{name}"}
        assert generated.body["contents"][0]["parts"][0] == {"fileData": part, "videoMetadata": {"fps": 2.0}}
        bench.assert_charged(CHARGE)
        bench.assert_nothing_there()


async def test_files_go_up_from_nineteen_mebibytes_on_and_never_whole_through_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    async with open_file_bench() as bench:
        small, large = make_file(19 * MEBIBYTE - 1), make_file(19 * MEBIBYTE)
        await bench.ask(ask_about(small))
        await bench.ask(ask_about(large))
        assert bench.google.steps == ["generate", *ALL_TO_THE_GOOD]
        assert bench.google.generated[0].inline_sha256 == small.sha256
        [stored] = bench.google.removed.values()
        assert stored.sha256 == large.sha256
        assert max(small.most_asked_bytes, large.most_asked_bytes) <= MEBIBYTE


async def test_the_name_is_noted_before_the_file_is_there() -> None:
    """After `kill -9` whoever settles the call takes it away."""
    async with open_file_bench(Ways(hangs={"upload"})) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(bench.ask, ask_about(make_file(5000)))
        await bench.google.wait_begun("upload")
        [noted] = bench.ledger.upstreams.values()
        assert noted == ("google", next(iter(bench.google.sessions.values())).name)
        nursery.cancel_scope.cancel()


async def test_an_upload_that_breaks_off_is_taken_up_where_it_was() -> None:
    async with open_file_bench(Ways(breaks_after=[300_000, 1, 400_000])) as bench:
        file = make_file(1_000_000)
        assert text_of(await bench.ask(ask_about(file))) == "A green field."
        again: list[Step] = ["query", "upload"]
        assert bench.google.steps == ["start", "upload", *again * 3, "get", "generate", "delete"]
        [stored] = bench.google.removed.values()
        assert (stored.size_bytes, stored.sha256) == (1_000_000, file.sha256)
        bench.assert_charged(CHARGE)


@pytest.mark.parametrize(
    ("ways", "steps"),
    [
        (Ways(breaks_after=[5000]), ["start", "upload", "query", "upload", "get", "generate", "delete"]),
        (Ways(loses=["upload"]), ["start", "upload", "query", "get", "generate", "delete"]),
        (Ways(refusals={"upload": [503]}), ["start", "upload", "query", "upload", "get", "generate", "delete"]),
    ],
)
async def test_an_upload_whose_answer_is_lost_is_not_sent_again(ways: Ways, steps: list[Step]) -> None:
    """All of it has come: what is still missing is to say so, or to hear it."""
    async with open_file_bench(ways) as bench:
        file = make_file(5000)
        assert text_of(await bench.ask(ask_about(file))) == "A green field."
        assert bench.google.steps == steps
        [stored] = bench.google.removed.values()
        assert stored.sha256 == file.sha256


async def test_an_upload_that_breaks_off_again_and_again_is_given_up() -> None:
    async with open_file_bench(Ways(breaks_after=[10] * 9)) as bench:
        assert failure_of(await bench.ask(ask_about(make_file(5000)))).code == "network_error"
        assert bench.google.steps.count("upload") == 4
        assert bench.google.steps[-2:] == ["cancel", "delete"]
        bench.assert_charged("0")
        bench.assert_nothing_there()


async def test_a_file_is_waited_for_until_it_is_ready() -> None:
    async with open_file_bench(Ways(polls_until_ready=4)) as bench:
        assert text_of(await bench.ask(ask_about(make_file(5000)))) == "A green field."
        assert bench.google.steps.count("get") == 4
    async with open_file_bench(Ways(polls_until_ready=0)) as bench:
        await bench.ask(ask_about(make_file(5000)))
        assert bench.google.steps == ["start", "upload", "generate", "delete"]


async def test_a_file_that_never_gets_ready_costs_nothing_and_is_taken_away() -> None:
    async with open_file_bench(Ways(polls_until_ready=None)) as bench:
        started = trio.current_time()
        failed = failure_of(await bench.ask(ask_about(make_file(5000))))
        assert (failed.code, failed.provider) == ("external_service_error", "google")
        assert "ready in time" in failed.message
        assert 0.3 <= trio.current_time() - started < 2
        assert "generate" not in bench.google.steps
        bench.assert_charged("0")
        bench.assert_nothing_there()


async def test_a_file_that_google_cannot_read_is_the_clients_matter() -> None:
    async with open_file_bench(Ways(finds_it_unreadable=True)) as bench:
        failed = failure_of(await bench.ask(ask_about(make_file(5000))))
        assert failed.code == "bad_request"
        assert "could not read the file" in failed.message
        assert bench.google.steps == ["start", "upload", "get", "delete"]
        bench.assert_charged("0")
        bench.assert_nothing_there()


@pytest.mark.parametrize("step", ["start", "upload", "generate"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "authentication_failed"),
        (429, "rate_limit_exceeded"),
        (500, "provider_internal_error"),
        (503, "provider_unavailable"),
    ],
)
async def test_what_google_refuses_is_told_as_of_any_call(step: Step, status: int, code: str) -> None:
    async with open_file_bench(Ways(refusals={step: [status] * 9})) as bench:
        failed = failure_of(await bench.ask(ask_about(make_file(5000))))
        assert (failed.code, failed.status) == (code, status)
        bench.assert_charged("0")
        bench.assert_nothing_there()


async def test_lookups_may_fail_for_a_moment() -> None:
    async with open_file_bench(Ways(refusals={"get": [500, 403]})) as bench:
        assert text_of(await bench.ask(ask_about(make_file(5000)))) == "A green field."
        assert bench.google.steps.count("get") == 3
    async with open_file_bench(Ways(refusals={"get": [500] * 9})) as bench:
        assert failure_of(await bench.ask(ask_about(make_file(5000)))).code == "network_error"
        bench.assert_nothing_there()


@pytest.mark.parametrize("step", ["start", "upload", "generate"])
async def test_with_another_key_everything_is_done_anew_and_the_former_file_goes_with_its_own(step: Step) -> None:
    async with open_file_bench(Ways(refusals={step: [429]}), keys=KEYS) as bench:
        file = make_file(5000)
        assert text_of(await bench.ask(ask_about(file))) == "A green field."
        refused_key = bench.google.asked[0].key
        [generated] = bench.google.generated
        steps = {key: [asked.step for asked in bench.google.asked if asked.key == key] for key in KEYS}
        assert generated.key != refused_key
        assert steps.pop(generated.key) == ALL_TO_THE_GOOD
        until_refused = ALL_TO_THE_GOOD[: ALL_TO_THE_GOOD.index(step) + 1]
        ends: dict[Step, list[Step]] = {"start": [], "upload": ["cancel", "delete"], "generate": ["delete"]}
        assert steps[refused_key] == [*until_refused, *ends[step]]
        bench.assert_charged(CHARGE)
        bench.assert_nothing_there()


async def test_a_retry_uploads_anew_under_another_name() -> None:
    patience = Patience(first_token_seconds=10, total_seconds=20, retry_seconds=5)
    async with open_file_bench(Ways(refusals={"generate": [503]}), patience=patience) as bench:
        assert text_of(await bench.ask(ask_about(make_file(5000)))) == "A green field."
        assert bench.google.steps == [*ALL_TO_THE_GOOD, *ALL_TO_THE_GOOD]
        assert len(bench.google.removed) == 2
        bench.assert_charged(CHARGE)


async def test_a_removal_that_fails_once_is_made_good_for_when_the_call_is_settled() -> None:
    async with open_file_bench(Ways(refusals={"delete": [500]})) as bench:
        assert isinstance((await bench.ask(ask_about(make_file(5000))))[-1], Completed)
        assert bench.google.steps[-2:] == ["delete", "delete"]
        bench.assert_charged(CHARGE)
        bench.assert_nothing_there()


async def test_a_removal_that_always_fails_changes_neither_answer_nor_charge(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_file_bench(Ways(refusals={"delete": [500] * 99})) as bench:
        with caplog.at_level(logging.WARNING):
            events = await bench.ask(ask_about(make_file(5000)))
        assert text_of(events) == "A green field."
        assert bench.google.steps.count("delete") == 4
        [name] = bench.google.files
        [record] = [record for record in caplog.records if "could not be removed" in record.message]
        assert vars(record)["file"] == name
        bench.assert_charged(CHARGE)


async def test_a_removal_that_hangs_holds_nobody_up() -> None:
    async with open_file_bench(Ways(hangs={"delete"})) as bench:
        started = trio.current_time()
        async with bench.gateway.open_chat(USER, ask_about(make_file(5000))) as chat:
            assert isinstance((await read_all(chat))[-1], Completed)
            assert trio.current_time() - started < 1
            assert bench.settlement.outcome == "completed"
        assert trio.current_time() - started < 3


@pytest.mark.parametrize("step", ["start", "upload", "get", "generate"])
async def test_a_client_that_leaves_before_there_is_an_answer_owes_nothing_and_leaves_no_file(step: Step) -> None:
    async with open_file_bench(Ways(hangs={step})) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.ask, ask_about(make_file(5000)))
            await bench.google.wait_begun(step)
            nursery.cancel_scope.cancel()
        assert bench.settlement.outcome == "cancelled"
        bench.assert_charged("0")
        bench.assert_nothing_there()
        assert bench.transport.open_connections == bench.transport.idle_connections


async def test_a_client_that_leaves_in_mid_upload_stops_it() -> None:
    async with open_file_bench(Ways(slow_after=1)) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.ask, ask_about(make_file(30 * MEBIBYTE)))
            await bench.google.wait_begun("upload")
            nursery.cancel_scope.cancel()
        [session] = bench.google.sessions.values()
        assert session.state == "cancelled"
        assert session.received < session.size_bytes
        bench.assert_charged("0")
        bench.assert_nothing_there()


async def test_a_client_that_leaves_in_mid_answer_pays_for_what_was_used() -> None:
    async with open_file_bench(Ways(stops_after=2)) as bench:
        async with bench.gateway.open_chat(USER, ask_about(make_file(5000))) as chat:
            texts = 0
            while texts < 2:
                texts += sum(isinstance(event, TextDelta) for event in await chat.next_events())
            with trio.move_on_after(0.05):
                await chat.next_events()
                raise AssertionError("there was to be no more")
        bench.assert_charged(CHARGE)
        bench.assert_nothing_there()


async def test_a_call_that_its_user_cancels_leaves_no_file() -> None:
    async with open_file_bench(Ways(stops_after=1)) as bench:
        async with bench.gateway.open_chat(USER, ask_about(make_file(5000))) as chat:
            await chat.next_events()
            assert await chat.cancel()
            bench.assert_nothing_there()
        bench.assert_charged(CHARGE)


async def test_without_googles_word_a_video_costs_what_it_is_known_to_take() -> None:
    """Four seconds at 2 pictures: 8 pictures of 265 tokens, and 4 seconds of sound of 32."""
    async with open_file_bench(Ways(usage=None)) as bench:
        await bench.ask(ask_about(make_file(5000)))
        assert 2248 <= bench.settlement.usage.input_tokens <= 2248 + 20
        assert bench.settlement.provisional


async def test_a_file_of_ours_that_cannot_be_read_leaves_nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_self: MemoryFile, _offset: int, _most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        raise OSError("the disk is gone")

    async with open_file_bench() as bench:
        monkeypatch.setattr(MemoryFile, "read_at", fail)
        assert failure_of(await bench.ask(ask_about(make_file(5000)))).code == "internal_error"
        assert bench.google.steps.count("upload") == 1
        bench.assert_charged("0")
        bench.assert_nothing_there()


async def test_a_file_may_take_longer_than_a_first_token() -> None:
    hasty = Patience(first_token_seconds=0.1, total_seconds=20, retry_seconds=0)
    async with open_file_bench(Ways(polls_until_ready=10), patience=hasty) as bench:
        assert text_of(await bench.ask(ask_about(make_file(5000)))) == "A green field."


@pytest.mark.parametrize("step", ["start", "query", "get"])
async def test_a_provider_that_says_nothing_of_a_file_is_given_up(step: Step) -> None:
    pace = replace(HASTY, control_seconds=0.05, ready_seconds=5)
    async with open_file_bench(Ways(hangs={step}, breaks_after=[5]), pace=pace) as bench:
        assert failure_of(await bench.ask(ask_about(make_file(5000)))).code == "timeout_error"
        bench.assert_charged("0")
        assert bench.google.files == {}


async def test_the_whole_call_has_an_end_whatever_is_done_in_it() -> None:
    hasty = Patience(first_token_seconds=10, total_seconds=0.2, retry_seconds=0)
    async with open_file_bench(Ways(polls_until_ready=None), patience=hasty) as bench:
        failed = failure_of(await bench.ask(ask_about(make_file(5000))))
        assert (failed.code, failed.message) == ("timeout_error", "the answer took too long")
        bench.assert_charged("0")
        bench.assert_nothing_there()


async def test_an_address_at_another_host_gets_nothing() -> None:
    async with open_google_files() as other:
        elsewhere = f"{other.origin}/upload/v1beta/files?upload_id=1"
        async with open_file_bench(Ways(uploads_elsewhere=elsewhere)) as bench:
            assert failure_of(await bench.ask(ask_about(make_file(5000)))).code == "network_error"
            assert (bench.google.steps, other.steps) == (["start"], [])
            bench.assert_charged("0")


async def leave_a_file(bench: FileBench, key: str) -> str:
    """As a process does that is killed: nobody takes it away."""
    bench.google.ways.refusals["delete"] = [500] * 9
    await bench.ask(ask_about(make_file(5000)))
    bench.google.ways.refusals["delete"] = []
    [(name, stored)] = bench.google.files.items()
    assert stored.key == key
    return name


async def test_the_file_of_a_lost_call_is_taken_away_with_the_key_that_it_belongs_to() -> None:
    async with open_file_bench() as bench:
        name = await leave_a_file(bench, KEYS[0])
        upstream = replace(bench.gateway.upstreams["google"], api_keys=KEYS[::-1])
        gateway = replace(bench.gateway, upstreams={"google": upstream})
        assert await gateway.call_off("google", name) is None
        assert [asked.key for asked in bench.google.asked if asked.step == "delete"][-2:] == [KEYS[1], KEYS[0]]
        bench.assert_nothing_there()
        assert await gateway.call_off("google", name) is None  # safe to repeat


async def test_where_a_lost_file_is_gone_no_other_key_is_asked() -> None:
    async with open_file_bench(keys=KEYS[:1]) as bench:
        name = await leave_a_file(bench, KEYS[0])
        tried = len(bench.google.asked)
        upstream = replace(bench.gateway.upstreams["google"], api_keys=KEYS)
        await replace(bench.gateway, upstreams={"google": upstream}).call_off("google", name)
        assert [asked.key for asked in bench.google.asked[tried:]] == [KEYS[0]]


async def test_a_lost_file_that_may_be_there_still_is_told() -> None:
    async with open_file_bench() as bench:
        name = await leave_a_file(bench, KEYS[0])
        bench.google.ways.refusals["delete"] = [503]
        with pytest.raises(UpstreamError, match="gone"):
            await bench.gateway.call_off("google", name)
        assert await bench.gateway.call_off("nobody", name) is None
