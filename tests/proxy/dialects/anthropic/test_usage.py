"""Anthropic's figures in our buckets."""

import msgspec
import pytest

from proxy.dialects.anthropic.usage import WireUsage, as_usage, merge
from proxy.events import Usage


def read(text: str) -> WireUsage:
    return msgspec.json.decode(text, type=WireUsage)


def test_buckets_do_not_overlap() -> None:
    usage = as_usage(
        read(
            '{"input_tokens":10,"output_tokens":100,"cache_read_input_tokens":20,"cache_creation_input_tokens":30,'
            '"cache_creation":{"ephemeral_5m_input_tokens":18,"ephemeral_1h_input_tokens":12},'
            '"output_tokens_details":{"thinking_tokens":60},"server_tool_use":{"web_search_requests":2}}'
        )
    )
    assert usage == Usage(10, 20, 18, 40, 60, 12, searches=2)
    assert (usage.prompt_tokens, usage.completion_tokens) == (60, 100)


def test_later_figures_replace_earlier_ones_field_by_field() -> None:
    earlier = read('{"input_tokens":10,"output_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":5}}')
    later = read('{"output_tokens":40,"cache_creation_input_tokens":7,"input_tokens":null}')
    assert as_usage(merge(earlier, later)) == Usage(input_tokens=10, output_tokens=40, cache_write_1h_tokens=7)


@pytest.mark.parametrize(
    ("creation", "writes"),
    [
        ('"cache_creation_input_tokens":9', (9, 0)),
        ('"cache_creation_input_tokens":9,"cache_creation":{}', (9, 0)),
        ('"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":5}', (4, 5)),
        ('"cache_creation_input_tokens":20,"cache_creation":{"ephemeral_1h_input_tokens":5}', (0, 20)),
        (
            '"cache_creation_input_tokens":20,'
            '"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":5}',
            (15, 5),
        ),
    ],
)
def test_cache_writes_add_up_to_the_total(creation: str, writes: tuple[int, int]) -> None:
    usage = as_usage(read(f"{{{creation}}}"))
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == writes


def test_figures_that_cannot_be_do_no_harm() -> None:
    usage = as_usage(
        read('{"input_tokens":-5,"output_tokens":3,"output_tokens_details":{"thinking_tokens":9},"server_tool_use":{}}')
    )
    assert usage == Usage(reasoning_tokens=3)
