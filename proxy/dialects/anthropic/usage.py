"""How Anthropic counts: https://platform.claude.com/docs/en/api/messages/create#response.usage.

Its `input_tokens` leave out what was read from a cache or written to one, its `output_tokens` hold the thinking. In a
stream the figures of `message_delta` are cumulative, so each of them replaces that of `message_start`.
"""

import msgspec

from proxy.events import Usage


class CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class ServerToolUse(msgspec.Struct):
    web_search_requests: int | None = None


class WireUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None
    server_tool_use: ServerToolUse | None = None


def merge(earlier: WireUsage, later: WireUsage) -> WireUsage:
    """Field by field: what the later one does not say, the earlier one said."""
    said = {name: value for name in WireUsage.__struct_fields__ if (value := getattr(later, name)) is not None}
    return msgspec.structs.replace(earlier, **said)


def as_usage(wire: WireUsage) -> Usage:
    """In buckets that do not overlap. Thinking that is not told apart stays in the output."""
    output = _amount(wire.output_tokens)
    reasoning = min(_amount((wire.output_tokens_details or OutputDetails()).thinking_tokens), output)
    write, write_1h = _cache_writes(wire)
    return Usage(
        input_tokens=_amount(wire.input_tokens),
        cache_read_tokens=_amount(wire.cache_read_input_tokens),
        cache_write_tokens=write,
        cache_write_1h_tokens=write_1h,
        output_tokens=output - reasoning,
        reasoning_tokens=reasoning,
        searches=_amount((wire.server_tool_use or ServerToolUse()).web_search_requests),
    )


def _cache_writes(wire: WireUsage) -> tuple[int, int]:
    """For five minutes, and for an hour.

    The split comes at the start only, and writes between the searches of one answer are in the later total alone: they
    live as long as the others did.
    """
    split = wire.cache_creation or CacheCreation()
    short, long = _amount(split.ephemeral_5m_input_tokens), _amount(split.ephemeral_1h_input_tokens)
    total = _amount(wire.cache_creation_input_tokens) if wire.cache_creation_input_tokens is not None else short + long
    if long and not short:
        return 0, total
    long = min(long, total)
    return total - long, long


def _amount(tokens: int | None) -> int:
    return max(tokens or 0, 0)
