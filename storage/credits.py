"""Credits: the ledger, the balance and the holds. Every change is one statement that decides and is safe to repeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString, Protocol
from uuid import UUID

from psycopg import errors

from storage.errors import StorageError
from storage.journal import Progress, Usage
from storage.postgres import Database

HOLD_LEASE_SECONDS = 60
"""A hold that nobody renews for this long belongs to a process that is gone."""


class BalanceTooLow(StorageError):
    """The balance less what running calls hold does not cover the request."""

    def __init__(self, required_usd: Decimal, available_usd: Decimal) -> None:
        super().__init__(f"this request may cost up to {required_usd} USD, and {available_usd} USD are available")
        self.required_usd = required_usd
        self.available_usd = available_usd


class RequestRepeated(StorageError):
    """A request with the same idempotency key is running, or has been answered."""


class Hold(Protocol):
    """What a caller sets aside. `price` is JSON text, kept as it is for whoever settles."""

    @property
    def id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def amount_usd(self) -> Decimal: ...
    @property
    def model_id(self) -> str: ...
    @property
    def provider_code(self) -> str: ...
    @property
    def task_type(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def price(self) -> str: ...
    @property
    def idempotency_key(self) -> str | None: ...


class Settlement(Protocol):
    @property
    def hold_id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID: ...
    @property
    def outcome(self) -> str: ...
    @property
    def charge_usd(self) -> Decimal: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def provisional(self) -> bool: ...
    @property
    def provider_code(self) -> str: ...


class UserUnknown(StorageError):
    """Nobody has this id, or somebody had it and was deleted."""


@dataclass(frozen=True, slots=True)
class Balance:
    """`available_usd` is what a new call may hold."""

    balance_usd: Decimal
    held_usd: Decimal

    @property
    def available_usd(self) -> Decimal:
        return self.balance_usd - self.held_usd


@dataclass(frozen=True, slots=True)
class ExpiredHold:
    """A hold whose owner is gone, with what its call is known to have used, and the price to charge it by."""

    id: UUID
    user_id: UUID
    price: str
    progress: Progress
    upstream_provider: str | None = None
    upstream_id: str | None = None
    """Of an answer that its provider makes in the background."""
    is_young: bool = False
    """Whether such an answer may be under way still."""


@dataclass(frozen=True, slots=True)
class Credits:
    """The accounts of all users; it fits what the gateway asks of a ledger."""

    database: Database
    lease_seconds: int = HOLD_LEASE_SECONDS

    async def hold(self, hold: Hold) -> None:
        """Set the amount aside. Raises BalanceTooLow, or RequestRepeated.

        The row lock on the balance puts concurrent holds of one user in order, so that the same credit is never held
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
            "lease": self.lease_seconds,
        }
        try:
            held = await self.database.as_user(hold.user_id).fetch_one(_HOLD, parameters)
        except errors.UniqueViolation as error:
            raise RequestRepeated("a request with this idempotency key is running, or has been answered") from error
        if held is None:
            available = (await self.balance(hold.user_id)).available_usd
            raise BalanceTooLow(hold.amount_usd, available)

    async def settle(self, settlement: Settlement) -> bool:
        """Charge, release and record the usage, once; False if that was done before.

        A hold that was settled as expired while its call still ran is corrected by the difference.
        """
        return await self._settle(settlement, "settled", ["held", "expired"])

    async def settle_expired(self, settlement: Settlement) -> bool:
        """The same for a hold whose owner is gone, provided that it is held and expired still."""
        return await self._settle(settlement, "expired", ["held"])

    async def correct_expired(self, settlement: Settlement) -> bool:
        """For who knows more than the one who has settled it as expired: the charge follows by the difference."""
        return await self._settle(settlement, "expired", ["expired"])

    async def note_upstream(self, hold_id: UUID, provider_code: str, upstream_id: str) -> None:
        """Remember under which id a provider makes the answer in the background. Safe to repeat."""
        parameters = {"id": hold_id, "provider": provider_code, "upstream_id": upstream_id}
        await self.database.as_operator("note an answer in the background").fetch(_NOTE_UPSTREAM, parameters)

    async def renew(self, progress: Sequence[Progress]) -> None:
        """Extend the lease of running calls and record how far they have come. One statement for all of a process."""
        ids = [one.hold_id for one in progress]
        states = [one.as_json() for one in progress]
        parameters = {"ids": ids, "progress": states, "lease": self.lease_seconds}
        await self.database.as_operator("renew holds").fetch(_RENEW, parameters)

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
        row = await self.database.as_user(user_id).fetch_one("SELECT balance_usd, held_usd FROM credit_balances")
        return Balance(*row) if row else Balance(Decimal(0), Decimal(0))

    async def grant(self, user_id: UUID, amount_usd: Decimal, *, idempotency_key: str, description: str) -> bool:
        """Give credits. False if this key was booked before. Raises UserUnknown."""
        parameters = {"user_id": user_id, "amount": amount_usd, "key": idempotency_key, "description": description}
        try:
            return bool(await self.database.as_operator("grant credits").fetch(_GRANT, parameters))
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: nothing was granted") from error

    async def _settle(self, settlement: Settlement, state: str, from_states: list[str]) -> bool:
        usage = settlement.usage
        parameters = {
            "id": settlement.hold_id,
            "user_id": settlement.user_id,
            "state": state,
            "from_states": from_states,
            "outcome": settlement.outcome,
            "charge": settlement.charge_usd,
            "provisional": settlement.provisional,
            "provider_code": settlement.provider_code,
            "input": usage.input_tokens,
            "cache_read": usage.cache_read_tokens,
            "cache_write": usage.cache_write_tokens,
            "output": usage.output_tokens,
            "reasoning": usage.reasoning_tokens,
            "cache_write_1h": usage.cache_write_1h_tokens,
            "input_audio": usage.input_audio_tokens,
            "output_audio": usage.output_audio_tokens,
            "output_image": usage.output_image_tokens,
            "searches": usage.searches,
        }
        rows = await self.database.as_operator("settle a call").fetch(_SETTLE, parameters)
        return bool(rows)


_HOLD: LiteralString = """
    WITH spent AS (
        UPDATE credit_balances SET held_usd = held_usd + %(amount)s
        WHERE user_id = %(user_id)s AND balance_usd - held_usd >= %(amount)s
        RETURNING user_id
    )
    INSERT INTO holds (id, user_id, amount_usd, model_id, provider_code, task_type, price, prompt_tokens,
                       idempotency_key, expires_at)
    SELECT %(id)s, user_id, %(amount)s, %(model_id)s, %(provider_code)s, %(task_type)s, %(price)s::jsonb,
           %(prompt_tokens)s, %(idempotency_key)s, now() + make_interval(secs => %(lease)s)
    FROM spent
    RETURNING id
"""

_SETTLE: LiteralString = """
    WITH account AS MATERIALIZED (
        SELECT user_id FROM credit_balances WHERE user_id = %(user_id)s
        FOR UPDATE -- before the hold, as a new hold does: one with the same idempotency key waits for this one's end
    ), hold AS MATERIALIZED (
        SELECT holds.* FROM account JOIN holds USING (user_id)
        WHERE id = %(id)s AND state = ANY(%(from_states)s) AND (%(state)s = 'settled' OR expires_at < now())
        FOR UPDATE OF holds
    ), closed AS (
        UPDATE holds
        SET state = %(state)s, charged_usd = %(charge)s, settled_at = now(),
            idempotency_key = CASE WHEN %(outcome)s = 'completed' THEN holds.idempotency_key END
        FROM hold WHERE holds.id = hold.id
    ), booked AS (
        INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, hold_id, description)
        SELECT user_id, kind, charged_usd - %(charge)s, kind || ':' || id, id, model_id
        FROM (SELECT *, CASE state WHEN 'held' THEN 'charge' ELSE 'correction' END AS kind FROM hold) AS entry
        WHERE charged_usd <> %(charge)s
    ), released AS (
        UPDATE credit_balances SET held_usd = held_usd - hold.amount_usd
        FROM hold WHERE credit_balances.user_id = hold.user_id AND hold.state = 'held'
    )
    INSERT INTO usage (request_id, user_id, model_id, provider_code, task_type, outcome, provisional, input_tokens,
                       cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cache_write_1h_tokens,
                       input_audio_tokens, output_audio_tokens, output_image_tokens, searches, cost_usd, started_at)
    SELECT id, user_id, model_id, coalesce(nullif(%(provider_code)s, ''), provider_code), task_type, %(outcome)s,
           %(provisional)s, %(input)s, %(cache_read)s, %(cache_write)s, %(output)s, %(reasoning)s, %(cache_write_1h)s,
           %(input_audio)s, %(output_audio)s, %(output_image)s, %(searches)s, %(charge)s, created_at
    FROM hold
    ON CONFLICT (request_id) DO UPDATE SET
        provider_code = excluded.provider_code, outcome = excluded.outcome, provisional = excluded.provisional,
        input_tokens = excluded.input_tokens, cache_read_tokens = excluded.cache_read_tokens,
        cache_write_tokens = excluded.cache_write_tokens, output_tokens = excluded.output_tokens,
        reasoning_tokens = excluded.reasoning_tokens, cache_write_1h_tokens = excluded.cache_write_1h_tokens,
        input_audio_tokens = excluded.input_audio_tokens, output_audio_tokens = excluded.output_audio_tokens,
        output_image_tokens = excluded.output_image_tokens, searches = excluded.searches,
        cost_usd = excluded.cost_usd, ended_at = excluded.ended_at
    RETURNING request_id
"""

_RENEW: LiteralString = """
    UPDATE holds SET expires_at = now() + make_interval(secs => %(lease)s), progress = live.progress::jsonb
    FROM unnest(%(ids)s::uuid[], %(progress)s::text[]) AS live (id, progress)
    WHERE holds.id = live.id AND holds.state = 'held'
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
    WHERE holds.id = ANY(%(ids)s) AND state = 'expired' AND (upstream_id IS NULL OR provisional)
"""

_GRANT: LiteralString = """
    INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, description)
    VALUES (%(user_id)s, 'grant', %(amount)s, %(key)s, %(description)s)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING id
"""
