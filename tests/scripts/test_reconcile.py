"""`python -m scripts.reconcile`: do the accounts add up?"""

from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import trio

from storage.postgres import open_database
from tests.scripts.commands import run_command
from tests.storage.calls import make_user

STRIPE = {
    "STRIPE_SECRET_KEY": "sk_test_0123456789",
    "STRIPE_WEBHOOK_SECRET": "whsec_0123456789",
    "STRIPE_API_BASE": "http://127.0.0.1:9",
}
"""Nobody answers there."""


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "ENVIRONMENT": "development",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "JWT_SECRET": "only-for-tests-0123456789abcdef-0123456789",
        "CLOCHE_DATA": str(tmp_path),
    }


@pytest.fixture
def user_id(database_url: str) -> UUID:
    """Of somebody with ten dollars."""

    async def make() -> UUID:
        async with open_database(database_url, size=1) as database:
            return await make_user(database, "10")

    return trio.run(make)


def break_balance(owner_url: str) -> None:
    with psycopg.connect(owner_url) as owner:
        owner.execute("UPDATE credit_balances SET balance_usd = balance_usd + 1")


@pytest.mark.usefixtures("user_id")
def test_accounts_that_add_up_are_clean(environment: dict[str, str]) -> None:
    done = run_command("reconcile", environment=environment)
    assert (done.status, done.errors) == (0, "")
    lines = done.output.splitlines()
    assert lines[0] == "balance: ok"
    assert "accounts: 1, of them in debt: 0 with 0 USD" in lines
    assert lines[-2:] == ["stripe: not asked", "clean"]


def test_drift_is_told_with_its_id_and_the_status_says_so(
    environment: dict[str, str], user_id: UUID, owner_database_url: str
) -> None:
    break_balance(owner_database_url)
    done = run_command("reconcile", environment=environment)
    assert (done.status, done.errors) == (1, "")
    lines = done.output.splitlines()
    assert lines[:2] == [
        "balance: DRIFT: 1 differ by 1.000000 USD together",
        f"  {user_id}: 11.000000 USD, and it should be 10.000000 USD",
    ]
    assert lines[-1] == "DRIFT: 1 in the books, 0 with Stripe"


@pytest.mark.usefixtures("user_id")
def test_a_stripe_that_does_not_answer_has_a_status_of_its_own(environment: dict[str, str]) -> None:
    hasty = {**environment, **STRIPE, "STRIPE_DEADLINE_SECONDS": "1"}
    done = run_command("reconcile", "--days", "3", environment=hasty)
    assert (done.status, done.output.splitlines()[-1]) == (2, "clean as far as could be seen")
    assert "stripe: NOT ASKED: " in done.output
    assert STRIPE["STRIPE_SECRET_KEY"] not in done.output + done.errors
    done = run_command("reconcile", "--no-stripe", environment=hasty)
    assert (done.status, done.output.splitlines()[-1]) == (0, "clean")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DATABASE_URL": "postgresql://x:hunter2@127.0.0.1:9/x"}, "PostgreSQL does not let us in"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is missing"),
    ],
)
def test_what_keeps_it_from_running_has_a_status_of_its_own(
    environment: dict[str, str], changes: dict[str, str], message: str
) -> None:
    done = run_command("reconcile", environment=environment | changes)
    assert (done.status, done.output) == (2, "")
    assert message in done.errors
    assert "hunter2" not in done.errors
    assert "Traceback" not in done.errors


@pytest.mark.parametrize("arguments", [("--days", "0"), ("--days", "x"), ("verify",)])
def test_what_it_does_not_understand_is_refused(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = run_command("reconcile", *arguments, environment=environment)
    assert (done.status, done.output) == (2, "")
    assert "usage: python -m scripts.reconcile" in done.errors
