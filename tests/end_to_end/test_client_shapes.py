"""The checklist of what the shipped apps need (section 7 of the contract of sign-in and configuration), row by row:
where each is checked, and here those answers that they decode, member by member, with dates.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import httpx2
import msgspec
import psycopg
import pytest

from storage.accounts import User
from tests.end_to_end import client_decoders as clients
from tests.end_to_end.client_decoders import decode, is_url, read_time
from tests.end_to_end.cloche import Stores
from tests.end_to_end.shipped_app import open_shipped_app
from tests.server.served import Served, open_served, token_headers

FOLDER = Path(__file__).parent

WHERE: Mapping[int, Sequence[str]] = {
    1: ["test_sign_in.py::test_an_app_signs_in_through_the_browser"],
    2: [
        "test_client_shapes.py::test_both_apps_decode_a_sign_in_from_the_poll_to_the_refresh",
        "test_sign_in.py::test_an_app_signs_in_through_the_browser",
        "test_sign_in.py::test_apps_behind_one_address_do_not_poll_each_other_out",
    ],
    3: ["test_client_shapes.py::test_both_apps_decode_a_sign_in_from_the_poll_to_the_refresh"],
    4: ["test_sign_in.py::test_the_phone_polls_with_capitals_and_comes_from_the_device_it_wrote_in_capitals"],
    5: [
        "test_client_shapes.py::test_both_apps_decode_a_sign_in_from_the_poll_to_the_refresh",
        "test_tampering.py::test_a_token_works_on_no_other_device",
    ],
    6: ["test_staying_signed_in.py::test_signing_out_ends_every_token_of_the_sign_in_and_no_other"],
    7: ["test_client_shapes.py::test_the_phones_empty_posts_that_are_called_json_are_taken"],
    8: [
        "test_client_shapes.py::test_both_apps_decode_a_sign_in_from_the_poll_to_the_refresh",
        "test_staying_signed_in.py::test_a_fresh_token_is_the_same_persons_and_devices",
        "test_staying_signed_in.py::test_a_refresh_while_the_issuer_is_away_is_put_off_and_ends_nothing",
    ],
    9: ["test_client_shapes.py::test_the_desktop_starts_with_the_runtime_configuration"],
    10: ["test_client_shapes.py::test_the_desktop_decodes_every_system_prompt_and_takes_none_for_an_answer"],
    11: ["test_client_shapes.py::test_the_desktop_decodes_consent_before_and_after_it_agreed"],
    12: ["test_client_shapes.py::test_the_desktop_decodes_what_a_call_would_cost"],
    13: ["test_client_shapes.py::test_the_desktop_finds_the_regions_before_anybody_signed_in"],
    14: ["test_client_shapes.py::test_the_phone_decodes_the_videos"],
    15: ["test_client_shapes.py::test_the_phone_decodes_who_it_is"],
    16: ["test_client_shapes.py::test_both_apps_decode_every_kind_of_error"],
    17: ["test_client_shapes.py::test_a_token_of_another_region_brings_its_user_along"],
    18: [
        "test_openapi.py::test_every_route_answers_people_as_it_is_described_and_signs_nobody_out",
        "test_tampering.py::test_an_issuer_in_trouble_is_never_the_callers_fault",
        "test_hostile.py::test_a_redis_that_hangs_is_503_and_never_401_and_is_found_again",
    ],
}

TASKS = {
    *("implementation_plan", "implementation_plan_merge", "voice_transcription", "text_improvement", "task_refinement"),
    *("generic_llm_stream", "regex_file_filter", "root_folder_selection", "file_relevance_assessment"),
    *("extended_path_finder", "web_search_prompts_generation", "web_search_execution", "video_analysis"),
    *("streaming", "unknown"),
}
"""Without any of them the desktop does not start."""

ALL_KEYS = {
    f"{name}_API_KEY": "sk-nobody-is-asked" for name in ("ANTHROPIC", "GOOGLE", "OPENAI", "OPENROUTER", "XAI")
}
MODEL = "openai/gpt-5-mini"


Client = tuple[Served, User, httpx2.AsyncClient]
OpenClient = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def open_client(database_url: str, redis_url: str, tmp_path: Path) -> OpenClient:
    """Somebody who is signed in at a server of these settings."""

    @asynccontextmanager
    async def open_(role: str = "user", **settings: str) -> AsyncIterator[Client]:
        stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        async with open_served(stores, tmp_path, ENVIRONMENT="production", **settings) as served:
            user = await served.make_user(role=role)
            url = f"http://127.0.0.1:{served.port}"
            async with httpx2.AsyncClient(base_url=url, headers=token_headers(user), timeout=20) as client:
                yield served, user, client

    return open_


async def get(client: httpx2.AsyncClient, path: str, region: str = "") -> bytes:
    answer = await client.get(path, params={"region": region} if region else None)
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.parametrize("row", sorted(WHERE))
def test_every_row_of_the_checklist_is_checked_by_a_test_that_is_there(row: int) -> None:
    for place in WHERE[row]:
        file, _, name = place.partition("::")
        assert re.search(rf"^(async )?def {name}\(", (FOLDER / file).read_text(), re.MULTILINE), place


def test_the_checklist_has_eighteen_rows() -> None:
    assert list(WHERE) == list(range(1, 19))


async def test_both_apps_decode_a_sign_in_from_the_poll_to_the_refresh(stores: Stores) -> None:
    async with open_shipped_app(stores) as app:
        await app.come_back(await app.begin_and_find_state())
        polled = decode((await app.poll()).content, clients.Polled)
        assert polled.tauri_csrf_token == app.csrf
        finalized = await app.finalize()
        for answer in (finalized, None):
            body = (answer or await app.refresh()).content
            desktop = decode(body, clients.DesktopSession)
            phone = decode(body, clients.PhoneSession)
            assert (desktop.user.id, desktop.user.email) == (phone.user.id, phone.user.email)
            app.token = desktop.token
            assert (await app.ask_who()).status_code == 200


async def test_the_phones_empty_posts_that_are_called_json_are_taken(open_client: OpenClient) -> None:
    json_type = {"Content-Type": "application/json"}
    async with open_client() as (_, _, client):
        refreshed = await client.post("/api/auth0/refresh-app-token", headers=json_type)
        decode(refreshed.content, clients.PhoneSession)
        for method, path in (("GET", "/api/auth/userinfo"), ("POST", "/api/auth/logout")):
            answer = await client.request(method, path, headers=json_type)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("settings", [ALL_KEYS, {"OPENAI_API_KEY": "sk"}, {"OPENROUTER_API_KEY": "sk"}])
async def test_the_desktop_starts_with_the_runtime_configuration(
    open_client: OpenClient, settings: dict[str, str]
) -> None:
    """Whichever providers this server has a key for. There are two names for it."""
    async with open_client(**settings) as (_, _, client):
        body = await get(client, "/api/config/desktop-runtime-config")
        assert await get(client, "/api/config/runtime") == body
        found = decode(body, clients.RuntimeConfiguration)
        assert found.tasks.keys() >= TASKS
        known = {model.id for provider in found.providers for model in provider.models}
        for key, task in found.tasks.items():
            assert task.model in known, key
            assert set(task.allowed_models or ()) <= known, key
            assert round(task.temperature, 2) == task.temperature, key
        for provider in found.providers:
            assert {model.provider for model in provider.models} == {provider.provider.code}
        listed = [model.id for provider in found.providers for model in provider.models]
        assert len(listed) == len(set(listed)), "each model stands there once"


async def test_the_desktop_decodes_every_system_prompt_and_takes_none_for_an_answer(open_client: OpenClient) -> None:
    async with open_client() as (_, _, client):
        prompts = decode(await get(client, "/api/system-prompts/defaults"), list[clients.SystemPrompt])
        assert len(prompts) == 16
        for prompt in prompts:
            assert prompt.id == f"default_{prompt.task_type}"
            assert abs(prompt.created_at - time()) < timedelta(hours=1).total_seconds()
            assert prompt.updated_at >= prompt.created_at
            one = await get(client, f"/api/system-prompts/defaults/{prompt.task_type}")
            assert decode(one, clients.SystemPrompt) == prompt
        none = await client.get("/api/system-prompts/defaults/streaming")
        assert none.status_code == 404
        decode(none.content, clients.DesktopError)


async def test_the_desktop_decodes_consent_before_and_after_it_agreed(open_client: OpenClient) -> None:
    async with open_client() as (_, user, client):
        documents = decode(
            await get(client, "/api/consent/documents/current", "eu"), list[clients.LegalDocument]
        )
        assert [document.doc_type for document in documents] == ["privacy", "terms"]
        for document in documents:
            assert document.effective_at <= datetime.now(UTC).date()
            assert read_time(document.updated_at) >= read_time(document.created_at)
        before = decode(await get(client, "/api/consent/status", "eu"), clients.ConsentStatus)
        assert (before.user_id, before.all_consented) == (user.id, False)
        assert [(item.accepted_version, item.accepted_at) for item in before.items] == [(None, None)] * 2
        for document in documents:
            body = {"doc_type": document.doc_type, "region": "eu", "metadata": None}
            agreed = await client.post("/api/consent/accept", json=body)
            assert (agreed.status_code, agreed.content) == (204, b"")
        after = decode(await get(client, "/api/consent/status", "eu"), clients.ConsentStatus)
        assert after.all_consented
        for item, document in zip(after.items, documents, strict=True):
            assert (item.accepted_version, item.current_version) == (document.version, document.version)
            assert (item.url, item.effective_at) == (document.url, document.effective_at)
            assert datetime.now(UTC) - read_time(item.accepted_at or "") < timedelta(minutes=5)
        gone = await client.post("/api/consent/withdraw", json={"doc_type": "terms", "region": "eu"})
        assert (gone.status_code, gone.content) == (204, b"")
        check = decode(await get(client, "/api/consent/verify", "eu"), clients.ConsentCheck)
        assert (check.requires_reconsent, check.missing) == (True, ["terms"])


async def test_the_desktop_decodes_what_a_call_would_cost(open_client: OpenClient) -> None:
    wish = {
        "modelId": MODEL,
        "inputTokens": 1000,
        "outputTokens": 1,
        "cacheWriteTokens": None,
        "cacheReadTokens": None,
        "durationMs": None,
    }
    async with open_client() as (_, _, client):
        for tokens in (wish, {**wish, "durationMs": 1500, "cacheReadTokens": 400}):
            answer = await client.post("/api/models/estimate-cost", json=tokens)
            assert answer.status_code == 200, answer.text
            estimate = decode(answer.content, clients.CostEstimate)
            assert float(estimate.estimated_cost) > 0
            assert estimate.model_id == MODEL


async def test_the_desktop_finds_the_regions_before_anybody_signed_in(
    open_client: OpenClient, owner_database_url: str
) -> None:
    async with open_client(SERVER_URL="https://api.example.com") as (_, _, client):
        alone = decode(await get(client, "/config/regions"), list[clients.Region])
        assert [region.url for region in alone] == ["https://api.example.com"]
    with psycopg.connect(owner_database_url) as connection:
        connection.execute(
            "INSERT INTO regions (label, url, is_default)"
            " VALUES ('Europe', 'https://eu.example.com', false), ('America', 'https://us.example.com', true)"
        )
    async with open_client() as (_, _, client):
        regions = decode(await get(client, "/config/regions"), list[clients.Region])
        assert [(region.label, region.is_default) for region in regions] == [("America", True), ("Europe", False)]
        assert all(is_url(region.url) for region in regions)
        assert all(region.created_at and region.updated_at for region in regions)


async def test_the_phone_decodes_the_videos(open_client: OpenClient) -> None:
    async with open_client("admin", CDN_BASE_URL="https://cdn.example.com/") as (_, _, client):
        none = decode(await get(client, "/public/onboarding"), clients.OnboardingVideos)
        assert none.videos == {}
        paths = {"intro": "videos/intro.m3u8", "plan": "/videos/plan.m3u8"}
        changed = await client.put("/api/config/admin/onboarding_videos", json={"value": paths})
        assert changed.status_code == 200, changed.text
        found = decode(await get(client, "/public/onboarding"), clients.OnboardingVideos)
        assert found.videos == {
            "intro": "https://cdn.example.com/videos/intro.m3u8",
            "plan": "https://cdn.example.com/videos/plan.m3u8",
        }
        assert all(is_url(url) for url in found.videos.values())


async def test_the_phone_decodes_who_it_is(open_client: OpenClient) -> None:
    async with open_client() as (_, user, client):
        body = await get(client, "/api/auth/userinfo")
        assert decode(body, clients.PhoneUser).id == user.id
        assert decode(body, clients.DesktopUser).role == "user"


async def test_both_apps_decode_every_kind_of_error(open_client: OpenClient) -> None:
    chat: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    async with open_client(OPENAI_API_KEY="sk", RATE_LIMIT_SIGN_INS="1") as (_, _, client):
        answers = [
            await client.get("/api/auth/userinfo", headers={"Authorization": "Bearer nobody"}),
            await client.get("/nowhere"),
            await client.get("/api/nowhere"),
            await client.delete("/api/config/billing"),
            await client.put("/api/config/billing", json={}),
            await client.post("/api/models/estimate-cost", content=b"{"),
            await client.post("/api/models/estimate-cost", json={}),
            await client.get("/api/consent/status"),
            await client.post("/api/models/estimate-tokens", content=b" " * 2_000_000),
            await client.post("/api/llm/chat/completions", json={**chat, "model": "nobody/none"}),
            await client.post("/api/llm/chat/completions", json=chat),
            await client.post("/api/billing/checkout/setup-session"),
            *[await client.get("/auth/auth0/initiate-login", headers={"Accept": "application/json"}) for _ in "12"],
        ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [401, 404, 404, 405, 403, 400, 400, 400, 413, 404, 402, 503, 400, 429]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        desktop, phone = decode(answer.content, clients.DesktopError), decode(answer.content, clients.PhoneError)
        assert desktop.code == phone.code == answer.status_code
        assert desktop.error_type == phone.error_type
        assert desktop.message == phone.message != ""


async def test_a_token_of_another_region_brings_its_user_along(open_client: OpenClient) -> None:
    """With the id that it has there. Its address is for this region's own issuer to verify."""
    abroad, device = User(uuid4(), "bob@example.com", "user"), uuid4()
    headers = {**token_headers(abroad, device_id=device, subject="auth0|bob"), "X-Device-ID": str(device)}
    async with open_client() as (served, _, client):
        answer = await client.get("/api/auth/userinfo", headers={**headers, "X-Token-Binding": str(device)})
        assert answer.status_code == 200, answer.text
        user = decode(answer.content, clients.PhoneUser)
        assert (user.id, user.role) == (abroad.id, "user")
        rows = await served.services.database.as_operator("test").fetch("SELECT id FROM users ORDER BY created_at")
        assert [id_ for (id_,) in rows][1:] == [abroad.id]


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        (clients.SystemPrompt, {"createdAt": 1.5}),
        (clients.SystemPrompt, {"version": None}),
        (clients.RuntimeTask, {"maxTokens": 0}),
        (clients.RuntimeTask, {"temperature": 2.1}),
        (clients.PhoneSession, {"expires_at": "2026-01-01T00:00:00Z"}),
        (clients.Region, {"created_at": "2026-01-01T00:00:00+00:00"}),
    ],
)
def test_the_decoders_are_as_strict_as_the_apps(type_: type[Any], body: dict[str, Any]) -> None:
    """The check of these checks, that they can fail: one member that is wrong is found by its name."""
    good: dict[type[Any], dict[str, Any]] = {
        clients.SystemPrompt: {
            **dict.fromkeys(("id", "taskType", "systemPrompt", "version"), "x"),
            **{"description": None, "createdAt": 1, "updatedAt": 1},
        },
        clients.RuntimeTask: {
            **{"model": "x", "maxTokens": 1, "temperature": 0.7},
            **dict.fromkeys(("copyButtons", "allowedModels")),
        },
        clients.PhoneSession: {"user": {"id": str(uuid4()), "email": "x", "role": "user"}, "token": "x"},
        clients.Region: {
            **{"id": 1, "label": "x", "url": "x", "is_default": True},
            **dict.fromkeys(("created_at", "updated_at")),
        },
    }
    decode(msgspec.json.encode(good[type_]), type_)
    (name,) = body
    with pytest.raises(msgspec.ValidationError, match=name):
        decode(msgspec.json.encode({**good[type_], **body}), type_)
