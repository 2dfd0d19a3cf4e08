"""What the issuer publishes, kept fresh: asked by one at a time, and no more often for tokens that are made up."""

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from server.auth.access_tokens import REFUSED
from server.auth.issuer_documents import Published
from server.errors import IssuerUnavailable, NotAuthenticated

FRESH_SECONDS = 300.0
RETRY_SECONDS = 30.0
PAUSE_SECONDS = 1.0
"""After a failure, nobody asks for this long: those who want to sign in are told at once."""
LOOK_AGAIN_SECONDS = 10.0
"""Between two questions that a token with an unknown key gives rise to."""
WAIT_SECONDS = 8.0
"""For an answer that somebody else asked for, too; one question takes less."""
MAX_UNKNOWN = 1000

logger = logging.getLogger(__name__)


class IssuerKeys:
    """`fetch` asks the issuer, within a deadline of its own, or raises IssuerUnavailable."""

    def __init__(self, fetch: Callable[[], Awaitable[Published]]) -> None:
        self._fetch = fetch
        self._asking = trio.Lock()
        self._published: Published | None = None
        self._published_at = -math.inf
        """When the question began that this answers."""
        self._tried_at = -math.inf
        self._attempts = 0
        self._failure: IssuerUnavailable | None = None
        self._unknown: OrderedDict[str, None] = OrderedDict()

    async def read(self) -> Published:
        """What was last heard, however old; the issuer is asked if that is nothing. Raises IssuerUnavailable."""
        if self._published is not None:
            return self._published
        if self._failure is not None and trio.current_time() < self._tried_at + PAUSE_SECONDS:
            raise IssuerUnavailable(str(self._failure)) from self._failure
        return await self._ask()

    async def find(self, key_id: str) -> RSAPublicKey:
        """The key of this id. The issuer is asked again for one that it has not published, but once, and not for ten
        seconds after it was asked before.

        Raises NotAuthenticated if the issuer, asked since, has no such key. While it may not be asked, the key may be
        one that is just new: then IssuerUnavailable, so that nobody is signed out by a storm of invented keys.
        """
        came_at = trio.current_time()
        published = await self.read()
        if key_id not in published.keys and key_id not in self._unknown and self._may_look_again():
            published = await self._ask()
        if key := published.keys.get(key_id):
            return key
        if self._published_at >= came_at:
            self._note_unknown(key_id)
        if key_id in self._unknown:
            raise NotAuthenticated(REFUSED)
        raise IssuerUnavailable("a token has an unknown key, and the issuer was asked for its keys a moment ago")

    async def keep_fresh(self) -> None:
        """Ask now, and again and again. A failure keeps what is known; the log tells its beginning and its end."""
        has_failed = False
        while True:
            try:
                await self._ask()
            except IssuerUnavailable as error:
                if not has_failed:
                    reason = {"reason": str(error)}
                    logger.warning("the keys of the issuer cannot be fetched; those that are known go on", extra=reason)
                has_failed = True
            else:
                if has_failed:
                    logger.warning("the keys of the issuer can be fetched again")
                has_failed = False
            await trio.sleep(RETRY_SECONDS if has_failed else FRESH_SECONDS)

    def _may_look_again(self) -> bool:
        return self._asking.locked() or trio.current_time() >= self._tried_at + LOOK_AGAIN_SECONDS

    def _note_unknown(self, key_id: str) -> None:
        self._unknown[key_id] = None
        while len(self._unknown) > MAX_UNKNOWN:
            self._unknown.popitem(last=False)

    async def _ask(self) -> Published:
        """One at a time. Whoever comes meanwhile has the same answer, or the same failure; if who asks is cancelled,
        the next in line asks.
        """
        attempts = self._attempts
        try:
            with trio.fail_after(WAIT_SECONDS):
                async with self._asking:
                    if self._attempts == attempts:
                        await self._attempt()
        except trio.TooSlowError as error:
            raise IssuerUnavailable("the issuer did not answer in time") from error
        if self._failure is not None or self._published is None:
            raise IssuerUnavailable(str(self._failure)) from self._failure
        return self._published

    async def _attempt(self) -> None:
        self._tried_at = trio.current_time()
        try:
            self._published = await self._fetch()
        except IssuerUnavailable as error:
            self._failure = error
        else:
            self._failure, self._published_at = None, self._tried_at
        self._attempts += 1
