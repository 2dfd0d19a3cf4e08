"""Calls whose hold is broken, or whose process cannot be reached: each has its end, and keeps no other from its own."""

from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from server.leases import Leases
from storage.call_records import CallRecords
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
            assert await Leases(credits_, journal, tmp_path, call_off, lambda _: None).sweep() == 1
        assert (await credits_.balance(user_id)).held_usd == Decimal(1)
        assert await credits_.find_expired() == [], "it has a lease again"
        assert "a hold could not be settled" in caplog.text


async def test_a_call_whose_user_could_not_reach_its_process_is_ended_when_its_lease_is_renewed(
    database_url: str, tmp_path: Path
) -> None:
    ended: list[UUID] = []
    async with open_database(database_url, size=2) as database:
        credits_, hold = Credits(database), build_hold(await make_user(database, "10"), "1")
        await credits_.hold(hold)
        with open_journal(tmp_path) as journal:
            leases = Leases(credits_, journal, tmp_path, call_off, ended.append)
            journal.open_slot(hold.id)
            await leases.renew()
            assert ended == []
            await CallRecords(database).note_cancelled(hold.user_id, hold.id)
            await leases.renew()
            assert ended == [hold.id]
            await credits_.expire(journal.running())
            assert await leases.sweep() == 1
            await leases.renew()
            assert ended == [hold.id] * 2, "also of a process that was taken for dead, and is back"
