"""The seed in PostgreSQL: all of it or nothing, and no more than what differs."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import psycopg
import pytest

from storage.seed import seed
from storage.seed.difference import build_rows, find_changes
from storage.seed.reading import SeedInvalid, read_seed
from storage.seed.writing import open_seeding, read_rows, write_changes
from tests.storage.seed.catalogues import CATALOGUE, DOCUMENT, PROMPT, TASK, write_files

REGION = '[[regions]]\nlabel = "{}"\nurl = "https://{}.example"\nis_default = {}\n'


def fetch(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def change(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def tables_told(url: str, path: Path | None) -> set[str]:
    """What seeding tells those who listen."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN cloche_configuration")
        seed(url, path)
        change(url, "NOTIFY cloche_configuration, 'the end'")
        told = set()
        for notification in connection.notifies():
            if notification.payload == "the end":
                break
            told.add(notification.payload)
    return told


def test_what_the_file_says_is_what_the_database_has(tmp_path: Path, owner_database_url: str) -> None:
    told = 'model_type = "chat"\ndescription = "It is A."\ncreated_on = 2026-01-02\nname = "A"'
    provider = '[providers.more]\nname = "More"\ndescription = "D"\nwebsite_url = "https://more.example"\n'
    provider += 'api_base_url = "https://api.more.example"\ncapabilities = { text = true }\nstatus = "beta"\n'
    path = write_files(tmp_path, CATALOGUE.replace('name = "A"', told) + provider)
    assert seed(owner_database_url, path) == 1
    model = (
        *("acme/a", "A", "acme", 100, 10, {"vision": True}, {"input_per_million": "1", "output_per_million": "2"}),
        *("chat", "It is A.", date(2026, 1, 2), "active"),
    )
    columns = "id, name, provider_code, context_window, max_output_tokens, capabilities, pricing_info"
    columns += ", model_type, description, created_on, status"
    assert fetch(owner_database_url, f"SELECT {columns} FROM models WHERE id = 'acme/a'") == [model]  # noqa: S608 - our own columns
    mappings = "SELECT provider_code, provider_model_id FROM model_mappings WHERE model_id = 'acme/a' ORDER BY 1"
    assert fetch(owner_database_url, mappings) == [("acme", "a-1"), ("other", "a-2")]
    columns = "code, name, description, website_url, api_base_url, capabilities, status"
    assert fetch(owner_database_url, f"SELECT {columns} FROM providers WHERE code = 'more'") == [  # noqa: S608 - our own columns
        ("more", "More", "D", "https://more.example", "https://api.more.example", {"text": True}, "beta")
    ]


def test_seeding_again_writes_nothing_and_tells_nobody(owner_database_url: str) -> None:
    everything = "SELECT * FROM models LEFT JOIN model_mappings ON model_id = models.id ORDER BY id, model_id"
    versions = "SELECT key, version FROM configuration_versions ORDER BY 1, 2"
    before = fetch(owner_database_url, everything), fetch(owner_database_url, versions)
    assert tables_told(owner_database_url, None) == set()
    assert (fetch(owner_database_url, everything), fetch(owner_database_url, versions)) == before


def test_only_what_differs_is_written(owner_database_url: str) -> None:
    change(owner_database_url, "UPDATE models SET name = 'X' WHERE id = 'openai/o3'")
    assert tables_told(owner_database_url, None) == {"models", "model_mappings"}
    change(owner_database_url, "DELETE FROM legal_documents WHERE region = 'us'")
    assert tables_told(owner_database_url, None) == {"legal_documents"}


def test_what_is_not_listed_any_more_goes_out_of_service_and_can_come_back(
    tmp_path: Path, owner_database_url: str
) -> None:
    statuses = "SELECT (SELECT status FROM models WHERE id = 'openai/o3'), status FROM providers WHERE code = 'openai'"
    seed(owner_database_url, write_files(tmp_path, CATALOGUE))
    assert fetch(owner_database_url, statuses) == [("inactive", "deprecated")]
    seed(owner_database_url)
    assert fetch(owner_database_url, statuses) == [("active", "active")]


def test_changed_prices_mappings_and_homes_replace_the_old(tmp_path: Path, owner_database_url: str) -> None:
    seed(owner_database_url, write_files(tmp_path, CATALOGUE))
    dearer = CATALOGUE.replace('"1"', '"3"').replace('acme = "a-1", ', "")
    moved = dearer.replace('name = "A"', 'name = "A"\nprovider = "other"')
    seed(owner_database_url, write_files(tmp_path, moved))
    found = "SELECT pricing_info->>'input_per_million', provider_code FROM models WHERE id = 'acme/a'"
    assert fetch(owner_database_url, found) == [("3", "other")]
    mappings = "SELECT provider_code FROM model_mappings WHERE model_id = 'acme/a'"
    assert fetch(owner_database_url, mappings) == [("other",)]


def test_changed_tasks_are_a_version_more(tmp_path: Path, owner_database_url: str) -> None:
    version = "SELECT version, updated_by, value->'tasks'->'unknown'->>'max_tokens' FROM configuration"
    assert fetch(owner_database_url, version)[0][:2] == (1, "seed")
    seed(owner_database_url, write_files(tmp_path, CATALOGUE + TASK))
    assert fetch(owner_database_url, version) == [(2, "seed", "5")]
    seed(owner_database_url, write_files(tmp_path, CATALOGUE))
    assert fetch(owner_database_url, version) == [(2, "seed", "5")]


@pytest.mark.parametrize("hand", ["user:5f1c", "unknown"])
def test_tasks_that_somebody_else_has_changed_are_kept_unless_asked(
    tmp_path: Path, owner_database_url: str, hand: str
) -> None:
    change(owner_database_url, f"UPDATE configuration SET value = '{{}}', updated_by = '{hand}'")  # noqa: S608 - our own
    path = write_files(tmp_path, CATALOGUE + TASK)
    seed(owner_database_url, path)
    row = "SELECT value = '{}', updated_by FROM configuration WHERE key = 'ai_settings'"
    assert fetch(owner_database_url, row) == [(True, hand)]
    with open_seeding(owner_database_url) as connection:
        wanted = build_rows(read_seed(path))
        write_changes(connection, find_changes(wanted, read_rows(connection), overwrite=True))
    assert fetch(owner_database_url, row) == [(False, "seed")]


def test_prompts_get_a_revision_for_each_text(tmp_path: Path, owner_database_url: str) -> None:
    columns = "version, revision, description, system_prompt, updated_by"
    found = f"SELECT {columns} FROM system_prompts WHERE task_type = 'x_y'"  # noqa: S608 - our own columns
    seed(owner_database_url, write_files(tmp_path, CATALOGUE, x_y=PROMPT))
    text = "Do {{THIS}}.\n\nThen that."
    assert fetch(owner_database_url, found) == [("1.0", 1, "What it is for", text, "seed")]
    seed(owner_database_url, write_files(tmp_path, CATALOGUE, x_y="version: 1.1\n\nNo."))
    assert fetch(owner_database_url, found) == [("1.1", 2, None, "No.", "seed")]
    change(owner_database_url, "UPDATE system_prompts SET system_prompt = 'Yes.', updated_by = 'user:1'")
    seed(owner_database_url, write_files(tmp_path, CATALOGUE, x_y=PROMPT))
    assert fetch(owner_database_url, found) == [("1.1", 3, None, "Yes.", "user:1")]


def test_the_default_region_may_move(tmp_path: Path, owner_database_url: str) -> None:
    found = "SELECT label, url, is_default FROM regions ORDER BY label"
    first = REGION.format("A", "a", "true") + REGION.format("B", "b", "false")
    second = REGION.format("A", "a", "false") + REGION.format("B", "b", "true")
    seed(owner_database_url, write_files(tmp_path, CATALOGUE + first))
    assert fetch(owner_database_url, found) == [("A", "https://a.example", True), ("B", "https://b.example", False)]
    seed(owner_database_url, write_files(tmp_path, CATALOGUE + second))
    assert fetch(owner_database_url, found) == [("A", "https://a.example", False), ("B", "https://b.example", True)]
    seed(owner_database_url, write_files(tmp_path, CATALOGUE))
    assert fetch(owner_database_url, found) == []


def test_a_new_version_of_a_document_leaves_the_old_one(tmp_path: Path, owner_database_url: str) -> None:
    seed(owner_database_url, write_files(tmp_path, CATALOGUE + DOCUMENT))
    newer = DOCUMENT.replace('version = "1"', 'version = "2"\nmaterial_change = true\ncontent_hash = "ab"')
    seed(owner_database_url, write_files(tmp_path, CATALOGUE + newer.replace("2026", "2027")))
    found = "SELECT version, effective_at, url, content_hash, material_change FROM legal_documents"
    assert fetch(owner_database_url, f"{found} WHERE version IN ('1', '2') ORDER BY 1") == [
        ("1", date(2026, 1, 2), "/legal/eu/terms", None, False),
        ("2", date(2027, 1, 2), "/legal/eu/terms", "ab", True),
    ]


def test_who_comes_second_waits_for_the_first(tmp_path: Path, owner_database_url: str) -> None:
    """Or it would write what it found before the first one had written."""
    path = write_files(tmp_path, CATALOGUE)
    ours = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    waiting = f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = {ours}"
    with ThreadPoolExecutor(1) as pool:
        with open_seeding(owner_database_url):
            second = pool.submit(seed, owner_database_url, path)
            while not fetch(owner_database_url, waiting):
                assert not second.done()
        assert second.result(timeout=30) == 1


def test_an_administrator_who_writes_meanwhile_waits_and_has_the_last_word(
    tmp_path: Path, owner_database_url: str
) -> None:
    """Neither are they in each other's way, nor is a setting overwritten that was not there when we looked."""
    videos = '[configuration]\nonboarding_videos = { intro = "ours" }\n'
    wanted = build_rows(read_seed(write_files(tmp_path, f"{CATALOGUE}{videos}{TASK}")))
    write = (
        "LOCK TABLE configuration IN SHARE ROW EXCLUSIVE MODE;"  # as the routes do
        "INSERT INTO configuration (key, value, updated_by)"
        " VALUES ('ai_settings', '{}', 'user:1'), ('onboarding_videos', '{}', 'user:1')"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_by = excluded.updated_by"
    )
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'configuration'::regclass"
    with ThreadPoolExecutor(1) as pool:
        with open_seeding(owner_database_url) as connection:
            changes = find_changes(wanted, read_rows(connection))
            administrator = pool.submit(change, owner_database_url, write)
            while not fetch(owner_database_url, waiting):
                assert not administrator.done()
            write_changes(connection, changes)
        administrator.result(timeout=30)
    settings = "SELECT key, value, version, updated_by FROM configuration ORDER BY key"
    assert fetch(owner_database_url, settings) == [
        ("ai_settings", {}, 3, "user:1"),
        ("onboarding_videos", {}, 2, "user:1"),
    ]


def test_what_the_database_refuses_changes_nothing(tmp_path: Path, owner_database_url: str) -> None:
    path = write_files(tmp_path, CATALOGUE.replace('name = "A"', 'name = "A\\u0000"'))
    with pytest.raises(psycopg.Error):
        seed(owner_database_url, path)
    assert fetch(owner_database_url, "SELECT FROM providers WHERE code = 'acme'") == []
    assert fetch(owner_database_url, "SELECT FROM models WHERE status = 'inactive'") == []


def test_what_does_not_hold_together_is_not_even_tried(tmp_path: Path) -> None:
    with pytest.raises(SeedInvalid):
        seed("postgresql://nobody@127.0.0.1:9/x", write_files(tmp_path, CATALOGUE + TASK.replace("acme/a", "acme/b")))
