"""What holds of the accounts at any moment, whatever has happened to them."""

from collections.abc import Callable, Mapping

Query = Callable[..., list[tuple[object, ...]]]

# Each finds what contradicts.
CONTRADICTIONS: Mapping[str, str] = {
    "the balance is the sum of the ledger": """
        SELECT user_id, balance_usd, free_usd, booked.* FROM credit_balances
        JOIN (SELECT user_id, sum(amount_usd) AS amount_usd, sum(free_usd) AS part_usd
              FROM credit_ledger GROUP BY user_id) AS booked USING (user_id)
        WHERE (balance_usd, free_usd) <> (amount_usd, part_usd)
    """,
    "who has no ledger has no balance": """
        SELECT user_id FROM credit_balances AS account
        WHERE balance_usd <> 0 AND NOT EXISTS (SELECT FROM credit_ledger WHERE user_id = account.user_id)
    """,
    "what is held is what running calls hold": """
        SELECT user_id, held_usd, held_free_usd, holding.* FROM credit_balances AS account, LATERAL (
            SELECT coalesce(sum(amount_usd), 0) AS amount_usd, coalesce(sum(free_usd), 0) AS part_usd
            FROM holds WHERE user_id = account.user_id AND state = 'held') AS holding
        WHERE (held_usd, held_free_usd) <> (amount_usd, part_usd)
    """,
    "free credits are bounded": """
        SELECT user_id FROM credit_balances
        WHERE NOT (free_usd >= held_free_usd AND held_free_usd >= 0 AND held_usd >= held_free_usd)
    """,
    "a call is charged what its usage costs, less what was given back": """
        SELECT holds.id, charged_usd, refunded_usd, cost_usd, booked.* FROM holds
        LEFT JOIN usage ON request_id = holds.id, LATERAL (
            SELECT coalesce(-sum(amount_usd), 0) AS booked_usd, coalesce(-sum(free_usd), 0) AS part_usd
            FROM credit_ledger WHERE hold_id = holds.id AND kind IN ('charge', 'correction')) AS booked, LATERAL (
            SELECT coalesce(sum(amount_usd), 0) AS back_usd
            FROM credit_ledger WHERE hold_id = holds.id AND kind = 'refund') AS returned
        WHERE (booked_usd, part_usd, charged_usd, back_usd)
              IS DISTINCT FROM (charged_usd, charged_free_usd, coalesce(cost_usd, 0), refunded_usd)
    """,
    "a purchase is credited once, less what went back": """
        SELECT id, state, net_cents, taken_back_usd, booked.* FROM purchases, LATERAL (
            SELECT coalesce(sum(amount_usd), 0) AS amount_usd FROM credit_ledger WHERE purchase_id = purchases.id
        ) AS booked
        WHERE amount_usd <> CASE state WHEN 'paid' THEN net_cents / 100.0 ELSE 0 END - taken_back_usd
    """,
    "a limit counts what its calls hold and have cost": """
        SELECT id, held_usd, spent_usd, holding.*, spending.* FROM spending_limits AS bound, LATERAL (
            SELECT coalesce(sum(amount_usd), 0) AS amount_usd FROM holds
            WHERE user_id = bound.user_id AND state = 'held'
              AND (bound.api_key_id IS NULL OR api_key_id = bound.api_key_id)) AS holding, LATERAL (
            SELECT coalesce(sum(cost_usd - refunded_usd), 0) AS cost_usd
            FROM usage JOIN holds ON holds.id = request_id
            WHERE usage.user_id = bound.user_id AND ended_at >= period_start
              AND (bound.api_key_id IS NULL OR usage.api_key_id = bound.api_key_id)) AS spending
        WHERE (held_usd, spent_usd) <> (amount_usd, cost_usd)
    """,
}


def check_accounts(query: Query) -> None:
    """`query` asks as the superuser, who sees all rows."""
    for claim, contradiction in CONTRADICTIONS.items():
        assert query(contradiction) == [], claim
