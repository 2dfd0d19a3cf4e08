"""Every recorded exchange with Anthropic's Messages API, read and asked for anew."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from proxy.chat import ToolCall
from proxy.errors import RequestNotSupported
from proxy.events import Usage
from proxy.provider import Target
from proxy.providers.anthropic import build_call, open_reader, read_refusal
from tests.proxy.anthropic_requests import CannotBeSaid, normalized, read_capabilities, read_request
from tests.proxy.exchanges import MADE, RecordedExchange, read_exchanges
from tests.proxy.replay import Answer, assert_harmless, assert_says, missing_fields, mutate

MADE_EXCHANGES = read_exchanges(MADE, "anthropic", "messages")
FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

LEFT_OUT = {"stream": "always streamed: a whole answer is the stream collected"}
NO_MARK = {"tools.cache_control": "a search of ours has no place for a mark; those of tools and messages are sent"}
NO_HOSTS = {"mcp_servers": "which hosts are called is not for a request to say"}
LEFT_OUT_OF_ONE = {
    "anthropic-b-search-tool-stream-anthropic-claude-sonnet-4-0-0cfeb436": NO_MARK,
    "anthropic-test-web-search-tool-anthropic-claude-sonnet-4-0-db55fe0e": NO_MARK,
    "anthropic-mcps-native-format-anthropic-fa2af7c9": NO_HOSTS,
    "anthropic-test-anthropic-test-anthropic-mcp-servers-stream-aa7f4081": NO_HOSTS,
    "anthropic-anthropic-beta-structured-outputs-5bf9622c": {
        "output_config.format.json_schema": "OpenAI's spelling, which Anthropic refused: we send the schema in its own"
    },
}
NOT_SAID = {
    "anthropic-5-can-understand-remote-images-without-extension-c4291516": "url: remote addresses are refused",
    "anthropic-pdf-document-citations-decode-as-page-locations-24e18210": "url: remote addresses are refused",
    "anthropic-loadintegration-test-describe-image-with-file-id-01dd4416": "file: names what is in our own account",
    "anthropic-ion-files-cache-prefix-stable-automatic-sonnet-5-adfef4f3": "container_upload: as above",
    "anthropic-n-files-cache-prefix-stable-automatic-sonnet-4-6-188aa9d4": "container_upload: as above",
    "anthropic-ilability-portability-matrix-r4-t1-tool-addition-59682e47": (
        "tool_addition: tools are the same for a whole conversation of ours"
    ),
}
"""The kind of block that the vocabulary has no words for, and why."""
NOT_SENT = {
    "anthropic-c-test-anthropic-text-editor-code-execution-tool-87573db0": "code_execution_20260120",
    "anthropic-t-anthropic-test-anthropic-advisor-tool-redacted-b918e851": "advisor_20260301",
}
"""Tools that cost more than tokens, which the builder refuses by their names and with the reason."""


def expected(exchange: RecordedExchange) -> Answer:
    expect = exchange.expect
    failed = expect["error"] is not None
    return Answer(
        text=expect["text"] or "",
        reasoning=expect["reasoning_text"] or "",
        refusal=expect["refusal"] or "",
        tool_calls=tuple(_tool_call(call, expect["stream"]) for call in expect["tool_calls"]),
        finish_reasons=() if failed else (FINISH_REASONS[expect["finish_reason"]],),
        usage=_usage(expect),
        citations=expect["citations"] or 0,
        failed=failed,
    )


def _tool_call(call: dict[str, str], is_stream: bool) -> ToolCall:
    """In a whole answer arguments are no text but JSON, whose white space says nothing."""
    arguments = call["arguments_raw"]
    return ToolCall(call["id"], call["name"], arguments if is_stream else msgspec.json.format(arguments, indent=-1))


def _usage(expect: dict[str, object]) -> Usage | None:
    usage, raw = expect["usage"], expect["usage_raw"]
    if not isinstance(usage, dict) or not isinstance(raw, dict):
        return None
    start, end = raw.get("message_start", raw), raw.get("message_delta", raw)
    hour = (start.get("cache_creation") or {}).get("ephemeral_1h_input_tokens", 0)
    reasoning = usage["reasoning"] or 0
    return Usage(
        input_tokens=usage["input"],
        cache_read_tokens=usage["cached_read"] or 0,
        cache_write_tokens=(usage["cache_write"] or 0) - hour,
        cache_write_1h_tokens=hour,
        output_tokens=usage["output"] - reasoning,
        reasoning_tokens=reasoning,
        searches=(end.get("server_tool_use") or {}).get("web_search_requests", 0),
    )


def assert_refusal_is_told(exchange: RecordedExchange) -> None:
    failed = read_refusal(exchange.status, exchange.headers, exchange.body)
    error = exchange.expect["error"]
    assert (failed.status, failed.provider_error_type) == (exchange.status, error["type"] or "")
    if exchange.status in {401, 403}:
        assert failed.message not in error["message"]  # it may name our key or our organisation
    else:
        assert failed.message == error["message"][:500]


def missing(exchange: RecordedExchange) -> list[str]:
    request = read_request(exchange.request)
    target = Target("https://api.test/v1", "key", exchange.request["model"], read_capabilities(exchange.request))
    sent = json.loads(build_call(request, target).request.body)
    left_out = LEFT_OUT | LEFT_OUT_OF_ONE.get(exchange.id, {})
    return missing_fields(normalized(exchange.request), normalized(sent), left_out)


def test_the_same_is_asked_for_as_in_the_made_exchanges() -> None:
    assert {exchange.id: missing(exchange) for exchange in MADE_EXCHANGES if missing(exchange)} == {}


@pytest.mark.parametrize("exchange", MADE_EXCHANGES, ids=lambda exchange: exchange.id)
def test_a_made_answer_says_what_is_expected(exchange: RecordedExchange) -> None:
    if exchange.status == 200:
        assert_says(open_reader, exchange, expected(exchange))
    else:
        assert_refusal_is_told(exchange)


def test_every_recorded_answer_is_read(recordings: Path, count_replayed: Callable[[str, int], None]) -> None:
    answers = [one for one in read_exchanges(recordings, "anthropic", "messages") if one.status == 200]
    for exchange in answers:
        assert_says(open_reader, exchange, expected(exchange))
    assert len(answers) == 100
    count_replayed("anthropic, answers read", len(answers))


def test_every_recorded_refusal_is_told(recordings: Path, count_replayed: Callable[[str, int], None]) -> None:
    refusals = [one for one in read_exchanges(recordings, "anthropic", "messages") if one.status != 200]
    for exchange in refusals:
        assert_refusal_is_told(exchange)
    assert len(refusals) == 12
    count_replayed("anthropic, refusals told", len(refusals))


def test_every_recorded_request_is_sent_as_it_was(
    recordings: Path, count_replayed: Callable[[str, int], None]
) -> None:
    exchanges = read_exchanges(recordings, "anthropic", "messages")
    sent = [one for one in exchanges if one.id not in NOT_SAID and one.id not in NOT_SENT]
    assert {exchange.id: missing(exchange) for exchange in sent if missing(exchange)} == {}
    assert (len(exchanges), len(sent)) == (112, 104)
    count_replayed("anthropic, requests sent", len(sent))


def test_what_cannot_be_asked_for_is_refused_with_its_reason(recordings: Path) -> None:
    exchanges = {one.id: one for one in read_exchanges(recordings, "anthropic", "messages")}
    for id_, reason in NOT_SAID.items():
        with pytest.raises(CannotBeSaid, match=reason.partition(":")[0]):
            read_request(exchanges[id_].request)
    for id_, name in NOT_SENT.items():
        with pytest.raises(RequestNotSupported, match=name):
            missing(exchanges[id_])


def test_no_exception_is_listed_in_vain(recordings: Path) -> None:
    exchanges = {one.id: one for one in read_exchanges(recordings, "anthropic", "messages")}
    for id_, fields in LEFT_OUT_OF_ONE.items():
        body = normalized(exchanges[id_].request)
        assert missing_fields(body, {**body, **dict.fromkeys(_tops(fields))}, {}), id_


def _tops(fields: dict[str, str]) -> set[str]:
    return {field.partition(".")[0] for field in fields}


def test_mutilated_recorded_answers_are_harmless(recordings: Path) -> None:
    dice = random.Random(3)  # noqa: S311 - not for secrets
    for exchange in read_exchanges(recordings, "anthropic", "messages"):
        for _ in range(5 if len(exchange.body) < 20_000 else 1):
            assert_harmless(open_reader, exchange, mutate(exchange.body, dice), dice)
            read_refusal(500, {}, mutate(exchange.body, dice))
