"""The end of a call in the accounts: one statement that charges, releases and records, once."""

from typing import LiteralString

from storage.calls import Settlement
from storage.postgres import Database
from storage.prepared import Prepared

LOCK_ACCOUNT: LiteralString = "SELECT FROM credit_balances WHERE user_id = %(user_id)s FOR NO KEY UPDATE;"
"""Before all other locks on what is a user's: whoever has it waits for nobody who waits for it."""


async def settle(database: Database, settlement: Settlement, state: str, from_states: list[str]) -> bool:
    """Bring a call to `state` ("settled", "expired", or "trued up", which is settled for good), if it is in one of the
    others. False if it is not, and then nothing has changed.
    """
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
        "upstream_id": settlement.upstream_id,
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
    return bool(await database.as_operator("settle a call").fetch_prepared(_SETTLE, parameters))


# `more_free_usd` is what the charge takes from free credits: of what the call held of them first, of what it needs
# beyond its hold as much as nobody else holds. What is given back was taken from paid credits last. What comes back to
# a lot of free credits that is over (`over_usd`) has expired. A limit counts a call in the period in which it ended;
# one that had to wait here while a period began belongs to the period before.
_SETTLE = Prepared(
    "settle",
    """
    WITH hold AS MATERIALIZED (
        SELECT holds.*, holds.free_lot <> account.free_lot AS is_over,
               CASE WHEN holds.free_lot = account.free_lot THEN spare_free_usd(account) ELSE 0 END AS spare_usd
        FROM holds JOIN credit_balances AS account USING (user_id)
        WHERE id = %(id)s AND user_id = %(user_id)s AND refunded_usd = 0
          AND state = ANY(%(from_states)s) AND (%(state)s::text <> 'expired' OR expires_at < now())
          AND (%(state)s <> 'trued up' OR EXISTS (SELECT FROM usage WHERE request_id = %(id)s AND provisional))
        FOR UPDATE OF holds
    ), split AS (
        SELECT *, %(charge)s::numeric - charged_usd AS more_usd,
            CASE
                WHEN state = 'held'
                THEN least(%(charge)s, free_usd) + least(greatest(%(charge)s - amount_usd, 0), spare_usd)
                WHEN %(charge)s >= charged_usd THEN least(%(charge)s - charged_usd, spare_usd)
                ELSE least(0, %(charge)s - charged_free_usd)
            END AS more_free_usd
        FROM hold
    ), entry AS MATERIALIZED (
        SELECT *, CASE WHEN is_over THEN greatest(CASE state WHEN 'held' THEN free_usd ELSE 0 END - more_free_usd, 0)
                       ELSE 0 END AS over_usd,
               CASE state WHEN 'held' THEN 'charge:' || id ELSE 'correction:' || id || ':' || corrections END AS key
        FROM split
    ), closed AS (
        UPDATE holds
        SET state = CASE %(state)s WHEN 'expired' THEN 'expired' ELSE 'settled' END, charged_usd = %(charge)s,
            charged_free_usd = entry.charged_free_usd + more_free_usd,
            settled_at = CASE %(state)s WHEN 'trued up' THEN entry.settled_at ELSE now() END,
            corrections = holds.corrections + CASE WHEN entry.state = 'held' THEN 0 ELSE 1 END,
            idempotency_key = CASE WHEN %(outcome)s::text = 'completed' THEN holds.idempotency_key END
        FROM entry WHERE holds.id = entry.id
    ), booked AS (
        INSERT INTO credit_ledger (user_id, kind, amount_usd, free_usd, idempotency_key, hold_id, description)
        SELECT user_id, CASE state WHEN 'held' THEN 'charge' ELSE 'correction' END, -more_usd, -more_free_usd, key, id,
               model_id
        FROM entry WHERE more_usd <> 0
        UNION ALL
        SELECT user_id, 'expiry', -over_usd, -over_usd, 'expiry:' || key, id, 'free credits expired'
        FROM entry WHERE over_usd <> 0
    ), released AS (
        UPDATE credit_balances
        SET held_usd = held_usd - entry.amount_usd, held_free_usd = held_free_usd - entry.free_usd
        FROM entry WHERE credit_balances.user_id = entry.user_id AND entry.state = 'held'
    ), counted AS (
        UPDATE spending_limits
        SET held_usd = greatest(held_usd - CASE state WHEN 'held' THEN amount_usd ELSE 0 END, 0),
            spent_usd = CASE
                WHEN period_start > date_trunc(period, now(), 'UTC') THEN spent_usd
                WHEN period_start < date_trunc(period, now(), 'UTC') AND %(state)s = 'trued up' THEN 0
                WHEN period_start < date_trunc(period, now(), 'UTC') THEN %(charge)s
                WHEN settled_at >= period_start THEN spent_usd + more_usd
                WHEN %(state)s = 'trued up' THEN spent_usd
                ELSE spent_usd + %(charge)s
            END,
            period_start = greatest(period_start, date_trunc(period, now(), 'UTC'))
        FROM entry
        WHERE spending_limits.user_id = entry.user_id
          AND (spending_limits.api_key_id IS NULL OR spending_limits.api_key_id = entry.api_key_id)
        RETURNING spending_limits.*
    ), told AS (
        INSERT INTO billing_notices (user_id, kind, notice_key, details)
        SELECT user_id, 'spending_threshold',
               'spending_threshold:' || id || ':' || (period_start AT TIME ZONE 'UTC')::date || ':' || percent,
               jsonb_build_object('limitId', id, 'apiKeyId', api_key_id, 'period', period, 'percent', percent,
                                  'limitUsd', limit_usd::text, 'spentUsd', spent_usd::text)
        FROM counted, unnest(alert_percents) AS percent
        WHERE spent_usd > 0 AND spent_usd * 100 >= limit_usd * percent
        ON CONFLICT (user_id, notice_key) DO NOTHING
    )
    INSERT INTO usage (request_id, user_id, model_id, provider_code, task_type, outcome, provisional, input_tokens,
                       cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cache_write_1h_tokens,
                       input_audio_tokens, output_audio_tokens, output_image_tokens, searches, cost_usd, started_at,
                       api_key_id, upstream_id)
    SELECT id, user_id, model_id, coalesce(nullif(%(provider_code)s, ''), provider_code), task_type, %(outcome)s,
           %(provisional)s, %(input)s, %(cache_read)s, %(cache_write)s, %(output)s, %(reasoning)s, %(cache_write_1h)s,
           %(input_audio)s, %(output_audio)s, %(output_image)s, %(searches)s, %(charge)s, created_at,
           api_key_id, coalesce(%(upstream_id)s, upstream_id)
    FROM entry
    ON CONFLICT (request_id) DO UPDATE SET
        provider_code = excluded.provider_code, outcome = excluded.outcome, provisional = excluded.provisional,
        input_tokens = excluded.input_tokens, cache_read_tokens = excluded.cache_read_tokens,
        cache_write_tokens = excluded.cache_write_tokens, output_tokens = excluded.output_tokens,
        reasoning_tokens = excluded.reasoning_tokens, cache_write_1h_tokens = excluded.cache_write_1h_tokens,
        input_audio_tokens = excluded.input_audio_tokens, output_audio_tokens = excluded.output_audio_tokens,
        output_image_tokens = excluded.output_image_tokens, searches = excluded.searches,
        cost_usd = excluded.cost_usd, upstream_id = coalesce(excluded.upstream_id, usage.upstream_id),
        ended_at = CASE %(state)s WHEN 'trued up' THEN usage.ended_at ELSE excluded.ended_at END
    RETURNING request_id
    """,
    first=Prepared("lock_for_settlement", LOCK_ACCOUNT),
)
