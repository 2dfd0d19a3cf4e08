"""Calls under way, by their ids: how one stands, and its end by another request than its own, on any process."""

from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple, cast
from uuid import UUID

import msgspec
import trio
from msgspec import UNSET, UnsetType
from quart import Blueprint

from proxy.audience import RunningCall
from proxy.events import Usage
from server.dialects.chunks import cache_write_tokens
from server.dialects.options import MAX_SHORT_TEXT, check_text
from server.errors import NotAllowed, NotFound
from server.guard import access, caller
from server.operations import operation
from server.services import services
from server.times import show_time
from storage.call_records import CallRecord, CallRecords, Ending
from storage.errors import DatabaseUnavailable, RedisUnavailable

END_SECONDS = 5
"""What takes longer goes on by itself, and whoever asked is told so."""
BEGIN_SECONDS = 0.5
"""A call's hold stands a moment before its process runs it: whoever is asked in between knows nothing of it."""
CANCELLED = "the call has ended, and was charged for what it had used"
FOLLOWS = "the call ends; what it has used is charged as soon as that is known, within some minutes"

CallStatus = Literal["active", "completed", "failed", "cancelled"]

blueprint = Blueprint("calls", __name__, url_prefix="/api/llm")


class CancelWish(msgspec.Struct, rename="camel"):
    """The call's id, or the `Idempotency-Key` that it was sent with."""

    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SHORT_TEXT)]


class CallUsage(msgspec.Struct, rename="camel"):
    """What was cached is a part of the prompt."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


class CancelAnswer(msgspec.Struct, rename="camel"):
    """`cost` and `usage` are there once the call is charged; until then its `status` is `active`."""

    success: bool
    message: str
    request_id: UUID
    status: Literal["cancelled", "active"]
    cost: Decimal | UnsetType = UNSET
    usage: CallUsage | UnsetType = UNSET


class CallAnswer(msgspec.Struct, rename="camel"):
    """`cost` in US dollars. It is `provisional` where the tokens were counted here, for the provider told none.
    `openaiResponseId` is that of an answer that OpenAI makes in the background.
    """

    request_id: UUID
    provider: str
    status: CallStatus
    openai_response_id: str | None = msgspec.field(name="openaiResponseId")
    created_at: str
    ended_at: str | UnsetType = UNSET
    cost: Decimal | UnsetType = UNSET
    usage: CallUsage | UnsetType = UNSET
    provisional: bool | UnsetType = UNSET


class Name(NamedTuple):
    """What a client calls a call by."""

    id: UUID | None
    idempotency_key: str | None


@blueprint.post("/cancel")
@access(budget="reads")  # which is open without Redis: what costs money can be ended then too
@operation("Cancel a call")
async def cancel(body: CancelWish) -> CancelAnswer:
    """Ends a call of yours, streamed or whole, whatever it does: the provider's connection is closed, and what had been
    used until then is charged. The answer comes when that is done. The call's own request ends with `stream_cancelled`,
    in OpenAI's dialect with an error, and with a 409 if it had not been answered yet. Where the process that runs it
    cannot be reached at once, the answer is `active`, and the call ends as soon as that process hears of it.

    404 says that there is no such call, or that it was over before.
    """
    name, user_id = read_name(body.request_id), caller().user_id
    running = services().running_calls.find(user_id, *name)
    if running is not None:
        return await _answer(running.request_id, await _end(running))
    record = await _find_record(name)
    if record.ending is not None:
        raise _over(record.id)
    has_ended = await _end_anywhere(record.id)
    if has_ended is None:
        await CallRecords(services().database).note_cancelled(user_id, record.id)
    return await _answer(record.id, has_ended)


@blueprint.get("/status/<uuid:request_id>")
@operation("Show how a call stands")
async def show(request_id: UUID) -> CallAnswer:
    """By its id: the provider that answers, and once it is over what it has used and cost."""
    record = await _find_record(Name(request_id, None))
    return describe(record, services().running_calls.find(caller().user_id, request_id))


def read_name(text: str) -> Name:
    """Raises RequestInvalid."""
    key = check_text(text, "requestId")
    with suppress(ValueError):
        return Name(UUID(text), key)
    return Name(None, key)


def describe(record: CallRecord, running: RunningCall | None) -> CallAnswer:
    """`running`: the call itself, if it is run here, which knows what it has used so far."""
    response_id = record.upstream_id if record.upstream_provider == "openai" else None
    answer = CallAnswer(record.id, record.provider_code, "active", response_id, show_time(record.created_at))
    if record.ending is not None:
        answer.status = cast(CallStatus, record.ending.outcome)
        answer.ended_at = show_time(record.ending.ended_at)
        answer.cost, answer.provisional = record.ending.cost_usd, record.ending.provisional
        answer.usage = _describe_ending(record.ending)
    elif running is not None:
        answer.usage = _describe_usage(running.usage_so_far())
    return answer


async def _find_record(name: Name) -> CallRecord:
    """Raises NotFound, and NotAllowed for one of somebody else's."""
    records = CallRecords(services().database)
    record = await records.find(caller().user_id, *name)
    if record is None and name.id is not None and await records.is_somebodys(name.id):
        raise NotAllowed("this call is not yours")
    if record is None:
        raise NotFound("you have no call of this id")
    return record


async def _end(running: RunningCall) -> bool | None:
    """None if it takes too long."""
    with trio.move_on_after(END_SECONDS):
        return await running.cancel()
    return None


async def _end_anywhere(call_id: UUID) -> bool | None:
    """None if nobody who runs it could be asked, twice: its process is gone, or cannot be reached."""
    ask_others, user_id = services().cancellations.ask_others, caller().user_id
    with suppress(RedisUnavailable), trio.move_on_after(END_SECONDS):
        if (has_ended := await ask_others(user_id, call_id)) is not None:
            return has_ended
        await trio.sleep(BEGIN_SECONDS)
        if (running := services().running_calls.find(user_id, call_id)) is not None:
            return await running.cancel()
        return await ask_others(user_id, call_id)
    return None


async def _answer(call_id: UUID, has_ended: bool | None) -> CancelAnswer:
    """What the accounts say counts. Raises NotFound if it was over before."""
    record: CallRecord | None = None
    with suppress(DatabaseUnavailable):  # it has been cancelled all the same
        record = await CallRecords(services().database).find(caller().user_id, call_id)
    ending = None if record is None else record.ending
    if has_ended is False or (ending is not None and ending.outcome != "cancelled"):
        raise _over(call_id)
    if ending is None:
        return CancelAnswer(True, FOLLOWS, call_id, "active")
    return CancelAnswer(True, CANCELLED, call_id, "cancelled", ending.cost_usd, _describe_ending(ending))


def _over(call_id: UUID) -> NotFound:
    return NotFound(f"the call {call_id} is over")


def _describe_usage(usage: Usage) -> CallUsage:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return CallUsage(prompt, completion, prompt + completion, usage.cache_read_tokens, cache_write_tokens(usage))


def _describe_ending(ending: Ending) -> CallUsage:
    prompt, completion = ending.input_tokens, ending.output_tokens
    return CallUsage(prompt, completion, prompt + completion, ending.cache_read_tokens, ending.cache_write_tokens)
