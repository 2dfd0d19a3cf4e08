"""Chat completions, in both dialects: one path inside, two encoders at its end."""

import time
from dataclasses import replace

from quart import Blueprint, Response

from server.answering import check_may_ask, collect_answer, open_chat, read_idempotency_key, stream_answer
from server.dialects import openai, shipped
from server.dialects.completions import ChatAnswer, ChatCompletion
from server.dialects.dialect import Answer, Decoded, Dialect
from server.guard import access
from server.operations import EVENT_STREAM, IDEMPOTENCY, Content, operation, read_body

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
    at the end `stream_completed` with the final cost, or `error_details`, or `stream_cancelled` after
    `/api/llm/cancel`. Comments keep a silent stream alive.

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
    used and charged. An error in mid-stream is an event with `error`, and no `[DONE]` follows it; after
    `/api/llm/cancel` its code is `request_cancelled`.

    Whoever closes the connection ends the call at once, and pays for what has come until then.
    """
    return await complete(openai.DIALECT)


async def complete(dialect: Dialect) -> Response:
    """The caller is known, so nobody else can make us read a body; then the request; then the call."""
    await check_may_ask()
    decoded = _with_idempotency_key(dialect.decode(await read_body()))
    chat = await open_chat(decoded.request)
    answer = Answer(
        chat.request_id,
        f"chatcmpl-{chat.answer_id.hex}",
        chat.model,
        int(time.time()),
        decoded.include_usage,
        chat.usage_so_far,
    )
    if decoded.stream:
        return await stream_answer(chat, dialect.open_encoder(answer), at_once=dialect.answers_at_once)
    return Response(dialect.encode_whole(answer, await collect_answer(chat)), content_type="application/json")


def _with_idempotency_key(decoded: Decoded) -> Decoded:
    """The header, where there is one, else what the body had."""
    key = read_idempotency_key()
    if key is None:
        return decoded
    return replace(decoded, request=replace(decoded.request, idempotency_key=key))
