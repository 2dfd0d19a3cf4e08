"""Where apps on phones can be reached: the tokens that APNs and FCM gave them."""

from dataclasses import dataclass
from typing import Literal, LiteralString
from uuid import UUID

from psycopg import errors

from storage.credits import UserUnknown
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

PushPlatform = Literal["ios", "android"]
PushEnvironment = Literal["production", "sandbox"]

MAX_TOKENS = 100
"""Of one user: those that were brought last."""
DEVICE_NAME = "Mobile Device"


@dataclass(frozen=True, slots=True)
class PushTokens:
    """A token shows in no repr and no log. Every method may be repeated."""

    database: Database

    async def save(
        self,
        user_id: UUID,
        device_id: UUID,
        platform: PushPlatform,
        token: str,
        environment: PushEnvironment | None = None,
        *,
        makes_device: bool = True,
    ) -> bool:
        """The device's only token from now on, and nobody else's: what was on its way to it for somebody else is gone.
        A device that is not known is made, or else nothing is done, and False returned. None as environment keeps what
        is known of the token. Raises UserUnknown if the account has just been deleted.
        """
        parameters = {
            "user_id": user_id,
            "device_id": device_id,
            "platform": platform,
            "token": token,
            "environment": environment,
            "name": DEVICE_NAME,
            "most": MAX_TOKENS,
        }
        rights = self.database.as_operator("save a push token")
        steps = _LOCK_FIRST + (_MAKE_DEVICE if makes_device else _LOCK_DEVICE) + _DROP_FORMER + _DROP_DEVICES + _SAVE
        try:
            return await rights.fetch_one(steps, parameters) is not None
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: no push token was saved") from error

    async def find_device_platform(self, user_id: UUID, device_id: UUID) -> str | None:
        """What the device says it runs on, in lower case, whether it has registered or not; None if the user has none
        such.
        """
        row = await self.database.as_user(user_id).fetch_one(_FIND_PLATFORM, {"device_id": device_id})
        return row[0] if row else None


async def remove_push_token(connection: TrioConnection, user_id: UUID, device_id: UUID) -> None:
    """In the operator's transaction that ends the device's sign-in. What was on its way to it goes with it."""
    await connection.send(connection.bind(_REMOVE, {"user_id": user_id, "device_id": device_id}))


# Each lock is a statement of its own, so that the next one sees what was written while it was waited for. All who save
# take them in this order: the token's, the device's, then rows of tokens by id. The first one's key is a number: two
# tokens that fall together only wait.
_LOCK_FIRST: LiteralString = """
    SELECT pg_advisory_xact_lock(hashtextextended('push-token:' || %(platform)s || ':' || %(token)s, 0));
"""

# Never "do nothing": a device that is being removed at this moment is waited for, and then made again.
_MAKE_DEVICE: LiteralString = """
    INSERT INTO devices (user_id, device_id, device_name, device_type, platform)
    VALUES (%(user_id)s, %(device_id)s, %(name)s, 'mobile', %(platform)s)
    ON CONFLICT (user_id, device_id) DO UPDATE SET
        device_name = CASE WHEN devices.registered_at IS NULL THEN excluded.device_name ELSE devices.device_name END,
        device_type = CASE WHEN devices.registered_at IS NULL THEN excluded.device_type ELSE devices.device_type END,
        platform = CASE WHEN devices.registered_at IS NULL THEN excluded.platform ELSE devices.platform END,
        updated_at = now();
"""

_LOCK_DEVICE: LiteralString = """
    UPDATE devices SET updated_at = now() WHERE user_id = %(user_id)s AND device_id = %(device_id)s;
"""

# Nobody else makes rows of this token or this device meanwhile: both are locked.
_DROP_FORMER: LiteralString = """
    WITH found AS (
        SELECT id FROM push_tokens
        WHERE platform = %(platform)s AND token = %(token)s AND (user_id, device_id) <> (%(user_id)s, %(device_id)s)
        UNION ALL
        SELECT id FROM push_tokens
        WHERE user_id = %(user_id)s AND device_id = %(device_id)s AND (platform, token) <> (%(platform)s, %(token)s)
        UNION ALL
        (SELECT id FROM push_tokens WHERE user_id = %(user_id)s AND device_id <> %(device_id)s
         ORDER BY registered_at DESC, id OFFSET %(most)s - 1)
    ), former AS MATERIALIZED (
        SELECT id FROM push_tokens
        WHERE id IN (SELECT id FROM found)
          AND EXISTS (SELECT FROM devices WHERE user_id = %(user_id)s AND device_id = %(device_id)s)
        ORDER BY id FOR UPDATE
    )
    DELETE FROM push_tokens USING former WHERE push_tokens.id = former.id;
"""

# Apps name themselves anew at every sign-out. A device of that name that just comes back has changed its `updated_at`,
# which is looked at once more when its row is locked.
_DROP_DEVICES: LiteralString = """
    DELETE FROM devices WHERE user_id = %(user_id)s AND device_id IN (
        SELECT device_id FROM devices
        WHERE user_id = %(user_id)s AND device_id <> %(device_id)s AND registered_at IS NULL AND device_type = 'mobile'
          AND updated_at < now() - interval '1 hour'
          AND NOT EXISTS (SELECT FROM push_tokens
                          WHERE (push_tokens.user_id, push_tokens.device_id) = (devices.user_id, devices.device_id))
        FOR UPDATE SKIP LOCKED
    );
"""

_SAVE: LiteralString = """
    INSERT INTO push_tokens (user_id, device_id, platform, token, environment)
    SELECT user_id, device_id, %(platform)s, %(token)s, %(environment)s
    FROM devices WHERE user_id = %(user_id)s AND device_id = %(device_id)s
    ON CONFLICT (platform, token) DO UPDATE SET
        registered_at = now(), environment = coalesce(excluded.environment, push_tokens.environment)
    RETURNING 1
"""

_FIND_PLATFORM: LiteralString = """
    SELECT lower(platform) FROM devices WHERE user_id = app_user_id() AND device_id = %(device_id)s
"""

_REMOVE: LiteralString = "DELETE FROM push_tokens WHERE user_id = %(user_id)s AND device_id = %(device_id)s"
