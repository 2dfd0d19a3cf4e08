"""Credits: the ledger, the balance and the holds. Every change is one statement that decides and is safe to repeat.

It runs under the lock of the user's balance, which a statement before it takes in the same message: so it sees all that
others have done to the user's money, and nothing changes meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString, NoReturn
from uuid import UUID

from psycopg import errors

from storage.calls import ExpiredHold, Hold, Settlement
from storage.errors import StorageError
from storage.journal import Progress
from storage.postgres import Database
from storage.prepared import Prepared
from storage.settling import LOCK_ACCOUNT, settle

HOLD_LEASE_SECONDS = 60
"""A hold that nobody renews for this long belongs to a process that is gone."""


class BalanceTooLow(StorageError):
    """The balance less what running calls hold does not cover the request."""

    def __init__(self, required_usd: Decimal, available_usd: Decimal) -> None:
        super().__init__(f"this request may cost up to {required_usd} USD, and {available_usd} USD are available")
        self.required_usd = required_usd
        self.available_usd = available_usd


class SpendingLimitReached(StorageError):
    """What the user set for itself, or for an API key, does not leave room for the request."""

    def __init__(self, required_usd: Decimal, limit_usd: Decimal, period: str, *, is_of_key: bool) -> None:
        whose = "this API key's" if is_of_key else "your"
        super().__init__(
            f"this request may cost up to {required_usd} USD, and {whose} spending limit of {limit_usd} USD a {period}"
            " has not that much left: raise the limit, or wait for the next period"
        )


class RequestRepeated(StorageError):
    """A request with the same idempotency key is running, or has been answered."""


class UserUnknown(StorageError):
    """Nobody has this id, or somebody had it and was deleted."""


@dataclass(frozen=True, slots=True)
class Balance:
    """`free_usd` and `held_free_usd` are the parts that are free credits. What is left of the balance is paid credits,
    and a debt where it is negative. Free credits past `free_expires_at` (None: never) that nobody holds are of no use.
    """

    balance_usd: Decimal
    held_usd: Decimal
    free_usd: Decimal = Decimal(0)
    held_free_usd: Decimal = Decimal(0)
    free_expires_at: datetime | None = None
    expired_usd: Decimal = Decimal(0)
    """Free credits whose time is over, and whose expiry has not been booked yet."""

    @property
    def available_usd(self) -> Decimal:
        """What a new call may hold."""
        return self.balance_usd - self.held_usd - self.expired_usd

    @property
    def paid_usd(self) -> Decimal:
        return self.balance_usd - self.free_usd


@dataclass(frozen=True, slots=True)
class Credits:
    """The accounts of all users; it fits what the gateway asks of a ledger."""

    database: Database
    lease_seconds: int = HOLD_LEASE_SECONDS

    async def hold(self, hold: Hold) -> None:
        """Set the amount aside, free credits first. Raises BalanceTooLow, SpendingLimitReached, or RequestRepeated.

        The lock of the balance puts concurrent holds of one user in order, so that the same credit is never held
        twice. Not to be repeated blindly: a second call with the same hold raises.
        """
        parameters = {
            "id": hold.id,
            "user_id": hold.user_id,
            "amount": hold.amount_usd,
            "model_id": hold.model_id,
            "provider_code": hold.provider_code,
            "task_type": hold.task_type,
            "price": hold.price,
            "prompt_tokens": hold.prompt_tokens,
            "idempotency_key": hold.idempotency_key,
            "api_key_id": hold.api_key_id,
            "lease": self.lease_seconds,
        }
        try:
            held = await self.database.as_user(hold.user_id).fetch_prepared(_HOLD, parameters)
        except errors.UniqueViolation as error:
            raise RequestRepeated("a request with this idempotency key is running, or has been answered") from error
        if not held:
            await self._tell_refusal(hold)

    async def settle(self, settlement: Settlement) -> bool:
        """Charge, release and record the usage, once; False if that was done before.

        A hold that was settled as expired while its call still ran is corrected by the difference.
        """
        return await settle(self.database, settlement, "settled", ["held", "expired"])

    async def settle_expired(self, settlement: Settlement) -> bool:
        """The same for a hold whose owner is gone, provided that it is held and expired still."""
        return await settle(self.database, settlement, "expired", ["held"])

    async def correct_expired(self, settlement: Settlement) -> bool:
        """For who knows more than the one who has settled it as expired: the charge follows by the difference."""
        return await settle(self.database, settlement, "expired", ["expired"])

    async def true_up(self, settlement: Settlement) -> bool:
        """For a charge that was provisional, once the provider has said what the call used: it follows by the
        difference, and is final. False if it is provisional no more, or was given back.
        """
        return await settle(self.database, settlement, "trued up", ["settled", "expired"])

    async def note_upstream(self, hold_id: UUID, provider_code: str, upstream_id: str) -> None:
        """Remember under which id a provider makes the answer in the background. Safe to repeat."""
        parameters = {"id": hold_id, "provider": provider_code, "upstream_id": upstream_id}
        await self.database.as_operator("note an answer in the background").fetch(_NOTE_UPSTREAM, parameters)

    async def renew(self, progress: Sequence[Progress]) -> list[UUID]:
        """Extend the lease of running calls and record how far they have come. One statement for all of a process.

        Returns those that their users want to end: see `CallRecords.note_cancelled`.
        """
        ids = [one.hold_id for one in progress]
        states = [one.as_json() for one in progress]
        parameters = {"ids": ids, "progress": states, "lease": self.lease_seconds}
        return [id_ for (id_,) in await self.database.as_operator("renew holds").fetch(_RENEW, parameters)]

    async def expire(self, progress: Sequence[Progress]) -> None:
        """Record how far the calls of a dead process had come, and let their leases end now. Safe to repeat."""
        ids = [one.hold_id for one in progress]
        states = [one.as_json() for one in progress]
        parameters = {"ids": ids, "progress": states, "lease": -1}
        await self.database.as_operator("expire the holds of a dead process").fetch(_RENEW, parameters)

    async def find_expired(self, limit: int = 500) -> list[ExpiredHold]:
        """Holds whose owner is gone, longest expired first; at last those whose answer has to be called off."""
        rows = await self.database.as_operator("find expired holds").fetch(_FIND_EXPIRED, [limit])
        return [
            ExpiredHold(id_, user_id, price, Progress.from_json(id_, state), *upstream)
            for id_, user_id, price, state, *upstream in rows
        ]

    async def find_settled_as_expired(self, ids: Sequence[UUID]) -> list[ExpiredHold]:
        """Those of the holds that were settled for an owner that had not renewed them; `settle` corrects them.

        Not where a provider has said since what an answer in the background had used, for its owner knew less.
        """
        rows = await self.database.as_operator("find settled holds").fetch(_FIND_SETTLED_AS_EXPIRED, {"ids": list(ids)})
        return [ExpiredHold(id_, user_id, price, Progress.from_json(id_, state)) for id_, user_id, price, state in rows]

    async def balance(self, user_id: UUID) -> Balance:
        row = await self.database.as_user(user_id).fetch_one(_BALANCE)
        return Balance(*row[1:]) if row else Balance(Decimal(0), Decimal(0))

    async def balances(self, users: Sequence[UUID]) -> dict[UUID, Balance]:
        """Of many, in one statement; who has no account is left out."""
        operator = self.database.as_operator("watch balances")
        rows = await operator.fetch(_BALANCES, {"users": [*users]})
        return {user_id: Balance(*balance) for user_id, *balance in rows}

    async def grant(self, user_id: UUID, amount_usd: Decimal, *, idempotency_key: str, description: str) -> bool:
        """Give paid credits. False if this key was booked before. Raises UserUnknown."""
        parameters = {"user_id": user_id, "amount": amount_usd, "key": idempotency_key, "description": description}
        try:
            return bool(await self.database.as_operator("grant credits").fetch(LOCK_ACCOUNT + _GRANT, parameters))
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: nothing was granted") from error

    async def _tell_refusal(self, hold: Hold) -> NoReturn:
        """Why nothing was held. The limits first: credits do not help against them."""
        parameters = {"user_id": hold.user_id, "api_key_id": hold.api_key_id, "amount": hold.amount_usd}
        limit = await self.database.as_user(hold.user_id).fetch_one(_FIND_LIMIT_REACHED, parameters)
        if limit is not None:
            limit_usd, period, is_of_key = limit
            raise SpendingLimitReached(hold.amount_usd, limit_usd, period, is_of_key=is_of_key)
        raise BalanceTooLow(hold.amount_usd, (await self.balance(hold.user_id)).available_usd)


_BALANCE: LiteralString = """
    SELECT user_id, balance_usd, held_usd, free_usd, held_free_usd, free_expires_at,
           free_usd - held_free_usd - spare_free_usd(credit_balances)
    FROM credit_balances
"""

_BALANCES: LiteralString = _BALANCE + "WHERE user_id = ANY(%(users)s::uuid[])"

_HOLD = Prepared(
    "hold",
    """
    WITH account AS MATERIALIZED (
        SELECT user_id, free_lot, least(%(amount)s::numeric, spare_free_usd(credit_balances)) AS free_usd
        FROM credit_balances
        WHERE user_id = %(user_id)s AND available_usd(credit_balances) >= %(amount)s
          AND NOT EXISTS (
            SELECT FROM spending_limits
            WHERE user_id = %(user_id)s AND (api_key_id IS NULL OR api_key_id = %(api_key_id)s)
              AND limit_usd < %(amount)s + held_usd
                              + CASE WHEN period_start >= date_trunc(period, now(), 'UTC') THEN spent_usd ELSE 0 END
          )
    ), spent AS (
        UPDATE credit_balances
        SET held_usd = held_usd + %(amount)s, held_free_usd = held_free_usd + account.free_usd
        FROM account WHERE credit_balances.user_id = account.user_id
    ), limited AS (
        UPDATE spending_limits SET held_usd = held_usd + %(amount)s
        FROM account
        WHERE spending_limits.user_id = account.user_id AND (api_key_id IS NULL OR api_key_id = %(api_key_id)s)
    )
    INSERT INTO holds (id, user_id, amount_usd, free_usd, free_lot, model_id, provider_code, task_type, price,
                       prompt_tokens, idempotency_key, api_key_id, expires_at)
    SELECT %(id)s, user_id, %(amount)s, free_usd, free_lot, %(model_id)s, %(provider_code)s, %(task_type)s,
           %(price)s::jsonb, %(prompt_tokens)s, %(idempotency_key)s, %(api_key_id)s,
           now() + make_interval(secs => %(lease)s)
    FROM account
    RETURNING id
    """,
    first=Prepared("lock_for_hold", LOCK_ACCOUNT),
)

_FIND_LIMIT_REACHED: LiteralString = """
    SELECT limit_usd, period, api_key_id IS NOT NULL FROM spending_limits
    WHERE (api_key_id IS NULL OR api_key_id = %(api_key_id)s)
      AND %(amount)s + held_usd
          + CASE WHEN period_start >= date_trunc(period, now(), 'UTC') THEN spent_usd ELSE 0 END > limit_usd
    ORDER BY period DESC, api_key_id LIMIT 1
"""

# In the order of the ids, so that two who renew the same ones wait for each other, and do not lock each other out.
_RENEW: LiteralString = """
    WITH running AS MATERIALIZED (
        SELECT id FROM holds WHERE id = ANY(%(ids)s::uuid[]) AND state = 'held' ORDER BY id FOR NO KEY UPDATE
    ), renewed AS (
        UPDATE holds SET expires_at = now() + make_interval(secs => %(lease)s), progress = live.progress::jsonb
        FROM running JOIN unnest(%(ids)s::uuid[], %(progress)s::text[]) AS live (id, progress) USING (id)
        WHERE holds.id = running.id
    )
    SELECT id FROM holds WHERE id = ANY(%(ids)s::uuid[]) AND cancelled_at IS NOT NULL
"""

_FIND_EXPIRED: LiteralString = """
    SELECT id, user_id, price::text, progress, upstream_provider, upstream_id,
           created_at > now() - interval '1 hour'
    FROM holds
    WHERE state = 'held' AND expires_at < now()
    ORDER BY upstream_id IS NOT NULL, expires_at -- first those that need no provider
    LIMIT %s
"""

_NOTE_UPSTREAM: LiteralString = """
    UPDATE holds SET upstream_provider = %(provider)s, upstream_id = %(upstream_id)s WHERE id = %(id)s
"""

_FIND_SETTLED_AS_EXPIRED: LiteralString = """
    SELECT holds.id, holds.user_id, price::text, progress FROM holds JOIN usage ON usage.request_id = holds.id
    WHERE holds.id = ANY(%(ids)s) AND state = 'expired' AND (holds.upstream_id IS NULL OR provisional)
"""

_GRANT: LiteralString = """
    INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, description)
    VALUES (%(user_id)s, 'grant', %(amount)s, %(key)s, %(description)s)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING id
"""
