"""Calls as the ledger sees them, for tests: a user with credit, what a call holds, and how it ends."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from proxy.events import Usage
from proxy.ledger import Hold, Outcome, Settlement
from storage.accounts import Accounts
from storage.bookings import Bookings
from storage.credits import Credits
from storage.postgres import Database

PRICE = '{"base": {"input": "1", "output": "10", "cache_read": "0.1", "cache_write": "1.25"}}'
USAGE = Usage(
    input_tokens=10,
    cache_read_tokens=9,
    cache_write_tokens=8,
    output_tokens=7,
    reasoning_tokens=6,
    cache_write_1h_tokens=5,
    input_audio_tokens=4,
    output_audio_tokens=3,
    output_image_tokens=2,
    searches=1,
)


async def make_user(database: Database, credits_usd: str = "0") -> UUID:
    user = await Accounts(database).make_user(f"{uuid4()}@example.com")
    if Decimal(credits_usd):
        await grant(database, user.id, credits_usd)
    return user.id


async def grant(database: Database, user_id: UUID, amount_usd: str) -> None:
    key = f"grant:{uuid4()}"
    assert await Credits(database).grant(user_id, Decimal(amount_usd), idempotency_key=key, description="test")


async def grant_free(database: Database, user_id: UUID, amount_usd: str, *, days: float = 30) -> None:
    """Free credits, `days` before they expire. Negative: they have expired."""
    expires_at = datetime.now(UTC) + timedelta(days=days)
    key = f"free:{uuid4()}"
    assert await Bookings(database).grant_free(
        user_id, Decimal(amount_usd), expires_at, idempotency_key=key, description="test"
    )


def build_hold(
    user_id: UUID,
    amount_usd: str = "1",
    idempotency_key: str | None = None,
    *,
    api_key_id: UUID | None = None,
    hold_id: UUID | None = None,
) -> Hold:
    return Hold(
        id=hold_id or uuid4(),
        user_id=user_id,
        amount_usd=Decimal(amount_usd),
        model_id="openai/gpt-4.1-mini",
        provider_code="openai",
        task_type="general",
        prompt_tokens=12,
        price=PRICE,
        idempotency_key=idempotency_key,
        api_key_id=api_key_id,
    )


def build_settlement(
    hold: Hold, charge_usd: str = "0.25", outcome: Outcome = "completed", *, provisional: bool = False
) -> Settlement:
    return Settlement(hold.id, hold.user_id, outcome, Decimal(charge_usd), USAGE, provisional)
