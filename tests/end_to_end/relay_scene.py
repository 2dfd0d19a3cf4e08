"""Servers with the same stores, and a user's devices on them: what tests of the relay begin with."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2
import trio

from scripts.device_link.announcing import Announcer
from scripts.device_link.desktop import Desktop, Method
from scripts.device_link.device import Device, Identity, Rhythm
from scripts.device_link.link import Link, LinkEnded, Message, open_link
from scripts.device_link.memory import Memory
from scripts.device_link.phone import Phone
from server.auth.tokens import issue_token
from tests.end_to_end.cloche import SECRET, Cloche, Customer, Stores, open_cloche

OUTAGE = "server.outage"
"""Says that Redis is away, in tests that take it away."""
QUICK = Rhythm(delays=(0.02, 0.1, 0.2), retry_register=0.01)
"""Back as soon as may be; beats as the apps do."""


@dataclass(slots=True)
class Machine:
    """A desktop."""

    device: Device
    app: Desktop


@dataclass(slots=True)
class Pocket:
    """A phone."""

    device: Device
    app: Phone

    async def wait_bound(self, session_id: str, times: int = 1) -> None:
        await self.device.wait_for(lambda: self.app.bound[session_id] >= times)

    async def wait_output(self, session_id: str, size: int, seconds: float = 20) -> bytes:
        """Until so many bytes of the terminal have come; all of them."""
        output = self.app.output.setdefault(session_id, bytearray())
        await self.device.wait_for(lambda: len(output) >= size, seconds)
        return bytes(output)


@dataclass(slots=True)
class Scene:
    """Devices are of `owner`, unless another user is named. With one server they are all on that."""

    stores: Stores
    servers: list[Cloche]
    owner: Customer
    nursery: trio.Nursery
    announcer: Announcer
    devices: list[Device] = field(default_factory=list)
    stops: dict[str, trio.CancelScope] = field(default_factory=dict)

    @property
    def first(self) -> Cloche:
        return self.servers[0]

    @property
    def last(self) -> Cloche:
        return self.servers[-1]

    async def add_server(self, **settings: str) -> Cloche:
        """As somebody who has the former one's place."""
        await start_server(self.nursery, self.stores, settings, self.servers)
        return self.last

    async def open_desktop(
        self,
        at: Cloche | None = None,
        *,
        methods: dict[str, Method] | None = None,
        session: str | None = None,
        rhythm: Rhythm = QUICK,
    ) -> Machine:
        """Reachable, on the first server unless another is named."""
        app = Desktop(methods, announces_session=session)
        identity = make_identity(self.owner, "desktop")
        return Machine(await self.open(Device(self._url(at, 0), identity, app, Memory(), rhythm)), app)

    async def open_phone(
        self,
        at: Cloche | None = None,
        *,
        hear_output: Callable[[str, bytes], None] | None = None,
        client_type: str = "mobile",
        rhythm: Rhythm = QUICK,
    ) -> Pocket:
        """Reachable, on the last server unless another is named."""
        app = Phone(hear_output=hear_output)
        identity = make_identity(self.owner, client_type)
        return Pocket(await self.open(Device(self._url(at, -1), identity, app, Memory(), rhythm)), app)

    async def open(self, device: Device) -> Device:
        device.records = True
        self.devices.append(device)
        before = device.registrations
        self.nursery.start_soon(self._run, device)
        await device.wait_registered(before + 1)
        return device

    def stop(self, device: Device) -> None:
        """For good: its app is closed. Nothing is said to the server but a close frame."""
        self.stops[device.device_id].cancel()

    def move(self, device: Device, server: Cloche) -> None:
        """From its next connection on."""
        device.url = server.url

    async def open_bare(
        self, stack: AsyncExitStack, at: Cloche | None = None, *, client_type: str = "mobile", device_id: str = ""
    ) -> Link:
        """A socket that has not registered."""
        identity = make_identity(self.owner, client_type, device_id)
        return await stack.enter_async_context(open_link(self._url(at, -1), identity.upgrade_headers))

    async def _run(self, device: Device) -> None:
        with trio.CancelScope() as self.stops[device.device_id]:
            await device.stay()

    def _url(self, at: Cloche | None, index: int) -> str:
        return (at or self.servers[index]).url


@asynccontextmanager
async def open_scene(stores: Stores, count: int = 1, **settings: str) -> AsyncIterator[Scene]:
    """So many servers with the same stores. At its end no device has been told anything that an app drops or reports,
    unless the test took that away, and no server has logged an error.
    """
    async with httpx2.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
        servers = await start_servers(nursery, stores, count, settings)
        owner = await servers[0].make_customer()
        scene = Scene(stores, servers, owner, nursery, Announcer(client))
        yield scene
        faults = [fault for device in scene.devices for fault in device.faults]
        errors = [line for cloche in servers for line in cloche.find_logged('"level":"ERROR"')]
        errors = [line for line in errors if line["logger"] != OUTAGE]
        assert (faults, errors) == ([], [])
        nursery.cancel_scope.cancel()


async def start_servers(
    nursery: trio.Nursery, stores: Stores, count: int, settings: Mapping[str, str]
) -> list[Cloche]:
    """Side by side; stopped with the nursery."""
    servers: list[Cloche] = []
    async with trio.open_nursery() as starting:
        for _ in range(count):
            starting.start_soon(start_server, nursery, stores, settings, servers)
    return servers


async def start_server(
    nursery: trio.Nursery, stores: Stores, settings: Mapping[str, str], servers: list[Cloche]
) -> None:
    servers.append(await nursery.start(serve, stores, settings))


async def serve(
    stores: Stores, settings: Mapping[str, str], *, task_status: trio.TaskStatus[Cloche] = trio.TASK_STATUS_IGNORED
) -> None:
    """Killed at its end: a stop would wait until the links of its devices have had their grace."""
    async with open_cloche(stores, settings=settings) as cloche:
        try:
            task_status.started(cloche)
            await trio.sleep_forever()
        finally:
            if cloche.process.poll() is None:
                cloche.kill()


def make_identity(owner: Customer, client_type: str, device_id: str = "", name: str = "Studio") -> Identity:
    """The same user on a device of its own."""
    device = device_id or str(uuid4())
    token = issue_token(
        SECRET, user_id=owner.user_id, email="ann@example.com", role="user", device_id=device, now=time.time(), days=1
    )
    headers = {"Authorization": f"Bearer {token}", "X-Device-ID": device, "X-Token-Binding": device}
    return Identity(device, client_type, name, headers)


def as_customer(device: Device, owner: Customer) -> Customer:
    """Who the device is to the rest of the server."""
    return Customer(owner.user_id, dict(device.identity.headers))


async def register(link: Link, device_id: str | UUID, **members: object) -> Message:
    """By hand; the answer."""
    await link.send("register", {"deviceId": str(device_id), "deviceName": "Bare", **members})
    return await receive(link)


async def receive(link: Link, seconds: float = 10) -> Message:
    with trio.fail_after(seconds):
        heard = await link.receive()
    assert isinstance(heard, dict), heard
    return heard


async def wait_ended(link: Link, seconds: float = 10) -> LinkEnded:
    """Whatever comes before the end is read away."""
    with trio.fail_after(seconds):
        while True:
            try:
                await link.receive()
            except LinkEnded as ended:
                return ended


def is_event(event_type: str, **members: object) -> Callable[[Message], bool]:
    """Whether a message is an event of that type, with these members in its payload."""

    def matches(message: Message) -> bool:
        if message["type"] != "event" or message["payload"]["eventType"] != event_type:
            return False
        payload = message["payload"]["payload"]
        return all(payload.get(name) == value for name, value in members.items())

    return matches


def is_status(device: Device, status: str) -> Callable[[Message], bool]:
    return is_event("device-status", deviceId=device.device_id, status=status)


def events_of(device: Device, event_type: str = "", start: int = 0) -> list[Message]:
    """Of one type, or all that have an id."""
    events = [one for one in device.received[start:] if isinstance(one, dict) and one["type"] == "event"]
    if not event_type:
        return [event for event in events if "eventId" in event]
    return [event for event in events if event["payload"]["eventType"] == event_type]


def numbers_of(events: Iterable[Message]) -> list[Any]:
    return [event["payload"]["payload"]["number"] for event in events]


async def publish_numbers(device: Device, numbers: Iterable[int], event_type: str = "session-updated") -> None:
    """Events that can be told apart; all have been taken by the server when this returns."""
    for number in numbers:
        assert await device.publish(event_type, {"number": number})
    await beat(device)


async def wait_back(device: Device, times: int, seconds: float = 20) -> None:
    """Registered for the so-manieth time, and reachable for others: an answer to what it says next proves it."""
    await device.wait_registered(times, seconds)
    await beat(device)


async def beat(device: Device) -> None:
    """Everything that the device said before has been taken by the server when this returns."""
    start = len(device.received)
    assert await device.beat()
    await device.wait_heard(lambda message: message["type"] == "pong", start)




def check_ids(device: Device) -> None:
    """Ids increase, each comes once, and none could be mistaken for another by a phone."""
    ids = [event["eventId"] for event in events_of(device)]
    assert ids == sorted(set(ids)), ids
    assert all(0 < one < 2**53 for one in ids)
