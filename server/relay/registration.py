"""Who a socket is: a device that registers, new or resumed. Everything is checked before it is answered."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import msgspec

from server.auth.tokens import Headers
from server.relay.messages import MessageInvalid, read_event_id, read_object, read_uuid
from server.relay.replies import build_registered, build_resumed
from storage.devices import Devices, Registration
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.presence import ClientType
from storage.relay_sessions import RelaySession, RelaySessions, make_unkept

NO_NAME = "Unknown Device"
MOST_NAME_CHARACTERS = 255
UNKNOWN = "unknown"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a device says. Without both `session_id` and `resume_token` it registers anew."""

    device_id: UUID
    device_name: str
    session_id: str | None
    resume_token: str | None = field(repr=False)
    last_event_id: int | None


@dataclass(frozen=True, slots=True)
class Registered:
    """`session` is kept if it can be resumed. `is_visible`: whether others may reach the device."""

    device_id: UUID
    device_name: str
    session: RelaySession
    is_kept: bool
    is_resumed: bool
    is_visible: bool
    last_event_id: int | None
    reply: bytes = field(repr=False)


class _Register(msgspec.Struct, rename="camel"):
    device_id: Any = None
    device_name: Any = None
    session_id: Any = None
    resume_token: Any = None
    last_event_id: Any = None


_REGISTERS = msgspec.json.Decoder(_Register)


def read_client_type(headers: Headers) -> ClientType:
    told = (headers.get("X-Client-Type") or "").strip().lower()
    return told if told in get_args(ClientType) else "other"  # type: ignore[return-value] # it is one of them


def read_wish(payload: msgspec.Raw, header_device_id: str | None) -> Wish:
    """`header_device_id` is the handshake's X-Device-ID. Raises MessageInvalid: `invalidPayload`, `missingDeviceId`, or
    `invalidDeviceId`.
    """
    told = read_object(_REGISTERS, payload)
    if not isinstance(told.device_id, str):
        raise MessageInvalid("missingDeviceId", "deviceId: is missing")
    device_id = read_uuid(told.device_id)
    if device_id is None:
        raise MessageInvalid("invalidDeviceId", "deviceId: a UUID")
    if header_device_id is not None and read_uuid(header_device_id.strip()) != device_id:
        raise MessageInvalid("invalidDeviceId", "deviceId: not that of X-Device-ID")
    resumes = isinstance(told.session_id, str) and isinstance(told.resume_token, str)
    return Wish(
        device_id=device_id,
        device_name=_read_name(told.device_name),
        session_id=told.session_id if resumes else None,
        resume_token=told.resume_token if resumes else None,
        last_event_id=read_event_id(told.last_event_id),
    )


def build_unknown(wish: Wish, client_type: ClientType) -> Registration:
    """For a device that has never registered over HTTP, or was unlinked since: what little is known of it. The next
    registration over HTTP, which desktops send before every connection, replaces it all.

    A desktop has to have one of three platforms. It is called a Linux one, as the one of which the least is expected:
    nothing but the symbol that a phone shows depends on it, and to leave the desktop out of the list, or to call it a
    phone, would keep its user from reaching it.
    """
    is_desktop = client_type == "desktop"
    return Registration(
        device_id=wish.device_id,
        device_name=wish.device_name,
        device_type="desktop" if is_desktop else "mobile",
        platform="linux" if is_desktop else UNKNOWN,
        platform_version=None,
        app_version=UNKNOWN,
        local_ips=None,
        public_ip=None,
        available_ports=None,
        relay_eligible=is_desktop,
        capabilities={},
    )


@dataclass(frozen=True, slots=True)
class Registrar:
    """One per process."""

    sessions: RelaySessions
    devices: Devices

    async def register(self, user_id: UUID, client_type: ClientType, wish: Wish) -> Registered:
        """Raises MessageInvalid `invalidResume`, only to who brings something to resume with; UserUnknown if the
        account is gone.

        While Redis is away a device registers nevertheless, with credentials that it cannot resume with; while
        PostgreSQL is, a device that it does not know is made known by a later registration.
        """
        is_visible = await self._make_known(user_id, client_type, wish)
        try:
            return await self._open_session(user_id, wish, is_visible=is_visible)
        except RedisUnavailable as error:
            logger.warning("a device registers without a session that it could resume", extra={"reason": str(error)})
        unkept = make_unkept(datetime.now(UTC))
        reply = build_registered(unkept.session.id, unkept.resume_token, unkept.session.expires_at)
        return _describe(wish, unkept.session, reply, is_visible=is_visible, is_kept=False, is_resumed=False)

    async def _open_session(self, user_id: UUID, wish: Wish, *, is_visible: bool) -> Registered:
        if wish.session_id is not None and wish.resume_token is not None:
            session = await self.sessions.resume(user_id, wish.device_id, wish.session_id, wish.resume_token)
            if session is None:
                raise MessageInvalid("invalidResume", "this session cannot be resumed: register without it")
            reply = build_resumed(session.id, session.expires_at)
        else:
            made = await self.sessions.create(user_id, wish.device_id)
            session, reply = made.session, build_registered(made.session.id, made.resume_token, made.session.expires_at)
        is_resumed = wish.session_id is not None
        return _describe(wish, session, reply, is_visible=is_visible, is_kept=True, is_resumed=is_resumed)

    async def _make_known(self, user_id: UUID, client_type: ClientType, wish: Wish) -> bool:
        """Whether it may be reached. A phone always may be: it is not to be called, and its events are its own."""
        try:
            device = await self.devices.find(user_id, wish.device_id)
            if device is None:
                device = await self.devices.register(user_id, build_unknown(wish, client_type))
        except DatabaseUnavailable as error:
            logger.warning("it was not looked up whether a device is known", extra={"reason": str(error)})
            return True
        return client_type != "desktop" or device.relay_eligible


def _describe(
    wish: Wish, session: RelaySession, reply: bytes, *, is_visible: bool, is_kept: bool, is_resumed: bool
) -> Registered:
    return Registered(
        device_id=wish.device_id,
        device_name=wish.device_name,
        session=session,
        is_kept=is_kept,
        is_resumed=is_resumed,
        is_visible=is_visible,
        last_event_id=wish.last_event_id,
        reply=reply,
    )


def _read_name(found: object) -> str:
    """PostgreSQL keeps no NUL: https://www.postgresql.org/docs/current/datatype-character.html. Half of a surrogate
    pair, which JSON can escape, is no text either.
    """
    if not isinstance(found, str) or not found.strip():
        return NO_NAME
    return found.replace("\0", "").encode(errors="replace").decode()[:MOST_NAME_CHARACTERS] or NO_NAME
