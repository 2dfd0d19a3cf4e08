"""Chat completions, in both dialects: one path inside, two encoders at its end."""

import time
from dataclasses import replace

from quart import Blueprint, Response, request

from proxy.events import ChatEvent, Failed
from proxy.gateway import Chat
from server.connection import keep_open
from server.dialects import openai, shipped
from server.dialects.completions import ChatAnswer, ChatCompletion
from server.dialects.dialect import Answer, Decoded, Dialect
from server.dialects.options import check_text
from server.errors import ProviderFailed
from server.guard import access, caller
from server.operations import EVENT_STREAM, IDEMPOTENCY, Content, operation, read_body
from server.services import services
from server.streaming import stream_response, wait_first

blueprint = Blueprint("chat", __name__)


@blueprint.post("/api/llm/chat/completions")
@access(budget="llm_requests", takes_large_body=True)
@operation(
    "Chat with a model",
    body=shipped.ChatWish,
    answers={200: (Content(ChatAnswer), Content(media_type=EVENT_STREAM))},
    headers=IDEMPOTENCY,
)
async def complete_shipped() -> Response:
    """Answers whole, or with `"stream": true` as server-sent events. Events without a name are chunks of the answer, as
    OpenAI has them (`chat.completion.chunk`). The others are `stream_started`, `usage_update` about once a second, and
    at the end either `stream_completed` with the final cost, or `error_details`. Comments keep a silent stream alive.

    Whoever closes the connection ends the call at once, and pays for what has come until then.
    """
    return await complete(shipped.DIALECT)


@blueprint.post("/v1/chat/completions")
@access(budget="llm_requests", takes_large_body=True)
@operation(
    "Chat with a model, as OpenAI's libraries do",
    body=openai.ChatCompletionWish,
    answers={200: (Content(ChatCompletion), Content(media_type=EVENT_STREAM))},
    headers=IDEMPOTENCY,
)
async def complete_openai() -> Response:
    """Answers whole, or with `"stream": true` as server-sent events without names: chunks of the answer
    (`chat.completion.chunk`), then `[DONE]`. With `stream_options.include_usage` the chunk before that tells what was
    used and charged. An error in mid-stream is an event with `error`, and no `[DONE]` follows it.

    Whoever closes the connection ends the call at once, and pays for what has come until then.
    """
    return await complete(openai.DIALECT)


async def complete(dialect: Dialect) -> Response:
    """The caller is known, so nobody else can make us read a body; then the request; then the call."""
    who = caller()
    if (gate := services().consent_gate) is not None:
        await gate.check(who.user_id)
    decoded = _with_idempotency_key(dialect.decode(await read_body()))
    allowance = services().limits.open_allowance(who.owner_id, who.key_id, who.verdict)
    chat = await keep_open(services().gateway.open_chat(who.user_id, decoded.request, allowance, who.key_id))
    answer = Answer(
        chat.request_id,
        f"chatcmpl-{chat.answer_id.hex}",
        chat.model,
        int(time.time()),
        decoded.include_usage,
        chat.usage_so_far,
    )
    if decoded.stream:
        return await _stream(dialect, chat, answer)
    return await _collect(dialect, chat, answer)


async def _stream(dialect: Dialect, chat: Chat, answer: Answer) -> Response:
    keep_alive_seconds = services().config.keep_alive_seconds
    first = None if dialect.answers_at_once else await wait_first(chat, keep_alive_seconds)
    if first:
        await _raise_failed(chat, first[0])
    return stream_response(chat, dialect.open_encoder(answer), first, keep_alive_seconds)


async def _collect(dialect: Dialect, chat: Chat, answer: Answer) -> Response:
    collected = await chat.collect()
    if collected.ended is not None:
        await _raise_failed(chat, collected.ended)
    return Response(dialect.encode_whole(answer, collected), content_type="application/json")


async def _raise_failed(chat: Chat, event: ChatEvent) -> None:
    """The client has not been answered yet, so a failure is a status. What it cost is settled before it is told."""
    if isinstance(event, Failed):
        await chat.settle()
        raise ProviderFailed(event)


def _with_idempotency_key(decoded: Decoded) -> Decoded:
    """The header, where there is one, else what the body had."""
    key = check_text(request.headers.get("Idempotency-Key"), "Idempotency-Key")
    if key is None:
        return decoded
    return replace(decoded, request=replace(decoded.request, idempotency_key=key))
