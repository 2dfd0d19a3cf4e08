"""A file that is brought to a provider before it is asked about it, and taken away when the answer is over.

It has the shape of an exchange, so that the rest need not know: opening it uploads the file, waits until the provider
has it ready, and asks. Whoever leaves, at whatever moment, takes the file away; what cannot be taken away at once is
left to whoever settles the call, so that nobody waits for it.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from proxy.errors import FileNotReady, FileUnreadable, UpstreamBroken, UpstreamError, UpstreamTimedOut
from proxy.media_file import MediaFile
from proxy.provider import RemoteFile, RemoteFiles, Target, Upload, UpstreamRequest
from proxy.routing import Upstream
from proxy.transport import Exchange, Transport

MAX_BODY_BYTES = 64 * 1024
MAX_FAILED_LOOKUPS = 5
"""In a row. A provider that cannot be looked up for a moment goes on with its work all the same."""
PAUSE_GROWTH = 1.5
_GONE = {200, 403, 404}
"""Google answers 403 for a file that is not there, or that another key's project has."""

logger = logging.getLogger(__name__)

Removal = Callable[[], Awaitable[None]]
"""Never raises; whoever calls it bounds it."""


@dataclass(frozen=True, slots=True)
class FileNotes:
    """Who wants to know: under which name a file is about to be uploaded, and how one is removed that is still there.

    `begun` is waited for before the first byte goes out.
    """

    begun: Callable[[str], Awaitable[None]]
    left: Callable[[Removal], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, which can be handed on as an exchange: a refusal, mostly."""

    status: int
    headers: Mapping[str, str]
    body: bytearray = field(repr=False)

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        body = bytes(self.body)
        self.body.clear()
        return body

    async def receive_all(self, limit_bytes: int) -> bytes:
        return (await self.receive_some())[:limit_bytes]


@asynccontextmanager
async def open_uploaded(
    transport: Transport, request: UpstreamRequest, upload: Upload, notes: FileNotes
) -> AsyncIterator[Exchange]:
    """What the provider answers to the request with the file, or with what it refuses the file. Raises UpstreamError.

    The file is gone afterwards, or has been left to `notes`.
    """
    stay = _Stay(transport, upload, notes)
    try:
        brought = await stay.bring()
        if isinstance(brought, Reply):
            yield brought
        else:
            async with transport.open_exchange(upload.complete(request, brought.uri)) as exchange:
                yield exchange
    finally:
        with trio.move_on_after(upload.pace.removal_seconds, shield=True):
            await stay.end()
        if not stay.is_over:
            notes.left(stay.keep_ending)


async def take_away(transport: Transport, upstream: Upstream, name: str) -> None:
    """Remove the file of a call that is lost. Which of our keys it belongs to is not known: the others find nothing.

    Raises UpstreamError if it may be there still. Safe to repeat.
    """
    build, is_doubtful = upstream.provider.build_remote_files, False
    if build is None:
        return
    for key in upstream.api_keys:
        try:
            status = (await _ask(transport, build(Target(upstream.base_url, key, "")).build_delete(name))).status
        except UpstreamError:
            status = 0
        if status == 200:
            return
        is_doubtful = is_doubtful or status not in _GONE
    if is_doubtful:
        raise UpstreamBroken("the provider did not say that a file is gone")


class _Stay:
    """One file at the provider, from before it is there until it is gone."""

    def __init__(self, transport: Transport, upload: Upload, notes: FileNotes) -> None:
        self._transport = transport
        self._upload = upload
        self._remote: RemoteFiles = upload.remote
        self._pace = upload.pace
        self._notes = notes
        self._name = upload.remote.make_name()
        self._address = ""
        self._is_sent = False
        """Whether any of it may be there."""
        self._is_whole = False
        """Whether the provider has said that all of it is."""
        self._is_gone = False

    async def bring(self) -> RemoteFile | Reply:
        """The file, ready to be asked about, or what the provider refused it with. Raises UpstreamError."""
        file = self._upload.file
        begun = await self._ask(self._remote.build_start(self._name, self._upload.media_type, file.size_bytes))
        if begun.status != 200:
            return begun
        address = self._remote.read_address(begun.headers)
        if address is None:
            raise UpstreamBroken("the provider did not say where the file is to go, or named another host")
        self._address = address
        await self._notes.begun(self._name)
        sent = await self._send()
        return sent if sent.status != 200 else await self._wait_ready(await self._read_sent(sent))

    async def _send(self) -> Reply:
        """What the provider says to the last byte. A connection that breaks is made good for by another."""
        for pause in self._pace.resume_pauses:
            try:
                reply = await self._send_rest()
            except UpstreamError as error:
                logger.info("an upload broke off and is taken up again", extra={"reason": str(error)})
            else:
                if reply.status < 500:
                    return reply
            await trio.sleep(pause)
        return await self._send_rest()

    async def _send_rest(self) -> Reply:
        """From where the provider's part of it ends."""
        offset: int | None = 0
        if self._is_sent:
            found = await self._ask(self._remote.build_query(self._address))
            if found.status != 200:
                return found
            offset = self._remote.read_received(found.headers)
        if offset is None:
            return await self._ask(self._remote.build_lookup(self._name))
        self._is_sent = True
        rest = _Rest(self._upload.file, offset)
        return await _ask(self._transport, self._remote.build_upload(self._address, rest, offset))

    async def _read_sent(self, reply: Reply) -> RemoteFile:
        file = self._remote.read_file(bytes(reply.body))
        if file is None:
            raise UpstreamBroken("the provider did not say what became of a file")
        self._is_whole = True
        if file.name != self._name:  # it is the provider's to say, though it was told
            self._name = file.name
            await self._notes.begun(file.name)
        return file

    async def _wait_ready(self, file: RemoteFile) -> RemoteFile:
        """Raises FileNotReady, and FileUnreadable."""
        pause = self._pace.first_pause
        with trio.move_on_after(self._pace.ready_seconds):
            while file.state == "processing":
                await trio.sleep(pause)
                pause = min(pause * PAUSE_GROWTH, self._pace.last_pause)
                file = await self._look_up(pause)
        if file.state == "processing":
            raise FileNotReady("the provider did not get a file ready in time")
        if file.state == "failed":
            raise FileUnreadable("the provider could make nothing of a file")
        return file

    async def _look_up(self, pause: float) -> RemoteFile:
        for failed in range(1, MAX_FAILED_LOOKUPS + 1):
            try:
                reply = await self._ask(self._remote.build_lookup(self._name))
            except UpstreamError:
                if failed == MAX_FAILED_LOOKUPS:
                    raise
            else:
                file = self._remote.read_file(bytes(reply.body)) if reply.status == 200 else None
                if file is not None:
                    return file
            await trio.sleep(pause)
        raise UpstreamBroken("the provider no longer says how far it is with a file")

    @property
    def is_over(self) -> bool:
        """Whether nothing is left there."""
        return self._is_gone or not self._is_sent

    async def end(self) -> None:
        """One try, while the call still stands: should this process die before it, whoever settles the call does it.
        The end of the answer waits for this, so that whoever calls bounds it.
        """
        if not self.is_over:
            self._is_gone = await self._remove()

    async def keep_ending(self) -> None:
        """A few tries. Google removes files after 48 hours by itself, so that giving up is bearable."""
        with trio.move_on_after(self._pace.last_removal_seconds):
            for pause in (*self._pace.removal_pauses, 0.0):
                await self.end()
                if self.is_over:
                    return
                await trio.sleep(pause)
        logger.warning("a file could not be removed at its provider", extra={"file": self._name})

    async def _remove(self) -> bool:
        """Whether it is gone. What is still on its way must not become a file afterwards."""
        try:
            if not self._is_whole:
                await self._ask(self._remote.build_cancel(self._address))
            return (await self._ask(self._remote.build_delete(self._name))).status in _GONE
        except UpstreamError as error:
            logger.info("a file could not be removed at its provider yet", extra={"reason": str(error)})
            return False

    async def _ask(self, request: UpstreamRequest) -> Reply:
        """What is no upload is answered soon or not at all."""
        with trio.move_on_after(self._pace.control_seconds):
            return await _ask(self._transport, request)
        raise UpstreamTimedOut("the provider does not answer what it was asked about a file", "response")


@dataclass(frozen=True, slots=True)
class _Rest:
    """A file from some place on. Fits MediaFile."""

    whole: MediaFile
    start: int

    @property
    def size_bytes(self) -> int:
        return max(0, self.whole.size_bytes - self.start)

    async def read_at(self, offset: int, most_bytes: int) -> bytes:
        return await self.whole.read_at(self.start + offset, most_bytes)


async def _ask(transport: Transport, request: UpstreamRequest) -> Reply:
    async with transport.open_exchange(request) as exchange:
        return Reply(exchange.status, exchange.headers, bytearray(await exchange.receive_all(MAX_BODY_BYTES)))
