"""`/ws/events`: whatever happens to a user, as it happens, for who only listens; as a WebSocket or as a stream.

A watcher has one task that follows the user's events and keeps the connection alive. A WebSocket has two more: what
reads it, and what writes it; a stream is written by the task of its request.
"""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import msgspec
import trio

from server.auth.callers import Caller
from server.errors import RequestInvalid, TooManyWatchers
from server.live_configuration import EVERYTHING, LiveConfiguration
from server.relay.balance_watch import BalanceWatch
from server.relay.channels import Channels
from server.relay.chat_watch import ChatWatch
from server.relay.configuration_watch import ConfigurationWatch
from server.relay.endless import Loop, make_endless
from server.relay.event_lines import WatchWish, read_wish
from server.relay.events import Events
from server.relay.notification_watch import NotificationWatch
from server.relay.replies import PONG, build_error
from server.relay.sign_in_check import SIGNED_OUT, list_names, list_owners
from server.relay.watchers import Ending, Watcher, Watchers
from server.websocket import SocketClosed, WebSocket
from storage.credits import Credits
from storage.errors import RedisUnavailable, StorageError
from storage.notifications import Notifications
from storage.watched import WatchedUsers

BEAT_SECONDS = 30.0
"""A WebSocket is pinged so often, a stream is told a heartbeat."""
SILENCE_SECONDS = 75.0
"""A WebSocket from which nothing has come for so long, not even a pong, is closed; unless it takes what it is told."""
WAITED_SECONDS = 0.05
"""What took longer to write has waited for the client to read."""
STOP_SECONDS = 3.0
"""When a server stops, its watchers leave one by one within this time: they all come again elsewhere."""
RENEW_SECONDS, CHECK_SECONDS = 15.0, 60.0
FREE_TEXTS, TEXTS_PER_SECOND = 100, 5
"""What a client may say that only listens."""

POLICY, FAULT, RESTART, AWAY, SILENT = 1008, 1011, 1012, 1013, 4002
"""https://www.iana.org/assignments/websocket/websocket.xml#close-code-number; from 4000 on they are ours."""

READ_ONLY = "this socket only tells; devices speak at /ws/device-link"

HasEnded = Callable[[Caller], Awaitable[bool]]
HearStopping = Callable[[Callable[[], None]], object]

logger = logging.getLogger(__name__)


class _Said(msgspec.Struct):
    type: str = ""


@dataclass(frozen=True, slots=True)
class Watching:
    """One per process; `build_watching` puts it together. `has_ended`: whether the sign-in, the key or the account that
    a caller came with counts no more; it may raise StorageError.
    """

    events: Events
    channels: Channels
    watchers: Watchers
    watched: WatchedUsers
    balances: BalanceWatch
    configuration: ConfigurationWatch
    notifications: NotificationWatch
    chats: ChatWatch
    has_ended: HasEnded

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Each runs as long as the process."""
        chats = partial(self.chats.keep_telling, self.events.publish)
        return make_endless([self.keep_renewing, self.keep_checking, self.balances.keep_telling, chats])

    async def serve(self, websocket: WebSocket, caller: Caller) -> None:
        """The whole life of a WebSocket that has been accepted."""
        try:
            watcher = Watcher(caller, read_wish(websocket.query, websocket.headers))
            async with self._open(watcher, partial(_ping, watcher), websocket.hear_stopping) as nursery:
                nursery.start_soon(_write, watcher, websocket, nursery.cancel_scope)
                await watcher.hears.wait()
                with suppress(SocketClosed):
                    await _read(watcher, websocket)
        except RequestInvalid as error:
            await websocket.close(POLICY, str(error))
        except TooManyWatchers as error:
            await websocket.close(AWAY, str(error))

    @asynccontextmanager
    async def open_stream(
        self, caller: Caller, wish: WatchWish, hear_stopping: HearStopping
    ) -> AsyncIterator[Watcher]:
        """Its outbox has what the stream is to tell, heartbeats too, and is closed when the stream is to end. Raises
        TooManyWatchers.
        """
        watcher = Watcher(caller, wish)
        async with self._open(watcher, partial(_tell_heartbeat, watcher), hear_stopping):
            await watcher.hears.wait()
            yield watcher

    async def keep_renewing(self) -> None:
        """Never returns. Says, for all processes, whose events are watched here."""
        is_away = False
        while True:
            try:
                await self.watched.renew(tuple(self.watchers.users))
                is_away = False
            except RedisUnavailable as error:
                if not is_away:
                    logger.warning("it could not be told who watches events", extra={"reason": str(error)})
                is_away = True
            await trio.sleep(RENEW_SECONDS)

    async def keep_checking(self) -> None:
        """Never returns. What ended, and was told while nobody could hear it, is found in the next round."""
        while True:
            with trio.move_on_after(CHECK_SECONDS) as waiting:
                await self.watchers.wait_doubts()
            doubtful = self.watchers.take_doubtful()
            await self._check(self.watchers.list_all() if waiting.cancelled_caught else doubtful)

    async def hear_lost(self, owner: UUID) -> None:
        """Asks nobody, as below."""
        self.watchers.doubt(owner)

    async def hear_ended(self, _: UUID, name: bytes) -> None:
        """Whoever watches with it is sent away. Asks nobody: it is told on the way of everybody's events."""
        ended = name.decode()
        for watcher in self.watchers.list_all():
            if ended in list_names(watcher.caller):
                watcher.end(SIGNED_OUT, "signed out")

    async def _check(self, watchers: Collection[Watcher]) -> None:
        for watcher in watchers:
            try:
                if watcher.is_open and await self.has_ended(watcher.caller):
                    watcher.end(SIGNED_OUT, "signed out")
            except StorageError:
                return  # the next round looks again

    @asynccontextmanager
    async def _open(
        self, watcher: Watcher, beat: Callable[[], None], hear_stopping: HearStopping
    ) -> AsyncIterator[trio.Nursery]:
        with self.watchers.admit(watcher):
            async with trio.open_nursery() as nursery:
                hear_stopping(partial(_leave_soon, nursery, watcher))
                nursery.start_soon(self._follow, watcher, beat)
                try:
                    yield nursery
                finally:
                    watcher.is_open = False
                nursery.cancel_scope.cancel()

    async def _follow(self, watcher: Watcher, beat: Callable[[], None]) -> None:
        wish = watcher.wish
        try:
            if wish.last_event_id is not None:  # whatever happens meanwhile has a larger id
                _begin(watcher, beat)
            with suppress(RedisUnavailable):  # the next round says it
                await self.watched.renew([watcher.user_id])
            async with AsyncExitStack() as stack:
                for owner in list_owners(watcher.caller) - {watcher.user_id}:
                    await stack.enter_async_context(self.channels.keep(owner))
                watch = self.events.watch(watcher.user_id, watcher.outbox, wish.last_event_id, wish.wants)
                await stack.enter_async_context(watch)
                if wish.last_event_id is None:
                    _begin(watcher, beat)
                self.configuration.greet(watcher)
                while watcher.ending is None:
                    await trio.sleep(BEAT_SECONDS)
                    beat()
        except StorageError:
            watcher.end(AWAY, "events cannot be read right now: come again in a moment")
        except Exception:  # the edge of the watcher's task
            logger.exception("somebody could not watch events, by our own fault")
            watcher.end(FAULT, "something went wrong on our side")
        finally:
            watcher.hears.set()


def build_watching(  # noqa: PLR0913 - one for each thing that is watched
    *,
    events: Events,
    channels: Channels,
    chats: ChatWatch,
    watched: WatchedUsers,
    credits_: Credits,
    notifications: Notifications,
    live: LiveConfiguration,
    has_ended: HasEnded,
) -> Watching:
    """`chats` is the gateway's audience. Before the loops run."""
    watchers = Watchers()
    watching = Watching(
        events=events,
        channels=channels,
        watchers=watchers,
        watched=watched,
        balances=BalanceWatch(credits_, watchers),
        configuration=ConfigurationWatch(watchers, EVERYTHING),
        notifications=NotificationWatch(watched, notifications, events.publish),
        chats=chats,
        has_ended=has_ended,
    )
    live.hear_changed(watching.configuration.note_changed)
    channels.hear("ended", watching.hear_ended)
    channels.hear_lost(watching.hear_lost)
    return watching


async def _write(watcher: Watcher, websocket: WebSocket, everything: trio.CancelScope) -> None:
    """The last word is the close code."""
    with watcher.writing, suppress(SocketClosed):
        while (frames := await watcher.outbox.take()) is not None:
            await _send(watcher, websocket, frames)
            watcher.outbox.note_written(len(frames))
    ending = watcher.ending or Ending(FAULT, "")
    await websocket.close(ending.code, ending.reason)
    everything.cancel()


async def _send(watcher: Watcher, websocket: WebSocket, frames: bytes) -> None:
    """Whoever makes room for more lives, though it has yet to come to the ping."""
    began, watcher.is_writing = trio.current_time(), True
    await websocket.send(frames)
    watcher.is_writing = False
    if trio.current_time() - began > WAITED_SECONDS:
        watcher.note_life()


async def _read(watcher: Watcher, websocket: WebSocket) -> None:
    """Until the socket ends. Raises SocketClosed. While something is written the server's write deadline decides."""
    texts, began = 0, trio.current_time()
    watcher.note_life()
    while True:
        message: object = None
        with trio.move_on_at(watcher.life_at + SILENCE_SECONDS):
            message = await websocket.receive()
        if message is not None or watcher.is_writing:
            watcher.note_life()
        elif trio.current_time() >= watcher.life_at + SILENCE_SECONDS:
            watcher.end(SILENT, "nothing was heard of you for too long")
            await trio.sleep_forever()  # until who writes has said so
        if isinstance(message, str | bytes):
            texts += 1
            if texts > FREE_TEXTS + TEXTS_PER_SECOND * (trio.current_time() - began):
                watcher.end(POLICY, "this socket only tells")
            watcher.outbox.put_text(answer(message))


def answer(message: str | bytes) -> bytes:
    """To whatever a client says that only listens."""
    try:
        said = msgspec.json.decode(message, type=_Said).type if isinstance(message, str) else ""
    except msgspec.MsgspecError:
        said = ""
    if said in {"ping", "heartbeat"}:
        return PONG
    return build_error("readOnly", READ_ONLY, datetime.now(UTC))


def _begin(watcher: Watcher, beat: Callable[[], None]) -> None:
    """Its client may count on it from the first beat on."""
    watcher.hears.set()
    beat()


def _ping(watcher: Watcher) -> None:
    watcher.outbox.put_ping(b"heartbeat")


def _tell_heartbeat(watcher: Watcher) -> None:
    """As shipped clients of the stream know it."""
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    watcher.outbox.put_text(
        msgspec.json.encode({"type": "heartbeat", "timestamp": at, "userId": watcher.user_id})
    )


def _leave_soon(nursery: trio.Nursery, watcher: Watcher) -> None:
    if watcher.is_open:
        nursery.start_soon(_leave, watcher)


async def _leave(watcher: Watcher) -> None:
    await trio.sleep(random.uniform(0, STOP_SECONDS))  # noqa: S311 - not for secrets
    watcher.end(RESTART, "this server stops: come again")
