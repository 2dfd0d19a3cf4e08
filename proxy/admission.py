"""What is decided before money moves: the route, the translation, the context window, the worst case."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID, uuid4, uuid5

import trio

from proxy.chat import ChatRequest
from proxy.errors import ContextWindowExceeded
from proxy.ledger import Hold
from proxy.media import check_media
from proxy.pricing import encode_price, worst_cost_usd
from proxy.provider import UpstreamRequest
from proxy.routing import Model, Route, Upstream, find_route
from proxy.tokens import media_tokens, prompt_slices

TOKENS_A_TURN = 8000
"""About a millisecond of counting, after which others may run."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A call that may start as soon as its hold stands."""

    route: Route
    upstream_request: UpstreamRequest
    hold: Hold


async def admit(
    models: Mapping[str, Model], upstreams: Mapping[str, Upstream], user_id: UUID, request: ChatRequest
) -> Admission:
    """Validate and translate completely, and compute the worst case. Raises what `Gateway.open_chat` says."""
    route = find_route(models, upstreams, request.model)
    check_media(request, route)
    text_tokens = await _count_prompt(request, route.model.context_window)
    max_output = _max_output_tokens(request, route.model, text_tokens)
    request = replace(request, max_output_tokens=max_output, end_user=_pseudonym(user_id))
    upstream_request = route.provider.build_request(request, route.target)
    prompt_tokens = text_tokens + media_tokens(request)
    hold = Hold(
        id=uuid4(),
        user_id=user_id,
        amount_usd=worst_cost_usd(route.model.price, prompt_tokens, max_output),
        model_id=route.model.id,
        provider_code=route.provider.code,
        task_type=request.task_type,
        prompt_tokens=prompt_tokens,
        price=encode_price(route.model.price),
        idempotency_key=request.idempotency_key,
    )
    return Admission(route, upstream_request, hold)


async def _count_prompt(request: ChatRequest, context_window: int) -> int:
    """Slice by slice, so that a long prompt does not stop the others, and no further than the window reaches."""
    total = since_pause = 0
    for tokens in prompt_slices(request):
        total += tokens
        since_pause += tokens
        if context_window and total > context_window:
            raise ContextWindowExceeded(
                f"the prompt has more tokens than {request.model} can take: context window exceeded"
                f" ({context_window} tokens)"
            )
        if since_pause > TOKENS_A_TURN:
            since_pause = 0
            await trio.lowlevel.checkpoint()
    return total


def _max_output_tokens(request: ChatRequest, model: Model, prompt_tokens: int) -> int:
    """What the client asked for, bounded by the model and by the room that the prompt leaves."""
    limit = min(request.max_output_tokens or model.max_output_tokens, model.max_output_tokens)
    if model.context_window:
        limit = min(limit, max(1, model.context_window - prompt_tokens))
    return limit


def _pseudonym(user_id: UUID) -> str:
    """The same for the same user, and of no use to anybody else."""
    return uuid5(user_id, "cloche end user").hex
