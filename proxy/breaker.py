"""The circuit breaker as the gateway sees it: whether to ask a provider for a model now, and what an ending says of it.

There is one breaker for a provider's code with a model id of ours: a fallback asks the same model of another provider,
and the catalogue's answer tells a state beside the model that a client can name.
"""

from typing import Literal, Protocol

from proxy.events import Failed

BreakerState = Literal["closed", "open", "half_open"]

_PROVIDERS_FAULT = {
    "network_error",
    "timeout_error",
    "provider_internal_error",
    "provider_gateway_error",
    "provider_unavailable",
}


class Breakers(Protocol):
    """What is known of the providers' health. Nothing here raises: a breaker spares calls that would fail, and where it
    knows nothing, calls go on.
    """

    async def admit(self, provider: str, model: str) -> bool:
        """Whether to ask the provider now. At once while the breaker is closed or open.

        A breaker that has been open for long enough lets one call through in the whole deployment, and that may be this
        one: ask right before the call, and tell what became of it. A call that ends without a word (its client left)
        holds the place for some seconds.
        """
        ...

    async def note_success(self, provider: str, model: str) -> None:
        """The provider answered: the first event of an answer, or a refusal that `counts_against` leaves out. At once,
        unless the call was the one that a half-open breaker let through.
        """
        ...

    async def note_failure(self, provider: str, model: str, retry_after_seconds: float | None = None) -> None:
        """The call failed as in `counts_against`; the breaker then stays open for no less than what the provider asked
        for. Waits for one round trip at most.
        """
        ...

    def state(self, provider: str, model: str) -> BreakerState: ...


def counts_against(failed: Failed) -> bool:
    """Whether a failure tells of the provider's health: the request of another user would have failed likewise.

    What is wrong with a request or with our account does not, or one client could close a model to all others. A rate
    limit is our key's, so it does, if the provider says when it ends. A request that could never fit into the limit is
    refused with a 429 too: https://help.openai.com/en/articles/5955604. Nor does a 402: with OpenRouter it depends on
    how much a request may cost, and a smaller one is served.
    """
    if failed.status == 402:
        return False
    if failed.code == "rate_limit_exceeded":
        return failed.retry_after_seconds is not None and "request too large" not in failed.message.lower()
    return failed.code in _PROVIDERS_FAULT
