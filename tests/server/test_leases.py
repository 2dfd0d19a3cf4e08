"""Calls whose process is gone: charged from what is known of them, once."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, fields, replace
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import trio

from proxy.errors import UpstreamError
from proxy.events import Usage
from proxy.ledger import Hold
from server.leases import RENEWALS_PER_LEASE, Leases
from storage.credits import Balance, Credits
from storage.journal import Journal, Progress, find_journals, open_journal
from storage.postgres import Database, open_database
from tests.storage.calls import build_hold, build_settlement, make_user
from tests.storage.journals import journal_process, leave_journal

USAGE = Usage(1_000_000, 0, 0, 100_000, 50_000)
COST = Decimal("2.5")
"""A dollar a million for input, ten for output: see tests.storage.calls.PRICE."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=4) as database:
            yield database


@pytest.fixture
def credits_(database: Database) -> Credits:
    return Credits(database)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with open_journal(folder) as journal:
        yield journal


@pytest.fixture
def leases(credits_: Credits, journal: Journal, folder: Path) -> Leases:
    return Leases(credits_, journal, folder, know_nothing, end_nothing)


def end_nothing(call_id: UUID) -> None:
    raise AssertionError(f"nobody wants {call_id} to end")


async def know_nothing(_provider_code: str, _upstream_id: str) -> None:
    raise AssertionError("nothing runs in the background here")


@pytest.fixture
async def hold(database: Database, credits_: Credits) -> Hold:
    """Of a call that has just begun."""
    hold = build_hold(await make_user(database, "10"), "5", "key")
    await credits_.hold(hold)
    return hold


def note(hold: Hold, *, reported: bool = False, usage: Usage = USAGE) -> Progress:
    return Progress(hold.id, True, reported, **asdict(usage))


def fetch(owner_url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(owner_url) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.mark.parametrize("reported", [True, False])
async def test_the_calls_of_a_killed_process_are_charged_to_the_last_token(
    leases: Leases, folder: Path, hold: Hold, credits_: Credits, owner_database_url: str, reported: bool
) -> None:
    await credits_.renew([note(hold, usage=Usage(1))])
    leave_journal(folder, [note(hold, reported=reported)])
    assert await leases.sweep() == 1
    assert await credits_.balance(hold.user_id) == Balance(10 - COST, Decimal(0))
    used = "SELECT outcome, provisional, cost_usd, input_tokens, output_tokens, reasoning_tokens FROM usage"
    assert fetch(owner_database_url, used) == [("cancelled", not reported, COST, 1_000_000, 100_000, 50_000)]
    assert len(find_journals(folder)) == 1, "its own is left"
    assert await leases.sweep() == 0


async def test_every_bucket_survives_a_kill_and_is_charged(
    leases: Leases, folder: Path, database: Database, credits_: Credits, owner_database_url: str
) -> None:
    """At its own price, which the hold keeps; who answered is not known, so the usage says who was to."""
    rates = {"input": "1", "output": "10", "cache_read": "0.1", "cache_write": "1.25", "cache_write_1h": "2"}
    base = rates | {"audio_input": "3", "audio_output": "20", "image_output": "30"}
    price = json.dumps({"base": base, "web_search_per_thousand": "14"})
    hold = replace(build_hold(await make_user(database, "10"), "5"), price=price)
    await credits_.hold(hold)
    many = 100_000
    leave_journal(folder, [note(hold, usage=Usage(many, many, many, many, many, many, many, many, many, 5))])
    assert await leases.sweep() == 1
    assert (await credits_.balance(hold.user_id)).balance_usd == 10 - Decimal("7.735") - Decimal("0.07")
    columns = ", ".join(field.name for field in fields(Usage))
    used = fetch(owner_database_url, f"SELECT provider_code, {columns} FROM usage")  # noqa: S608 - our own columns
    assert used == [("openai", *[many] * 9, 5)]


async def test_without_a_journal_the_renewed_progress_is_charged(
    leases: Leases, hold: Hold, database: Database, credits_: Credits
) -> None:
    await Credits(database, lease_seconds=-1).renew([note(hold)])
    assert await leases.sweep() == 1
    assert await credits_.balance(hold.user_id) == Balance(10 - COST, Decimal(0))


async def test_a_call_of_which_nothing_is_known_costs_nothing_and_frees_its_key(
    leases: Leases, database: Database, credits_: Credits
) -> None:
    hold = build_hold(await make_user(database, "10"), "5", "key")
    await Credits(database, lease_seconds=-1).hold(hold)
    assert await leases.sweep() == 1
    assert await credits_.balance(hold.user_id) == Balance(Decimal(10), Decimal(0))
    await credits_.hold(build_hold(hold.user_id, "5", "key"))


async def test_the_calls_of_a_living_process_are_left_alone(
    leases: Leases, folder: Path, hold: Hold, credits_: Credits
) -> None:
    with journal_process(folder, [note(hold)]):
        assert await leases.sweep() == 0
    assert (await credits_.balance(hold.user_id)).held_usd == 5


async def test_ones_own_calls_are_left_alone(leases: Leases, journal: Journal, hold: Hold, credits_: Credits) -> None:
    slot = journal.open_slot(hold.id)
    assert await leases.sweep() == 0
    assert (await credits_.balance(hold.user_id)).held_usd == 5
    slot.clear()


async def test_many_sweeps_at_once_settle_once(
    database: Database, leases: Leases, folder: Path, credits_: Credits, owner_database_url: str
) -> None:
    user_id = await make_user(database, "100")
    holds = [build_hold(user_id, "5") for _ in range(8)]
    for hold in holds:
        await credits_.hold(hold)
    leave_journal(folder, [note(hold) for hold in holds])
    settled = []

    async def sweep() -> None:
        settled.append(await leases.sweep())

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(sweep)
    assert sum(settled) == 8
    assert await credits_.balance(user_id) == Balance(100 - 8 * COST, Decimal(0))
    assert fetch(owner_database_url, "SELECT count(*) FROM credit_ledger WHERE kind = 'charge'") == [(8,)]


async def test_more_orphans_than_one_round_finds_are_all_settled(
    database: Database, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = await make_user(database, "10")
    for _ in range(5):
        await Credits(database, lease_seconds=-1).hold(build_hold(user_id))
    monkeypatch.setattr(Credits.find_expired, "__defaults__", (2,))
    assert await leases.sweep() == 5


async def test_usage_that_cannot_be_is_logged_and_costs_nothing(
    leases: Leases, folder: Path, hold: Hold, credits_: Credits, caplog: pytest.LogCaptureFixture
) -> None:
    leave_journal(folder, [note(hold, usage=Usage(2**64 - 1))])
    assert await leases.sweep() == 1
    assert "usage that cannot be" in caplog.text
    assert await credits_.balance(hold.user_id) == Balance(Decimal(10), Decimal(0))


async def test_a_journal_about_unknown_holds_harms_nobody(leases: Leases, folder: Path, hold: Hold) -> None:
    leave_journal(folder, [Progress(build_hold(hold.user_id).id, True, True, 1)])
    (folder / "0.journal").write_bytes(b"\xff" * 1000)
    assert await leases.sweep() == 0
    assert len(find_journals(folder)) == 1


async def test_running_calls_are_renewed_with_what_they_have_used(
    leases: Leases, journal: Journal, hold: Hold, database: Database, credits_: Credits
) -> None:
    await Credits(database, lease_seconds=-1).renew([note(hold, usage=Usage())])
    slot = journal.open_slot(hold.id)
    slot.note(True, False, USAGE)
    await leases.renew()
    assert await credits_.find_expired() == []
    await credits_.expire([])
    await Credits(database, lease_seconds=-1).renew(journal.running())
    (expired,) = await credits_.find_expired()
    assert expired.progress == note(hold)
    slot.clear()


async def test_a_call_that_ended_unsettled_is_handed_to_the_sweep(
    leases: Leases, journal: Journal, hold: Hold, credits_: Credits
) -> None:
    slot = journal.open_slot(hold.id)
    slot.note(True, True, USAGE)
    slot.leave()
    await leases.renew()
    assert journal.left_behind() == []
    assert await leases.sweep() == 1
    assert await credits_.balance(hold.user_id) == Balance(10 - COST, Decimal(0))


async def test_a_journal_that_is_found_late_corrects_what_was_charged_from_older_figures(
    leases: Leases, folder: Path, hold: Hold, database: Database, credits_: Credits
) -> None:
    await Credits(database, lease_seconds=-1).renew([note(hold, usage=Usage(input_tokens=1000))])
    assert await leases.sweep() == 1
    assert (await credits_.balance(hold.user_id)).balance_usd == Decimal("9.999")
    leave_journal(folder, [note(hold, reported=True)])
    await leases.sweep()
    assert await credits_.balance(hold.user_id) == Balance(10 - COST, Decimal(0))


async def test_a_call_that_was_settled_meanwhile_stays_so(
    leases: Leases, folder: Path, hold: Hold, credits_: Credits
) -> None:
    await credits_.settle(build_settlement(hold, "0.5"))
    leave_journal(folder, [note(hold)])
    assert await leases.sweep() == 0
    assert await credits_.balance(hold.user_id) == Balance(Decimal("9.5"), Decimal(0))


async def test_the_loops_outlive_a_lock_that_is_not_released_in_time(
    hold: Hold, folder: Path, journal: Journal, database_url: str, owner_database_url: str
) -> None:
    """A lease of a second, while somebody holds every row for longer than a statement waits."""
    slot = journal.open_slot(hold.id)
    url = database_url + ("&" if "?" in database_url else "?") + "options=-c%20lock_timeout%3D20ms"
    async with open_database(url, size=2) as database, trio.open_nursery() as nursery:
        leases = Leases(Credits(database, lease_seconds=1), journal, folder, know_nothing, end_nothing)
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("LOCK TABLE holds")
            nursery.start_soon(leases.keep_renewing)
            nursery.start_soon(leases.keep_sweeping)
            await trio.sleep(1.5 / RENEWALS_PER_LEASE)
        with trio.fail_after(5):
            while fetch(owner_database_url, "SELECT FROM holds WHERE expires_at > now() + interval '1 second'"):
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    slot.clear()


async def test_an_answer_in_the_background_is_called_off_and_what_it_says_is_charged(
    leases: Leases, folder: Path, hold: Hold, credits_: Credits, owner_database_url: str
) -> None:
    """What the provider says of it then is more than anybody counted."""
    called_off = []

    async def call_off(provider_code: str, upstream_id: str) -> Usage:
        called_off.append((provider_code, upstream_id))
        return Usage(input_tokens=1_000_000, output_tokens=200_000)

    await credits_.note_upstream(hold.id, "openai", "resp_1")
    leave_journal(folder, [note(hold)])
    assert await replace(leases, call_off=call_off).sweep() == 1
    assert called_off == [("openai", "resp_1")]
    used = "SELECT provisional, input_tokens, output_tokens FROM usage"
    assert fetch(owner_database_url, used) == [(False, 1_000_000, 200_000)]


@pytest.mark.parametrize("trouble", ["refused", "silent"])
async def test_what_cannot_be_called_off_keeps_its_hold_as_long_as_it_may_be_under_way(
    leases: Leases,
    folder: Path,
    hold: Hold,
    credits_: Credits,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    owner_database_url: str,
) -> None:
    """After that it is settled all the same, from what is known."""
    monkeypatch.setattr("server.leases.CALL_OFF_SECONDS", 0.1)

    async def call_off(_provider_code: str, _upstream_id: str) -> Usage | None:
        if trouble == "silent":
            await trio.sleep_forever()
        raise UpstreamError("gone")

    leases = replace(leases, call_off=call_off)
    await credits_.note_upstream(hold.id, "openai", "resp_1")
    leave_journal(folder, [note(hold)])
    assert await leases.sweep() == 0
    assert await credits_.balance(hold.user_id) == Balance(Decimal(10), Decimal(5))
    assert await credits_.find_expired() == []
    await make_older(owner_database_url)
    assert await leases.sweep() == 1
    assert await credits_.balance(hold.user_id) == Balance(10 - COST, Decimal(0))


async def make_older(owner_url: str) -> None:
    """By more than any answer takes, with all leases at their end."""
    fetch(
        owner_url,
        "UPDATE holds SET created_at = created_at - interval '61 minutes', expires_at = now() - interval '1 second'"
        " RETURNING id",
    )


async def test_what_was_called_off_in_vain_is_called_off_in_the_next_round(
    leases: Leases, folder: Path, hold: Hold, database: Database, credits_: Credits
) -> None:
    answers: list[Usage | None] = [None, Usage(input_tokens=1_000_000, output_tokens=200_000)]

    async def call_off(_provider_code: str, _upstream_id: str) -> Usage | None:
        if (usage := answers.pop(0)) is None:
            raise UpstreamError("busy")
        return usage

    leases = replace(leases, call_off=call_off)
    await credits_.note_upstream(hold.id, "openai", "resp_1")
    leave_journal(folder, [note(hold)])
    assert await leases.sweep() == 0
    await Credits(database, lease_seconds=-1).renew([note(hold)])
    assert await leases.sweep() == 1
    assert await credits_.balance(hold.user_id) == Balance(Decimal(7), Decimal(0))


@pytest.mark.parametrize("told", [None, Usage()])
async def test_a_provider_that_knows_nothing_of_an_answer_changes_no_charge(
    leases: Leases, folder: Path, hold: Hold, credits_: Credits, told: Usage | None
) -> None:
    """Zeros are no word."""

    async def call_off(_provider_code: str, _upstream_id: str) -> Usage | None:
        return told

    await credits_.note_upstream(hold.id, "openai", "resp_1")
    leave_journal(folder, [note(hold)])
    assert await replace(leases, call_off=call_off).sweep() == 1
    assert await credits_.balance(hold.user_id) == Balance(10 - COST, Decimal(0))


async def test_of_two_sweeps_the_one_that_hears_what_an_answer_has_used_has_the_last_word(
    leases: Leases, folder: Path, hold: Hold, credits_: Credits, owner_database_url: str
) -> None:
    """The other finds it deleted, and may be the first to settle. A journal that comes later knows less, too."""
    is_gone, is_settled = trio.Event(), trio.Event()

    async def call_off(_provider_code: str, _upstream_id: str) -> Usage | None:
        if is_gone.is_set():
            return None
        is_gone.set()
        await is_settled.wait()
        return Usage(input_tokens=1_000_000, output_tokens=200_000)

    leases = replace(leases, call_off=call_off)
    await credits_.note_upstream(hold.id, "openai", "resp_1")
    await credits_.expire([note(hold)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.sweep)
        await is_gone.wait()
        assert await leases.sweep() == 1
        is_settled.set()
    leave_journal(folder, [note(hold)])
    await leases.sweep()
    assert await credits_.balance(hold.user_id) == Balance(Decimal(7), Decimal(0))
    assert fetch(owner_database_url, "SELECT provisional, output_tokens FROM usage") == [(False, 200_000)]


async def test_answers_that_need_no_provider_are_settled_first(
    leases: Leases, hold: Hold, database: Database, credits_: Credits
) -> None:
    other = build_hold(hold.user_id, "1")
    await credits_.hold(other)
    await credits_.note_upstream(hold.id, "openai", "resp_1")

    async def call_off(_provider_code: str, _upstream_id: str) -> Usage | None:
        assert (await credits_.balance(hold.user_id)).held_usd == hold.amount_usd
        return None

    short = Credits(database, lease_seconds=-1)
    await short.renew([note(hold)])
    await short.renew([note(other)])
    assert await replace(leases, call_off=call_off).sweep() == 2
