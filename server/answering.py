"""A call on behalf of the request at hand, whatever it is for: opened, and answered as a stream or whole."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quart import Response, request

from proxy.chat import ChatRequest
from proxy.collected import Collected
from proxy.events import Cancelled, ChatEvent, Failed
from proxy.gateway import Chat
from proxy.ledger import Allowance
from proxy.transcript import TranscriptRequest
from server.auth.callers import Caller
from server.connection import keep_open
from server.dialects.dialect import Encoder
from server.dialects.form_fields import Fields
from server.dialects.options import check_text
from server.errors import CANCELLED, ProviderFailed, RequestCancelled, RequestInvalid
from server.guard import caller
from server.services import services
from server.streaming import stream_response, wait_first
from server.uploads.form import Form, open_form
from server.uploads.stored_file import StoredFile


async def check_may_ask() -> None:
    """Before a body is read. Raises ConsentRequired, and what the stores raise."""
    if (gate := services().consent_gate) is not None:
        await gate.check(caller().user_id)


async def receive_upload(file_field: str, most_bytes: int) -> tuple[Fields, StoredFile]:
    """The text fields and the file of the caller's form; the file lasts as long as the request. Raises what
    `server.uploads.form.open_form` does, TooManyUploads, and RequestInvalid for a form without the file.
    """
    form = await keep_open(_open_upload(file_field, most_bytes))
    if form.file is None:
        raise RequestInvalid(f"{file_field}: send it as a file of the form")
    return form.fields, form.file


async def open_chat(asked: ChatRequest) -> Chat:
    """For the caller; it ends with the request. Raises what `Gateway.open_chat` does."""
    who = caller()
    return await keep_open(services().gateway.open_chat(who.user_id, asked, _open_allowance(who), who.key_id))


async def open_transcription(asked: TranscriptRequest) -> Chat:
    """The same."""
    who = caller()
    return await keep_open(services().gateway.open_transcription(who.user_id, asked, _open_allowance(who), who.key_id))


async def stream_answer(chat: Chat, encoder: Encoder, *, at_once: bool) -> Response:
    """With `at_once` the stream opens before the provider has said anything; else a failure may still be a status.
    Raises ProviderFailed and RequestCancelled.
    """
    keep_alive_seconds = services().config.keep_alive_seconds
    first = None if at_once else await wait_first(chat, keep_alive_seconds)
    if first:
        await _raise_failed(chat, first[0])
    return stream_response(chat, encoder, first, keep_alive_seconds)


async def collect_answer(chat: Chat) -> Collected:
    """The whole answer, settled. Raises ProviderFailed and RequestCancelled."""
    collected = await chat.collect()
    if collected.ended is not None:
        await _raise_failed(chat, collected.ended)
    return collected


def read_idempotency_key() -> str | None:
    """Of the request's header. Raises RequestInvalid."""
    return check_text(request.headers.get("Idempotency-Key"), "Idempotency-Key")


@asynccontextmanager
async def _open_upload(file_field: str, most_bytes: int) -> AsyncIterator[Form]:
    with services().uploads.open_one_more(caller().user_id):
        async with open_form(file_field, most_bytes) as form:
            yield form


def _open_allowance(who: Caller) -> Allowance:
    return services().limits.open_allowance(who.owner_id, who.key_id, who.verdict)


async def _raise_failed(chat: Chat, event: ChatEvent) -> None:
    """The client has not been answered yet, so a failure is a status. What it cost is settled before it is told."""
    if isinstance(event, Failed):
        await chat.settle()
        raise ProviderFailed(event)
    if isinstance(event, Cancelled):
        raise RequestCancelled(CANCELLED)
