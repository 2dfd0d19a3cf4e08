"""What an answer has used, asked of its provider afterwards: for those that broke off before they said it."""

from proxy.errors import UpstreamBroken
from proxy.events import Usage
from proxy.provider import Target
from proxy.routing import Upstream
from proxy.transport import Transport

MAX_BODY_BYTES = 1024 * 1024


async def look_up(transport: Transport, upstream: Upstream, id_: str) -> Usage | None:
    """None if the provider does not know the answer, or does not know yet. Raises UpstreamError.

    Which of our keys it belongs to is not known: the others find nothing.
    """
    lookup, is_ill = upstream.provider.lookup, False
    if lookup is None:
        return None
    for key in upstream.api_keys:
        request = lookup.build_request(Target(upstream.base_url, key, ""), id_)
        async with transport.open_exchange(request) as exchange:
            body = await exchange.receive_all(MAX_BODY_BYTES)
        if exchange.status == 200 and (usage := lookup.read_usage(body, id_)) is not None:
            return usage
        is_ill = is_ill or exchange.status == 429 or exchange.status >= 500
    if is_ill:
        raise UpstreamBroken("the provider does not say now what an answer has used")
    return None
