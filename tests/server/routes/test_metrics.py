"""The page of figures for Prometheus: for who knows the token, in its text format, and cheap."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from server.routes.metrics import CONTENT_TYPE, Gauge, build_account_gauges, write_text
from storage.journal import open_journal
from tests.server.push import fcm_samples
from tests.server.served import Served, open_served
from tests.storage.people import open_query
from tests.storage.phones import Phones

TOKEN = "measure-me"
RELAY = [
    *("cloche_device_sockets 0", "cloche_devices 0"),
    *('cloche_device_messages{direction="in"} 0', 'cloche_device_messages{direction="out"} 0'),
    *("cloche_device_bytes_out 0", "cloche_device_bytes_waiting 0"),
    *("cloche_terminal_bytes_waiting 0", "cloche_pending_calls 0"),
]
"""Where no device has ever been."""
LINE = re.compile(r'(# (HELP|TYPE) [a-z_]+ .+)|[a-z_]+(\{[a-z]+="[^"\n]*"\})? -?[0-9.e+-]+')


@pytest.fixture
def stores(database_url: str, redis_url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
async def served(stores: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served(stores, tmp_path, VIBE_DEPLOYMENT_TOKEN=TOKEN) as served:
        yield served


async def measure(served: Served) -> list[str]:
    answer = await served.ask("GET", "/metrics", {"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    assert answer.body.endswith(b"\n")
    lines = answer.body.decode().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    return [line for line in lines if not line.startswith("#")]


async def test_without_a_token_the_page_is_closed(stores: Mapping[str, str], tmp_path: Path) -> None:
    async with open_served(stores, tmp_path) as served:
        answer = await served.ask("GET", "/metrics")
    assert (answer.status, answer.json["errorType"]) == (503, "configuration_error")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": TOKEN}])
async def test_a_wrong_token_is_refused(served: Served, headers: Mapping[str, str]) -> None:
    answer = await served.ask("GET", "/metrics", headers)
    assert (answer.status, answer.json["errorType"]) == (401, "authentication_error")
    assert TOKEN not in answer.json["message"]


async def test_before_the_first_reconciliation_there_is_what_runs(served: Served, tmp_path: Path) -> None:
    assert await measure(served) == ["cloche_running_calls 0", "cloche_requests 0", *RELAY]
    with open_journal(tmp_path) as journal:
        slots = [journal.open_slot(uuid4()) for _ in range(3)]
        assert "cloche_running_calls 3" in await measure(served)
        for slot in slots:
            slot.clear()


async def test_what_the_last_reconciliation_found_is_there(served: Served) -> None:
    report = await served.services.billing.reconciliation.run_if_due()
    assert report is not None
    lines = await measure(served)
    assert 'cloche_drift_usd{kind="balance"} 0' in lines
    assert 'cloche_drifts{kind="overdue_hold"} 0' in lines
    assert {"cloche_debts 0", "cloche_debts_usd 0", "cloche_provisional 0", "cloche_open_purchases 0"} <= set(lines)
    [age] = [line for line in lines if line.startswith("cloche_reconciliation_age_seconds ")]
    assert 0 <= float(age.split()[1]) < 60


async def test_where_pushes_are_on_it_is_told_how_many_wait(
    stores: Mapping[str, str], tmp_path: Path, owner_database_url: str
) -> None:
    fcm = fcm_samples.build_settings("http://127.0.0.1:9")
    account = {name: getattr(fcm, name) for name in ("project_id", "client_email", "private_key_id", "private_key")}
    settings = {"FCM_SERVICE_ACCOUNT": json.dumps({**account, "token_uri": fcm.token_url})}
    with open_query(owner_database_url) as query:
        phones = Phones(query)
        phones.notify(phones.make_token(platform="android"), ago="2 minutes")
    async with open_served(stores, tmp_path, VIBE_DEPLOYMENT_TOKEN=TOKEN, **settings) as served:
        lines = await measure(served)
    assert {'cloche_pushes_due{platform="android"} 1', 'cloche_pushes_recent{state="due"} 1'} <= set(lines)
    [late] = [line for line in lines if line.startswith('cloche_push_late_seconds{platform="android"} ')]
    assert 120 <= float(late.split()[1]) < 180


# What is written


def test_figures_of_all_kinds_are_gauges() -> None:
    figures = {
        "drift_usd": {"balance": "0.000001"},
        "drifts": {"balance": 1},
        "debts": 2,
        "stripe_events": {"failed": 3},
        "stripe": {"problems": 1, "repaired": 0},
    }
    assert [line for line in write_text([*build_account_gauges((1.5, figures))]).splitlines() if line[0] != "#"] == [
        "cloche_reconciliation_age_seconds 1.5",
        'cloche_drift_usd{kind="balance"} 0.000001',
        'cloche_drifts{kind="balance"} 1',
        "cloche_debts 2",
        'cloche_stripe_events{state="failed"} 3',
        'cloche_stripe_payments{what="problems"} 1',
        'cloche_stripe_payments{what="repaired"} 0',
    ]


def test_a_row_of_another_version_of_this_server_can_be_read() -> None:
    assert write_text([*build_account_gauges((1.0, {}))]).startswith("# HELP cloche_reconciliation_age_seconds ")


def test_a_metric_says_what_it_is_and_quotes_its_labels() -> None:
    assert write_text([Gauge("cloche_x", "Some help", {'a"b\\c\nd': 1}, "kind")]) == (
        '# HELP cloche_x Some help\n# TYPE cloche_x gauge\ncloche_x{kind="a\\"b\\\\c\\nd"} 1\n'
    )
