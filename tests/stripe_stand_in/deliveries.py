"""Events on their way to the server that is tested, and what became of each."""

import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2
import trio

SECRET = "whsec_0123456789abcdefghijklmnop"
DELIVERY_SECONDS = 15


@dataclass(slots=True)
class Delivery:
    """An event as it was sent. `maker` says who made and signed it; `statuses` are the answers, None for a connection
    that broke.
    """

    type: str
    maker: Literal["localstripe", "front"]
    payload: bytes = field(repr=False)
    signature: str = field(repr=False)
    statuses: list[int | None] = field(default_factory=list)

    @property
    def event(self) -> Any:
        return json.loads(self.payload)

    @property
    def id(self) -> str:
        return str(self.event["id"])


def sign(payload: bytes, secret: str = SECRET, at: float | None = None) -> str:
    """https://docs.stripe.com/webhooks#verify-manually"""
    timestamp = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class Deliveries:
    """Sends to `url`, and keeps back what is not in `makers` or `types`; both may be changed at any time."""

    def __init__(self, client: httpx2.AsyncClient, nursery: trio.Nursery) -> None:
        self.url: str | None = None
        self.makers: Sequence[str] = ("localstripe", "front")
        self.types: Sequence[str] | None = None
        self.all: list[Delivery] = []
        self._client = client
        self._nursery = nursery
        self._answered = trio.Condition()

    def put_nowait(self, delivery: Delivery) -> None:
        self.all.append(delivery)
        if delivery.maker in self.makers and (self.types is None or delivery.type in self.types):
            self._nursery.start_soon(self.send, delivery)

    async def send(self, delivery: Delivery) -> int | None:
        """Signed anew, as Stripe does whenever it tries again; what localstripe signed goes as it is the first time."""
        if self.url is None:
            return None
        is_fresh = delivery.maker == "localstripe" and not delivery.statuses
        signature = delivery.signature if is_fresh else sign(delivery.payload)
        status = await self.post(delivery.payload, signature)
        async with self._answered:
            delivery.statuses.append(status)
            self._answered.notify_all()
        return status

    async def post(self, payload: bytes, signature: str | None) -> int | None:
        """Any bytes with any signature."""
        assert self.url is not None
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if signature is not None:
            headers["Stripe-Signature"] = signature
        with trio.move_on_after(DELIVERY_SECONDS):
            try:
                return (await self._client.post(self.url, content=payload, headers=headers)).status_code
            except httpx2.HTTPError:
                return None
        return None

    async def wait_answered(self, type_: str, maker: str, about: str = "", seconds: float = 10) -> Delivery:
        """The last delivery of the kind, as soon as it was answered; `about` is the id of its object, if that matters:
        what localstripe does for a subscriber it tells of a subscription too.
        """

        def fits(delivery: Delivery) -> bool:
            is_about = about in {"", delivery.event["data"]["object"]["id"]}
            return (delivery.type, delivery.maker) == (type_, maker) and is_about and bool(delivery.statuses)

        with trio.fail_after(seconds):
            async with self._answered:
                while not (found := [each for each in self.all if fits(each)]):
                    await self._answered.wait()
        return found[-1]
