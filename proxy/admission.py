"""What is decided before money moves: the route, the translation, the context window, the worst case."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Protocol
from uuid import UUID, uuid4, uuid5

import trio

from proxy.chat import ChatRequest
from proxy.errors import ContextWindowExceeded, RequestNotSupported
from proxy.ledger import Hold
from proxy.media import check_media
from proxy.pricing import check_priced, count_searches, encode_price, find_extras, worst_cost_usd
from proxy.provider import ProviderCall, Target
from proxy.routing import Model, Route, Upstream, find_routes
from proxy.tokens import Tokenizer, find_tokenizer, media_tokens, prompt_slices, search_tokens

EXPECTED_OUTPUT_TOKENS = 4096
"""The most of an answer that is reserved from an allowance. Clients ask for as much as a model can write, and most
answers are short: whole reservations would refuse what never comes. What is used beyond is drawn when the call ends.
"""
TOKENS_A_TURN = 8000
"""About a millisecond of counting, after which others may run."""


BuildCall = Callable[[Route, Target], ProviderCall]
"""Translates the request at hand. Raises RequestNotSupported."""


class Wanted(Protocol):
    """What every request says, whatever it is for."""

    @property
    def task_type(self) -> str: ...
    @property
    def idempotency_key(self) -> str | None: ...


@dataclass(slots=True)
class Admission:
    """A call that may start as soon as its hold stands.

    `call` is the request translated for the first target of the first route: what it cannot carry has been refused.
    Both are kept until the answer has begun, and no longer: prompts can be long, and streams last.
    """

    routes: tuple[Route, ...]
    build: BuildCall | None
    call: ProviderCall | None
    tokenizer: Tokenizer
    hold: Hold
    estimated_tokens: int
    """Prompt and answer, for the caller's allowance; the hold is made for the worst case."""

    @property
    def model(self) -> Model:
        return self.routes[0].model

    def build_call(self, route: Route, target: Target) -> ProviderCall:
        """The call for another target. Raises RequestNotSupported: not every provider can do what the first can."""
        if self.build is None or self.call is None:
            raise RuntimeError("the answer has begun: nobody else is asked")
        return self.call if target is self.routes[0].targets[0] else self.build(route, target)

    def forget_request(self) -> None:
        self.build = self.call = None


async def admit(
    models: Mapping[str, Model],
    upstreams: Mapping[str, Upstream],
    user_id: UUID,
    request: ChatRequest,
    api_key_id: UUID | None = None,
) -> Admission:
    """Validate and translate completely, and compute the worst case. Raises what `Gateway.open_chat` says."""
    routes = find_routes(models, upstreams, request.model, user_id)
    route, model = routes[0], routes[0].model
    _check_chats(model)
    check_media(request, route)
    check_priced(model.price, request)
    tokenizer = find_tokenizer(route.targets[0].provider_model)
    text_tokens = await _count_prompt(request, tokenizer, model.context_window)
    max_output = _max_output_tokens(request, model, text_tokens)
    request = replace(request, max_output_tokens=max_output, end_user=_pseudonym(user_id))
    call = route.provider.build_call(request, route.targets[0])
    prompt_tokens = _within_window(text_tokens + media_tokens(request, tokenizer), model)
    searches = count_searches(request, model.capabilities)
    worst_prompt_tokens = prompt_tokens + search_tokens(searches)
    amount_usd = worst_cost_usd(model.price, worst_prompt_tokens, max_output, searches, find_extras(request))
    hold = build_hold(route, request, amount_usd, prompt_tokens, user_id=user_id, api_key_id=api_key_id)
    estimated_tokens = worst_prompt_tokens + min(max_output, EXPECTED_OUTPUT_TOKENS)
    return Admission(routes, partial(_build_call, request), call, tokenizer, hold, estimated_tokens)


def build_hold(
    route: Route, wanted: Wanted, amount_usd: Decimal, prompt_tokens: int, *, user_id: UUID, api_key_id: UUID | None
) -> Hold:
    """For a call that has not begun, under a new id."""
    return Hold(
        id=uuid4(),
        user_id=user_id,
        amount_usd=amount_usd,
        model_id=route.model.id,
        provider_code=route.provider.code,
        task_type=wanted.task_type,
        prompt_tokens=prompt_tokens,
        price=encode_price(route.model.price),
        idempotency_key=wanted.idempotency_key,
        api_key_id=api_key_id,
    )


def _build_call(request: ChatRequest, route: Route, target: Target) -> ProviderCall:
    check_media(request, route)
    return route.provider.build_call(request, target)


def _check_chats(model: Model) -> None:
    if model.model_type == "transcription":
        raise RequestNotSupported(f"model: {model.id} transcribes audio and does not chat")


async def _count_prompt(request: ChatRequest, tokenizer: Tokenizer, context_window: int) -> int:
    """Slice by slice, so that a long prompt does not stop the others, and no further than the window reaches."""
    total = since_pause = 0
    for tokens in prompt_slices(request, tokenizer):
        total += tokens
        since_pause += tokens
        if context_window and total > context_window:
            raise ContextWindowExceeded(
                f"this model's maximum context length is {context_window} tokens, and the prompt has more:"
                " context window exceeded"
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


def _within_window(prompt_tokens: int, model: Model) -> int:
    """Media are estimated on the high side, by their bytes; a prompt that does not fit would be refused and cost
    nothing.
    """
    return min(prompt_tokens, model.context_window) if model.context_window else prompt_tokens


def _pseudonym(user_id: UUID) -> str:
    """The same for the same user, and of no use to anybody else."""
    return uuid5(user_id, "cloche end user").hex
