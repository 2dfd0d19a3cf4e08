"""A hold with which something is wrong keeps no other from its settlement, and ends no server."""

from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from server.leases import Leases
from storage.credits import Credits
from storage.journal import Progress, open_journal
from storage.postgres import open_database
from tests.storage.calls import build_hold, make_user


async def call_off(provider_code: str, upstream_id: str) -> None:
    raise AssertionError("no answer is made in the background here")


async def test_a_hold_that_cannot_be_settled_waits_and_the_others_do_not(
    database_url: str, owner_database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(database_url, size=2) as database:
        credits_ = Credits(database)
        user_id = await make_user(database, "10")
        broken, whole = build_hold(user_id, "1"), build_hold(user_id, "2")
        for hold in (broken, whole):
            await credits_.hold(hold)
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("UPDATE holds SET price = '[]' WHERE id = %s", [broken.id])
        await credits_.expire([Progress(broken.id), Progress(whole.id)])
        with open_journal(tmp_path) as journal:
            assert await Leases(credits_, journal, tmp_path, call_off).sweep() == 1
        assert (await credits_.balance(user_id)).held_usd == Decimal(1)
        assert await credits_.find_expired() == [], "it has a lease again"
        assert "a hold could not be settled" in caplog.text
