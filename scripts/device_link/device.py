"""One device, as its app runs it: registers, beats, listens, acknowledges, and connects again when it is cut off.

What differs between desktop and phone is an App; this is what they have in common.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from scripts.device_link.acknowledging import Acknowledging, AppKind
from scripts.device_link.link import Link, LinkEnded, LinkRefused, Message, open_link
from scripts.device_link.memory import Memory
from scripts.device_link.methods import has_underscored_key

Heard = Message | bytes
AWAY = 1001
ACK_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Identity:
    """`client_type` is `desktop`, `mobile`, or empty: then the header is missing. `headers` are the credentials."""

    device_id: str
    client_type: str
    name: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def upgrade_headers(self) -> dict[str, str]:
        return {**self.headers, **({"X-Client-Type": self.client_type} if self.client_type else {})}


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds. `silence`: without a text or binary message for so long, the connection is given up; pings do not count
    there. `delays`: before each attempt to connect again, the last one for all that follow.
    """

    heartbeat: float = 30
    watch: float = 15
    silence: float = float("inf")
    registration: float = 10
    delays: tuple[float, ...] = (1, 2, 4, 8, 16, 30)
    retry_register: float = 0


DESKTOP_RHYTHM = Rhythm()
PHONE_RHYTHM = Rhythm(silence=45, delays=(0, 0.5, 1, 2, 4, 8, 16, 30), retry_register=0.2)


class App(Protocol):
    @property
    def kind(self) -> AppKind: ...

    def begin(self, device: "Device", link: Link, nursery: trio.Nursery) -> None:
        """Registered; the nursery ends with the connection."""

    def hear(self, message: Message) -> None: ...

    def hear_bytes(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The connection is over."""


class Device:
    """`received` is everything in order, over all connections, while `records`. `faults` is what an app would have
    dropped or reported; `endings` how each connection ended; `beats` and `pongs` are of the present one. `announce` is
    called before each connection.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        app: App,
        memory: Memory,
        rhythm: Rhythm = DESKTOP_RHYTHM,
        *,
        announce: Callable[[str, Identity], Awaitable[None]] | None = None,
        observe: Callable[[Heard], None] | None = None,
    ) -> None:
        self.url = url
        self.identity = identity
        self.memory = memory
        self.link: Link | None = None
        self.is_registered = False
        self.records = False
        self.received: list[Heard] = []
        self.events: list[Message] = []
        self.faults: list[Message] = []
        self.endings: list[LinkEnded] = []
        self.refusals: list[LinkRefused] = []
        self.registrations = 0
        self.invalid_resumes = 0
        self.beats = 0
        self.pongs = 0
        self.active_session_id: str | None = None
        self._app = app
        self._rhythm = rhythm
        self._announce = announce
        self._observe = observe
        self._news = trio.Event()
        self._gate: trio.Event | None = None
        self._acknowledging = Acknowledging(app.kind)
        self._heard_at = 0.0

    @property
    def device_id(self) -> str:
        return self.identity.device_id

    async def stay(self) -> None:
        """Until it is cancelled: connects, and again. What refuses for good raises."""
        attempt = 0
        while True:
            before = self.registrations
            try:
                self.endings.append(await self.live_once())
            except LinkRefused as refused:
                self.refusals.append(refused)
            self._tell()
            attempt = 0 if self.registrations > before else attempt + 1
            delays = self._rhythm.delays
            await trio.sleep(delays[min(attempt, len(delays) - 1)])

    async def live_once(self) -> LinkEnded:
        """One connection, to its end. Raises LinkRefused."""
        if self._announce is not None:
            await self._announce(self.url, self.identity)
        try:
            async with open_link(self.url, self.identity.upgrade_headers) as link:
                try:
                    return await self._live(link)
                finally:
                    self.link, self.is_registered = None, False
                    self._app.end()
        except LinkEnded as ended:
            return ended

    async def say(self, kind: str, payload: object = None) -> bool:
        """False without a connection; then others have had their turn, so it may be tried again at once."""
        link = self.link
        try:
            if link is not None:
                await link.send(kind, payload)
                return True
        except LinkEnded:
            pass
        await trio.lowlevel.checkpoint()
        return False

    async def publish(self, event_type: str, payload: object) -> bool:
        return await self.say("event", {"eventType": event_type, "payload": payload})

    def pause_reading(self) -> None:
        """One more message is taken at most; then the connection fills up."""
        self._gate = self._gate or trio.Event()

    def go_on_reading(self) -> None:
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    def cut(self) -> None:
        """RST, now."""
        if self.link is not None:
            self.link.cut()

    async def wait_for(self, holds: Callable[[], Any], seconds: float = 10) -> Any:
        """What it answers, once that is true; asked after everything that happens. Raises TooSlowError."""
        with trio.fail_after(seconds):
            while not (found := holds()):
                await self._news.wait()
        return found

    async def wait_heard(self, matches: Callable[[Message], object], start: int = 0, seconds: float = 10) -> Message:
        """The first of `received` from `start` on. Needs `records`."""

        def find() -> Message | None:
            return next((one for one in self.received[start:] if isinstance(one, dict) and matches(one)), None)

        found: Message = await self.wait_for(find, seconds)
        return found

    async def wait_registered(self, times: int = 1, seconds: float = 20) -> None:
        """For the so-manieth time, and still."""
        await self.wait_for(lambda: self.is_registered and self.registrations >= times, seconds)

    def note_news(self) -> None:
        """For apps: something happened that somebody may wait for."""
        self._tell()

    async def _live(self, link: Link) -> LinkEnded:
        self._heard_at = trio.current_time()
        self.beats = self.pongs = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_up_unregistered, link)
            self.link = link
            await self._register()
            ended = await self._listen(link, nursery)
            nursery.cancel_scope.cancel()
        return ended

    async def _register(self) -> None:
        memory = self.memory
        payload: dict[str, object] = {"deviceId": self.device_id, "deviceName": self.identity.name}
        if memory.session_id and memory.resume_token:
            payload |= {"sessionId": memory.session_id, "resumeToken": memory.resume_token}
        if memory.last_event_id is not None:
            payload["lastEventId"] = memory.last_event_id
        await self.say("register", payload)

    async def _listen(self, link: Link, nursery: trio.Nursery) -> LinkEnded:
        while True:
            if self._gate is not None:
                await self._gate.wait()
            try:
                heard = await link.receive()
            except LinkEnded as ended:
                return ended
            self._heard_at = trio.current_time()
            self._take(heard, link, nursery)
            self._tell()

    def _take(self, heard: Heard, link: Link, nursery: trio.Nursery) -> None:
        if self.records:
            self.received.append(heard)
        if self._observe is not None:
            self._observe(heard)
        if isinstance(heard, bytes):
            self._app.hear_bytes(heard)
        elif has_underscored_key(heard):
            self.faults.append(heard)
        else:
            self._take_message(heard, link, nursery)

    def _take_message(self, message: Message, link: Link, nursery: trio.Nursery) -> None:
        match message["type"]:
            case "registered" | "resumed":
                self._note_registered(message, link, nursery)
            case "pong":
                self.pongs += 1
            case "error" if message["code"] == "invalidResume":
                self.invalid_resumes += 1
                self.memory.forget_credentials()
                nursery.start_soon(self._register_again)
            case "error":
                self.faults.append(message)
            case "event":
                self._note_event(message, nursery)
        self._app.hear(message)

    def _note_registered(self, message: Message, link: Link, nursery: trio.Nursery) -> None:
        if message["type"] == "registered":
            self.memory.note_registered(message["sessionId"], message["resumeToken"])
        self.is_registered = True
        self.registrations += 1
        nursery.start_soon(self._beat)
        nursery.start_soon(self._watch)
        self._app.begin(self, link, nursery)

    def _note_event(self, message: Message, nursery: trio.Nursery) -> None:
        """As the apps: the same event twice is two events."""
        self.events.append(message)
        event_id = message.get("eventId")
        if event_id is None:
            return
        is_newer = self.memory.note_event(event_id)
        if self._app.kind == "phone" and is_newer:
            self.memory.save()
        due = self._acknowledging.note_event(event_id, trio.current_time())
        if due is not None:
            nursery.start_soon(self._acknowledge, due)

    async def _acknowledge(self, event_id: int) -> None:
        self.memory.save()
        await self.say("event-ack", {"lastEventId": event_id})

    async def _register_again(self) -> None:
        await trio.sleep(self._rhythm.retry_register)
        await self._register()

    async def _give_up_unregistered(self, link: Link) -> None:
        await trio.sleep(self._rhythm.registration)
        if not self.is_registered:
            await link.close(AWAY)

    async def _beat(self) -> None:
        """The desktop at once, and with the noise that it makes; the phone later. Its `pong` is for pings of the
        protocol, which do not come to our notice, but are as frequent.
        """
        is_desktop = self._app.kind == "desktop"
        if not is_desktop:
            await trio.sleep(self._rhythm.heartbeat)
        while await self.beat():
            await trio.sleep(self._rhythm.heartbeat)
            if is_desktop:
                await self.say("pong")

    async def beat(self) -> bool:
        payload: dict[str, object] = {}
        if self._app.kind == "desktop":
            unknown = dict.fromkeys(("cpuUsage", "memoryUsage", "diskSpaceGb"))
            payload = {"status": "online", **unknown, "activeJobs": 0}
        if self.active_session_id is not None:
            payload["activeSessionId"] = self.active_session_id
        link = self.link
        is_sent = await self.say("heartbeat", payload)
        self.beats += is_sent and link is self.link
        return is_sent

    async def _watch(self) -> None:
        """The phone's watchdog, and its acknowledgements, which come late."""
        if self._app.kind == "desktop":
            return
        looked_at = trio.current_time()
        while True:
            await trio.sleep(ACK_LOOK_SECONDS)
            now = trio.current_time()
            if (due := self._acknowledging.find_due(now)) is not None:
                await self.say("event-ack", {"lastEventId": due})
            if now - looked_at >= self._rhythm.watch:
                looked_at = now
                if now - self._heard_at > self._rhythm.silence and self.link is not None:
                    await self.link.close(AWAY)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
