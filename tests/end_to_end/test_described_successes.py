"""Every operation of /openapi.json succeeds at least once, in each of its forms, and its answer is as it is described.
What is asked at random finds most of them, and by far not all.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import schemathesis
import trio

from scripts.device_link.link import open_link
from tests.end_to_end.caller import SHIPPED, build_chat, open_caller
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.sign_in_attempt import DEVELOPMENT
from tests.end_to_end.test_cancelling import read_request_id
from tests.end_to_end.test_local_issuer import ANN, Place
from tests.end_to_end.test_openapi import load_schema, make_buyer
from tests.end_to_end.watching import PATH, open_stream
from tests.fake_google_files import open_google_files
from tests.media_files import make_sound, make_video
from tests.stripe_stand_in import open_stripe_stand_in
from tests.stripe_stand_in.deliveries import sign

DEPLOYMENT_TOKEN = "only-for-tests-deployment"
SETTINGS = {
    **DEVELOPMENT,
    "VIBE_DEPLOYMENT_TOKEN": DEPLOYMENT_TOKEN,
    "FEATUREBASE_SSO_SECRET": "only-for-tests-feedback-0123456789abcdef",
}
EVENT = b'{"id": "evt_1", "type": "charge.pending", "livemode": false, "data": {"object": {}}}'
ANYBODY = "00000000-0000-4000-8000-000000000000"
PARAMETERS = {
    "region": "eu",
    "key": "ai_settings",
    "code": "openai",
    "capability": "chat",
    "model_type": "text",
    "model_id": "sandbox/echo",
    "task_type": "task_refinement",
    "pid": ANYBODY,
    "start_date": "2000-01-01T00:00:00Z",
    "end_date": "2100-01-01T00:00:00Z",
}
"""What a GET needs, wherever it needs it."""
DOCUMENT = {"region": "EU", "docType": "terms"}
CALL = {"modelId": "openai/gpt-4.1-mini", "inputTokens": 1000, "outputTokens": 10}

Form = tuple[str, str, str, str]
"""Method, path, status, and media type."""


@dataclass(slots=True)
class Asker:
    """`done` are the forms of answers that have come, each checked against what is said of it."""

    schema: schemathesis.BaseSchema
    who: Customer
    done: set[Form] = field(default_factory=set)

    async def ask(
        self, method: str, path: str, status: int = 200, headers: Mapping[str, str] | None = None, **members: Any
    ) -> Any:
        """`members` are those of a case: `path_parameters`, `query`, `body`, and `form` for an upload. As nobody with
        empty headers. Raises what schemathesis finds.
        """
        sent = dict(self.who.headers if headers is None else headers)
        if "body" in members:
            members["media_type"] = "application/json"
        if (form := members.pop("form", None)) is not None:
            members |= {"body": form, "media_type": "multipart/form-data"}
        case = self.schema[path][method].Case(**members)
        answer = await trio.to_thread.run_sync(partial(case.call_and_validate, headers=sent))
        assert answer.status_code == status, (method, path, answer.status_code, answer.content)
        media_type = answer.headers.get("content-type", [""])[0].partition(";")[0]
        said = self.schema.raw_schema["paths"][path][method.lower()]["responses"][str(status)]
        self.done.add((method, path, str(status), media_type if "content" in said else ""))
        return json.loads(answer.content) if media_type == "application/json" else None


@asynccontextmanager
async def open_asker(stores: Stores) -> AsyncIterator[tuple[Cloche, Asker]]:
    """An administrator with credits, a card and an address, at a server that has everything set up."""
    async with AsyncExitStack() as stack:
        stripe = await stack.enter_async_context(open_stripe_stand_in())
        google = await stack.enter_async_context(open_google_files())
        reached = {**stripe.settings, "GOOGLE_BASE_URL": google.base_url, "GOOGLE_API_KEY": google.keys[0]}
        cloche = await stack.enter_async_context(open_cloche(stores, settings={**reached, **SETTINGS}))
        who = await make_buyer(cloche, stripe, "admin")
        yield cloche, Asker(await load_schema(cloche), who)


def list_forms(document: Mapping[str, Any]) -> Iterator[Form]:
    """Of all answers that are no errors."""
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            for status, answer in said["responses"].items():
                if status < "4":
                    for media_type in answer.get("content", {"": None}):
                        yield method.upper(), path, status, media_type


async def test_every_form_of_every_answer_comes_as_it_is_described(stores: Stores) -> None:
    async with open_asker(stores) as (cloche, asker):
        calls, money = (call, cancel, hear_and_see), (spend, buy, administer)
        for ask_some in (*calls, *money, agree, estimate, sign_in, link, notify, watch):
            await ask_some(cloche, asker)
        await look(asker)
        await leave(cloche, asker)
        forms = set(list_forms(asker.schema.raw_schema))
        assert forms - asker.done == set()
        assert len(forms) > 80
        assert cloche.find_logged('"level":"ERROR"') == []


async def call(_: Cloche, asker: Asker) -> None:
    for path in ("/api/llm/chat/completions", "/v1/chat/completions"):
        for stream in (False, True):
            body = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
            await asker.ask("POST", path, body={**body, "max_tokens": 3})


async def hear_and_see(_: Cloche, asker: Asker) -> None:
    sound = {"file": make_sound("mp3"), "model": "sandbox/transcribe"}
    await asker.ask("POST", "/api/audio/transcriptions", form={**sound, "language": "en-US"})
    await asker.ask("POST", "/api/audio/transcriptions/stream", form=sound)
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        for format_ in ("json", "verbose_json", "srt"):
            await asker.ask("POST", path, form={**sound, "response_format": format_})
    await asker.ask("POST", "/v1/audio/transcriptions", form={**sound, "response_format": "diarized_json"})
    await asker.ask("POST", "/v1/audio/transcriptions", form={**sound, "stream": "true"})
    video = {"video": make_video("mp4"), "prompt": "What is to be seen?", "durationMs": 1000}
    await asker.ask("POST", "/api/llm/video/analyze", form=video)


async def cancel(cloche: Cloche, asker: Asker) -> None:
    async with open_caller(cloche) as caller:
        await caller.send(SHIPPED, asker.who, build_chat("word " * 1000, model="sandbox/echo"))
        await caller.read_until(b"chat.completion.chunk")
        named = {"request_id": read_request_id(caller)}
        running = await asker.ask("GET", "/api/llm/status/{request_id}", path_parameters=named)
        told = await asker.ask("POST", "/api/llm/cancel", body={"requestId": named["request_id"]})
        over = await asker.ask("GET", "/api/llm/status/{request_id}", path_parameters=named)
        assert (running["status"], over["status"], over["cost"]) == ("active", "cancelled", told["cost"])


async def spend(_: Cloche, asker: Asker) -> None:
    limits = "/api/billing/spending-limits"
    limit = await asker.ask("PUT", limits, body={"period": "month", "limitUsd": "500.5"})
    assert (await asker.ask("GET", limits))["limits"][0]["limitUsd"] == 500.5
    await asker.ask("DELETE", f"{limits}/{{limit_id}}", 204, path_parameters={"limit_id": limit["id"]})
    await asker.ask("POST", "/api/billing/auto-top-off-settings", body={"enabled": False})
    await asker.ask("POST", "/api/billing/notices/read", body={"ids": "all"})


async def buy(_: Cloche, asker: Asker) -> None:
    checkout = "/api/billing/checkout"
    page = await asker.ask("POST", f"{checkout}/custom-credit-session", body={"amount": 20})
    status, found = f"{checkout}/session-status/{{session_id}}", {"session_id": page["sessionId"]}
    assert (await asker.ask("GET", status, path_parameters=found))["status"] == "open"
    await asker.ask("POST", f"{checkout}/setup-session")
    await asker.ask("POST", "/api/billing/create-portal-session")
    await asker.ask("POST", "/webhooks/stripe", headers={"Stripe-Signature": sign(EVENT)}, body=EVENT)


async def administer(_: Cloche, asker: Asker) -> None:
    credits_ = "/api/billing/credits"
    setting, prompt = "/api/config/admin/{key}", "/api/system-prompts/admin/{task_type}"
    gift = {"user_id": str(asker.who.user_id), "amount": "1.5", "description": "a gift"}
    await asker.ask("POST", f"{credits_}/admin/adjust", body=gift)
    listed = (await asker.ask("GET", f"{credits_}/details"))["transactions"]
    call_id = next(each["relatedApiUsageId"] for each in listed if each["relatedApiUsageId"])
    await asker.ask("POST", f"{credits_}/admin/refund", body={"request_id": call_id, "description": "it was bad"})
    await asker.ask("PUT", "/api/config/billing", body={"freeCreditsAmount": 5})
    key, task = {"key": "ai_settings"}, {"task_type": "task_refinement"}
    present = await asker.ask("GET", setting, path_parameters=key)
    await asker.ask("PUT", setting, path_parameters=key, body={"value": present["value"]})
    await asker.ask("POST", f"{setting}/rollback", path_parameters=key, body={"version": present["version"]})
    await asker.ask("PUT", prompt, path_parameters=task, body={"systemPrompt": "Be brief.", "version": "10"})
    back = await asker.ask("POST", f"{prompt}/rollback", path_parameters=task, body={"revision": 1})
    assert back["revision"] == 3


async def agree(_: Cloche, asker: Asker) -> None:
    for act in ("accept", "withdraw"):
        await asker.ask("POST", f"/api/consent/{act}", 204, body=DOCUMENT)
    await asker.ask("GET", "/api/consent/admin/report", query={"format": "csv"})


async def estimate(_: Cloche, asker: Asker) -> None:
    await asker.ask("POST", "/api/models/estimate-cost", body=CALL)
    await asker.ask("POST", "/api/models/estimate-batch-cost", body={"requests": [CALL, CALL]})
    await asker.ask("POST", "/api/models/estimate-tokens", body={"model": "openai/gpt-4.1-mini", "text": "Hello"})


async def sign_in(cloche: Cloche, asker: Asker) -> None:
    """In a browser, at the local issuer, and then in the app."""
    async with httpx2.AsyncClient(timeout=20, trust_env=False) as client:
        place = Place(cloche, client)
        attempt = place.begin()
        answer = await place.fill_in(await place.open_page(attempt), **ANN)
        await client.get(answer.headers["location"])
        polled = await asker.ask("GET", "/auth0/poll-status", headers={}, query={"pid": attempt.pid})
        tokens = (await attempt.exchange(client, polled["authorizationCode"])).json()
    body = {"auth0_id_token": tokens["access_token"], "device_id": attempt.device_id}
    session = await asker.ask("POST", "/auth0/finalize-login", headers={}, body=body)
    await asker.ask("POST", "/api/auth0/refresh-app-token", headers=attempt.sign(session))
    await asker.ask("GET", "/auth0/poll-status", 204, headers={}, query={"pid": ANYBODY})


async def link(_: Cloche, asker: Asker) -> None:
    """A desktop, which the routes of a path know by the caller's own id; then a phone, by the same one."""
    own, headers = "/api/devices/{device_id}", {**asker.who.headers, "X-Client-Type": "desktop"}
    device = {"device_id": headers["X-Device-ID"]}
    said = {"deviceName": "Studio", "platform": "macos", "appVersion": "1.2.3"}
    await asker.ask("POST", "/api/devices/register", 201, headers, body={**said, "localIps": ["10.0.0.2"]})
    await asker.ask("POST", "/api/devices/heartbeat", body={"cpuUsage": 12.5, "diskSpaceGb": 100})
    await asker.ask("POST", f"{own}/heartbeat", path_parameters=device, body={"status": "away", "memoryUsage": None})
    (listed,) = await asker.ask("GET", "/api/devices")
    assert (listed["cpuUsage"], listed["diskSpaceGb"], listed["memoryUsage"]) == (12.5, 100, None)
    await asker.ask("GET", f"{own}/connection-descriptor", path_parameters=device)
    await asker.ask("POST", "/api/devices/mobile/register", 201, body={**said, "platform": "ios"})
    for method in ("PUT", "POST"):
        await asker.ask(method, "/api/devices/push-token", body={"platform": "ios", "token": "ab" * 32})
        await asker.ask(method, f"{own}/push-token", path_parameters=device, body={"pushToken": "ab" * 32})
    await asker.ask("POST", "/api/devices/push/register", body={"platform": "ios", "deviceToken": "ab" * 32})
    await asker.ask("DELETE", own, 204, path_parameters=device)


async def notify(_: Cloche, asker: Asker) -> None:
    notifications = "/api/notifications"
    told = {"jobId": "job-1", "title": "Done", "body": "It is done", "customData": {"type": "job_completed"}}
    for kind in ("completed", "failed", "progress"):
        await asker.ask("POST", f"{notifications}/job-{kind}", body=told)
    await asker.ask("POST", f"{notifications}/test")
    page = await asker.ask("GET", notifications, query={"limit": 2})
    first, second = ({"notification_id": each["id"]} for each in page["notifications"])
    await asker.ask("GET", notifications, query={"before": page["nextCursor"], "unreadOnly": True})
    assert await asker.ask("POST", f"{notifications}/{{notification_id}}/read", path_parameters=first) == {"updated": 1}
    assert await asker.ask("POST", f"{notifications}/read", body={"all": True}) == {"updated": 2}
    await asker.ask("DELETE", f"{notifications}/{{notification_id}}", 204, path_parameters=second)
    assert await asker.ask("DELETE", notifications) == {"deleted": 2}


async def watch(cloche: Cloche, asker: Asker) -> None:
    """The stream has no end, so its head is looked at; and the other is a WebSocket, or nothing."""
    async with open_stream(cloche, asker.who) as watch, open_link(cloche.url, asker.who.headers):
        assert b"\r\ncontent-type: text/event-stream\r\n" in watch.head.lower()
    asker.done.update([("GET", PATH, "200", "text/event-stream"), ("GET", "/ws/device-link", "101", "")])


async def look(asker: Asker) -> None:
    """Whatever can be asked with a GET, and once more where it may be unchanged."""
    bearer = {"Authorization": f"Bearer {DEPLOYMENT_TOKEN}"}
    await asker.ask("GET", "/health/deployment", headers=bearer)
    asked = {path for method, path, *_ in asker.done if method == "GET"}
    for path, methods in asker.schema.raw_schema["paths"].items():
        if "get" in methods and (path not in asked or path == "/api/consent/admin/report"):
            needed = [each for each in methods["get"].get("parameters", ()) if each["required"]]
            members: dict[str, Any] = {
                "path_parameters": {each["name"]: PARAMETERS[each["name"]] for each in needed if each["in"] == "path"},
                "query": {each["name"]: PARAMETERS[each["name"]] for each in needed if each["in"] == "query"},
            }
            await asker.ask("GET", path, **members)
            if "304" in methods["get"]["responses"]:
                await asker.ask("GET", path, 304, headers={**asker.who.headers, "If-None-Match": "*"})


async def leave(cloche: Cloche, asker: Asker) -> None:
    """A key has nothing to sign out of, and leaves as it came."""
    keys = "/api/auth/api-keys"
    made = await asker.ask("POST", keys, 201, body={"label": "laptop"})
    await asker.ask("POST", "/api/auth/logout", headers={"X-API-Key": made["key"]})
    await asker.ask("DELETE", f"{keys}/{{key_id}}", 204, path_parameters={"key_id": made["id"]})
    other = await cloche.make_customer()
    await asker.ask("DELETE", "/api/auth/account", headers=other.headers)
    await asker.ask("POST", "/api/auth/logout")
