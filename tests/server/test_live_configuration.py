"""What is kept in memory: read anew when it has changed, and only then; kept as it is while PostgreSQL is away."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import trio
import trio.testing

from proxy.provider import load_providers
from proxy.routing import Upstream
from server import live_configuration
from server.ai_settings import REQUIRED_TASKS
from server.catalogue import Catalogue
from server.live_configuration import CHANNEL, CONFIGURATION, EVERYTHING, REGIONS, LiveConfiguration
from storage import listening
from storage.configuration import write_configuration
from storage.listening import Listener
from storage.postgres import Database, open_database
from storage.regions import read_regions

UPSTREAMS = {code: Upstream(provider, "https://x", ("k",)) for code, provider in load_providers().items()}
ADD_REGION = "INSERT INTO regions (label, url) VALUES ('Mars', 'https://mars.example.com')"


@pytest.fixture
async def live(database_url: str) -> AsyncIterator[LiveConfiguration]:
    async with open_live(database_url) as live:
        yield live


@pytest.fixture
def owner(owner_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(owner_database_url, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def open_live(url: str) -> AsyncIterator[LiveConfiguration]:
    async with open_database(url, size=2) as database:
        live = LiveConfiguration(database, Catalogue(database), UPSTREAMS)
        await live.refresh()
        yield live


@asynccontextmanager
async def keeping_fresh(live: LiveConfiguration, url: str) -> AsyncIterator[None]:
    listener = Listener(url, CHANNEL)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.keep_fresh, listener)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            listener.close_nowait()


async def wait_until(is_so: Callable[[], bool], seconds: float = 5) -> None:
    with trio.fail_after(seconds):
        while not is_so():
            await trio.sleep(0.005)


async def write(database: Database, **values: Any) -> None:
    async with database.as_operator("test").transaction() as connection:
        await write_configuration(connection, values, "test")


def build_settings(model: str, **members: Any) -> dict[str, Any]:
    task = {"model": model, "max_tokens": 100, "temperature": 0.5}
    return {"tasks": dict.fromkeys(REQUIRED_TASKS, task), **members}


async def test_everything_is_there_from_the_start(live: LiveConfiguration) -> None:
    assert set(REQUIRED_TASKS) <= live.ai_settings.tasks.keys()
    assert live.configuration["ai_settings"]["tasks"].keys() == live.ai_settings.tasks.keys()
    assert "task_refinement" in live.prompts
    assert list(live.regions) == []
    assert {document.doc_type for document in live.documents} == {"terms", "privacy"}
    assert "openai/gpt-4.1-mini" in live.catalogue.models
    assert json.loads(live.runtime.body)["tasks"].keys() == live.ai_settings.tasks.keys()


async def test_only_what_has_changed_is_read(live: LiveConfiguration, owner: psycopg.Connection) -> None:
    owner.execute(ADD_REGION)
    await write(live.database, onboarding_videos={})
    before = live.configuration
    await live.refresh({REGIONS})
    assert [region.label for region in live.regions] == ["Mars"]
    assert live.configuration is before
    await live.refresh({CONFIGURATION})
    assert live.configuration["onboarding_videos"] == {}


async def test_the_document_is_made_anew_only_if_it_would_be_another(
    live: LiveConfiguration, owner: psycopg.Connection
) -> None:
    first = live.runtime
    owner.execute(ADD_REGION)
    await write(live.database, onboarding_videos={})
    await live.refresh()
    assert live.runtime is first
    await write(live.database, ai_settings=build_settings("openai/gpt-4.1-mini"))
    await live.refresh()
    second = live.runtime
    assert second.etag != first.etag
    owner.execute("UPDATE models SET pricing_info = pricing_info || '{\"input_per_million\": 7}'")
    await live.refresh()
    assert live.runtime.etag not in {first.etag, second.etag}
    assert b'"priceInputPerMillion":"7"' in live.runtime.body


async def test_a_model_that_goes_takes_no_task_with_it(live: LiveConfiguration, owner: psycopg.Connection) -> None:
    await write(live.database, ai_settings=build_settings("openai/gpt-4.1-mini"))
    owner.execute("UPDATE models SET status = 'inactive' WHERE id = 'openai/gpt-4.1-mini'")
    await live.refresh()
    document = json.loads(live.runtime.body)
    listed = {model["id"] for group in document["providers"] for model in group["models"]}
    models = {task["model"] for task in document["tasks"].values()}
    assert "openai/gpt-4.1-mini" not in listed
    assert models <= listed
    assert set(REQUIRED_TASKS) <= document["tasks"].keys()


async def test_what_is_wrong_with_the_settings_is_told_once(
    live: LiveConfiguration, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await write(live.database, ai_settings=build_settings("openai/none"))
    await live.refresh()
    owner.execute("UPDATE models SET description = 'changed'")
    await live.refresh()
    told = [record for record in caplog.records if "ai_settings are wrong" in record.message]
    assert len(told) == 1
    assert "tasks.unknown.model: 'openai/none' is not in the catalogue" in told[0].__dict__["problems"]


async def test_settings_that_cannot_be_read_leave_the_last_ones_in_use(
    live: LiveConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    settings, document = live.ai_settings, live.runtime
    for value in ({"tasks": 5}, {"tasks": 5}, "nothing"):
        await write(live.database, ai_settings=value)
        await live.refresh()
        await live.refresh()
    assert live.ai_settings is settings
    assert live.runtime is document
    assert caplog.text.count("ai_settings are wrong") == 2


async def test_a_value_that_cannot_be_read_at_all_ends_nothing_and_is_told_once(
    live: LiveConfiguration,
    database_url: str,
    owner: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(live_configuration, "RETRY_SECONDS", 0.01)
    failures, before = count_failures(monkeypatch), live.configuration
    async with keeping_fresh(live, database_url):
        owner.execute("INSERT INTO configuration (key, value) VALUES ('amount', repeat('9', 6000)::jsonb)")
        await wait_until(lambda: len(failures) >= 3)
        assert live.configuration is before
        owner.execute("UPDATE configuration SET value = '9' WHERE key = 'amount'")
        await wait_until(lambda: live.configuration.get("amount") == 9)
    assert caplog.text.count("stays as it was") == 1


async def test_without_settings_there_are_no_tasks_and_all_models(
    live: LiveConfiguration, owner: psycopg.Connection
) -> None:
    owner.execute("DELETE FROM configuration")
    await live.refresh()
    document = json.loads(live.runtime.body)
    assert document["tasks"] == {}
    assert document["providers"]


async def test_a_change_is_seen_at_once(live: LiveConfiguration, database_url: str, owner: psycopg.Connection) -> None:
    async with keeping_fresh(live, database_url):
        await wait_for_listener(owner)
        started = trio.current_time()
        owner.execute(ADD_REGION)
        await wait_until(lambda: len(live.regions) == 1)
        owner.execute("UPDATE models SET status = 'inactive'")
        await wait_until(lambda: not live.catalogue.models)
        assert trio.current_time() - started < 2


async def wait_for_listener(owner: psycopg.Connection) -> None:
    with trio.fail_after(5):
        while not owner.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database()"
        ).fetchall():
            await trio.sleep(0.005)


async def test_a_burst_of_changes_is_read_once(
    live: LiveConfiguration, database_url: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()

    async def count(database: Database) -> list[Any]:
        read.append(1)
        return []

    async with keeping_fresh(live, database_url):
        await wait_for_listener(owner)
        owner.execute(ADD_REGION)
        await wait_until(lambda: len(live.regions) == 1)
        monkeypatch.setattr(live_configuration, "read_regions", count)
        monkeypatch.setattr(listening, "BURST_SECONDS", 0.5)  # a slow machine tells its changes slowly
        for _ in range(20):
            owner.execute("UPDATE regions SET label = label || '!'")
        await wait_until(lambda: not live.regions)
        await trio.sleep(0.1)
    assert sum(read) == 1


async def test_what_nobody_tells_is_seen_by_and_by(
    live: LiveConfiguration, database_url: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler in transaction mode, which passes no notifications on."""
    monkeypatch.setattr(live_configuration, "POLL_SECONDS", 0.05)
    owner.execute("SET session_replication_role = replica")  # no triggers
    async with keeping_fresh(live, database_url):
        await wait_for_listener(owner)
        await trio.sleep(0.02)
        owner.execute(ADD_REGION)
        await wait_until(lambda: len(live.regions) == 1)


async def test_while_postgresql_is_away_all_stays_as_it_is_and_one_line_says_so(
    database_url: str, owner_database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A statement that comes to nothing, several times, and then one that succeeds."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(live_configuration, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(live_configuration, "RETRY_SECONDS", 0.01)
    separator = "&" if "?" in database_url else "?"
    async with open_live(f"{database_url}{separator}options=-c%20lock_timeout%3D5ms") as live:
        failures = count_failures(monkeypatch)
        before = live.catalogue.models
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("LOCK TABLE models; UPDATE models SET status = 'inactive'")
            async with keeping_fresh(live, database_url):
                await wait_until(lambda: len(failures) >= 3)
                assert live.catalogue.models is before
                owner.commit()
                await wait_until(lambda: not live.catalogue.models)
                await wait_until(lambda: "fresh again" in caplog.text)
    assert caplog.text.count("stays as it was") == 1
    assert caplog.text.count("fresh again") == 1


def count_failures(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    failures = list[Exception]()
    note_away = LiveConfiguration._note_away

    def note(self: LiveConfiguration, error: Any) -> None:
        failures.append(error)
        note_away(self, error)

    monkeypatch.setattr(LiveConfiguration, "_note_away", note)
    return failures


async def test_what_could_not_be_read_is_read_again_without_being_told_again(
    database_url: str, owner_database_url: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_configuration, "RETRY_SECONDS", 0.01)
    separator = "&" if "?" in database_url else "?"
    async with open_live(f"{database_url}{separator}options=-c%20lock_timeout%3D5ms") as live:
        failures = count_failures(monkeypatch)
        async with keeping_fresh(live, database_url):
            await wait_for_listener(owner)
            owner.execute("UPDATE models SET description = 'seen'")
            await wait_until(lambda: {row.description for row in live.catalogue.rows.values()} == {"seen"})
            with psycopg.connect(owner_database_url) as silent:
                silent.execute("SET session_replication_role = replica")  # no triggers
                silent.execute("LOCK TABLE regions")
                silent.execute(ADD_REGION)
                owner.execute("SELECT pg_notify('cloche_configuration', 'regions')")
                await wait_until(lambda: len(failures) >= 2)
            await wait_until(lambda: len(live.regions) == 1)


async def test_who_follows_its_own_change_is_not_troubled_by_an_outage(
    database_url: str, owner_database_url: str
) -> None:
    separator = "&" if "?" in database_url else "?"
    async with open_live(f"{database_url}{separator}options=-c%20lock_timeout%3D5ms") as live:
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("LOCK TABLE regions")
            owner.execute(ADD_REGION)
            await live.follow({REGIONS})
            assert list(live.regions) == []
        await live.follow({REGIONS})
        assert len(live.regions) == 1


async def test_a_slow_reader_puts_nothing_older_in_the_place_of_what_a_faster_one_has_read(
    live: LiveConfiguration, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_read, may_go_on = trio.Event(), trio.Event()

    async def read_slowly(database: Database) -> Any:
        found = await read_regions(database)
        has_read.set()
        await may_go_on.wait()
        return found

    async with trio.open_nursery() as nursery:
        monkeypatch.setattr(live_configuration, "read_regions", read_slowly)
        nursery.start_soon(live.refresh, EVERYTHING)
        await has_read.wait()
        monkeypatch.setattr(live_configuration, "read_regions", read_regions)
        owner.execute(ADD_REGION)
        nursery.start_soon(live.refresh, {REGIONS})
        await trio.testing.wait_all_tasks_blocked(0.02)
        may_go_on.set()
    assert [region.label for region in live.regions] == ["Mars"]


async def test_who_listens_hears_of_tables_that_have_another_content_and_of_no_others(
    live: LiveConfiguration, owner: psycopg.Connection
) -> None:
    told: list[set[str]] = []
    live.hear_changed(lambda tables: told.append(set(tables)))
    await live.follow(EVERYTHING)
    assert told == []
    owner.execute(ADD_REGION)
    await live.follow(EVERYTHING)
    assert told == [{REGIONS}]
    owner.execute("UPDATE models SET name = name || '!' WHERE id = (SELECT min(id) FROM models)")
    await live.follow(EVERYTHING)
    assert told == [{REGIONS}, {"providers", "models", "model_mappings"}]
