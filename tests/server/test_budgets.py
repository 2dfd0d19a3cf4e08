"""Budgets: how they are set, and which of them need Redis."""

from dataclasses import fields, replace

import pytest

from server.budgets import Budgets, read_budgets
from server.settings import Settings


def read(**environment: str) -> Budgets:
    settings = Settings(environment)
    budgets = read_budgets(settings)
    assert settings.problems == []
    return budgets


def test_only_what_reads_and_what_connects_devices_is_open_without_redis() -> None:
    budgets = read()
    assert {field.name for field in fields(Budgets) if budgets.find(field.name).is_open_without_redis} == {
        "public",
        "reads",
        "sockets",
    }


def test_only_sockets_are_counted_by_device() -> None:
    budgets = read()
    assert [field.name for field in fields(Budgets) if budgets.find(field.name).is_by_device] == ["sockets"]


def test_a_budget_is_found_by_its_name_and_no_two_share_one() -> None:
    budgets = read()
    assert all(budgets.find(field.name).name == field.name for field in fields(Budgets))


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("RATE_LIMIT_MAX_REQUESTS", "public"),
        ("RATE_LIMIT_SIGN_INS", "sign_ins"),
        ("RATE_LIMIT_POLLS", "polls"),
        ("RATE_LIMIT_POLLS_PER_ADDRESS", "poll_floods"),
        ("ACCOUNT_CREATION_RATE_LIMIT_MAX_REQUESTS", "accounts"),
        ("RATE_LIMIT_SOCKETS", "sockets"),
        ("RATE_LIMIT_WEBHOOKS", "webhooks"),
        ("RATE_LIMIT_READS", "reads"),
        ("RATE_LIMIT_WRITES", "writes"),
        ("RATE_LIMIT_LLM_REQUESTS", "llm_requests"),
        ("RATE_LIMIT_LLM_TOKENS", "llm_tokens"),
    ],
)
def test_each_limit_has_a_setting(setting: str, name: str) -> None:
    budgets, changed = read(), read(**{setting: "7"})
    assert changed.find(name).limit == 7
    assert [field.name for field in fields(Budgets) if budgets.find(field.name) != changed.find(field.name)] == [name]


@pytest.mark.parametrize(("limit", "of_key"), [("1", 1), ("5", 4), ("60", 48)])
def test_a_key_has_four_fifths_of_its_users_budget_and_not_nothing(limit: str, of_key: int) -> None:
    reads = read(RATE_LIMIT_READS=limit).reads
    assert reads.of_key() == replace(reads, limit=of_key)


def test_accounts_have_a_window_of_their_own() -> None:
    budgets = read(RATE_LIMIT_WINDOW_MS="1000", ACCOUNT_CREATION_RATE_LIMIT_WINDOW_MS="7000")
    assert budgets.accounts.window_seconds == 7
    assert {budgets.find(field.name).window_seconds for field in fields(Budgets) if field.name != "accounts"} == {1}


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many"])
def test_a_limit_that_is_no_whole_number_above_zero_is_told(text: str) -> None:
    settings = Settings({"RATE_LIMIT_READS": text, "RATE_LIMIT_WINDOW_MS": text})
    read_budgets(settings)
    assert [problem.split()[0] for problem in settings.problems] == ["RATE_LIMIT_WINDOW_MS", "RATE_LIMIT_READS"]
