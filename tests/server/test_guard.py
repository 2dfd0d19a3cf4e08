"""The guard over a real socket: who passes which route, what it draws on, and how much of a body is taken."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psycopg
import pytest
from quart import request

from server.guard import SMALL_BODY_BYTES, access, caller
from storage.accounts import User
from storage.embedded import EmbeddedServers
from tests.server.auth.callers_stage import watch_redis
from tests.server.served import Answer, Served, build_head, open_served, token_headers

CHAT = "/v1/chat/completions"
PUBLIC_LIMIT = 7


@pytest.fixture
def stores(database_url: str, redis_url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
async def served(stores: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served(stores, tmp_path) as served:
        add_routes(served)
        yield served


@pytest.fixture
async def limited(stores: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Served]:
    limits = {"RATE_LIMIT_MAX_REQUESTS": str(PUBLIC_LIMIT), "RATE_LIMIT_READS": "9", "RATE_LIMIT_WRITES": "3"}
    async with open_served(stores, tmp_path, **limits) as served:
        add_routes(served)
        yield served


@pytest.fixture
async def user(served: Served) -> User:
    return await served.make_user()


def add_routes(served: Served) -> None:
    """One that reads its body, one that does not, one for administrators, one for people, and one for everybody."""

    async def read() -> str:
        return f"{caller().user_id} {len(await request.get_data())}"

    async def ignore() -> str:
        return str(caller().user_id)

    @access(is_admin=True)
    async def administrate() -> str:
        return "administered"

    @access(is_for_people=True)
    async def talk() -> str:
        return "talked"

    @access(is_public=True, budget="public")
    async def welcome() -> str:
        return str(len(await request.get_data()))

    for view in (read, ignore, administrate, talk, welcome):
        served.app.add_url_rule(f"/test/{view.__name__}", view.__name__, view, methods=["GET", "POST"])


def chunked(served: Served, path: str, headers: Mapping[str, str], size_bytes: int) -> bytes:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = build_head("POST", path, {**headers, "Transfer-Encoding": "chunked"})
    return head + chunk * (size_bytes // 0x10000) + b"0\r\n\r\n"


def limits_of(answer: Answer) -> tuple[str, str]:
    return answer.headers["ratelimit-limit"], answer.headers["ratelimit-remaining"]


# Who passes


async def test_a_guarded_route_knows_its_caller(served: Served, user: User) -> None:
    answer = await served.ask("GET", "/test/ignore", token_headers(user))
    assert (answer.status, answer.body) == (200, str(user.id).encode())


async def test_a_public_route_asks_nobody(served: Served) -> None:
    assert (await served.ask("GET", "/test/welcome")).status == 200
    assert (await served.ask("GET", "/test/welcome", {"Authorization": "Bearer a.b.c"})).status == 200


async def test_a_route_for_administrators_refuses_others_and_notes_it(
    served: Served, user: User, owner_database_url: str
) -> None:
    admin = await served.make_user("bob@example.com", "admin")
    assert (await served.ask("GET", "/test/administrate", token_headers(admin))).status == 200
    assert (await served.ask("GET", "/test/administrate", token_headers(user))).status == 403
    with psycopg.connect(owner_database_url) as owner:
        rows = owner.execute("SELECT action, status, actor, subject_id, entity_id FROM audit_log").fetchall()
    assert rows == [("admin_refused", "refused", f"user:{user.id}", user.id, "administrate")]


async def test_a_route_for_people_refuses_their_api_keys(served: Served, user: User) -> None:
    made = await served.ask("POST", "/api/auth/api-keys", token_headers(user), b'{"label": "laptop"}')
    key = {"X-API-Key": made.json["key"]}
    assert (await served.ask("GET", "/test/talk", token_headers(user))).status == 200
    assert (await served.ask("GET", "/test/ignore", key)).status == 200
    refused = await served.ask("GET", "/test/talk", key)
    assert (refused.status, refused.json["error_type"]) == (403, "forbidden")


@pytest.mark.parametrize("path", ["/api/nothing", "/api/nothing/at/all", "/v1/nothing", "/v1/"])
async def test_what_does_not_exist_below_the_guarded_prefixes_is_told_to_callers_alone(
    served: Served, user: User, path: str
) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert (await served.ask(method, path)).status == 401
        assert (await served.ask(method, path, token_headers(user))).status == 404


async def test_what_does_not_exist_elsewhere_is_told_to_everybody(served: Served) -> None:
    assert (await served.ask("GET", "/nothing")).status == 404


async def test_a_wrong_method_says_which_is_right(served: Served, user: User) -> None:
    answer = await served.ask("PUT", CHAT, token_headers(user))
    assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"POST", "OPTIONS"})
    answer = await served.ask("POST", "/health")
    assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "OPTIONS"})
    assert (await served.ask("PUT", CHAT)).status == 401


async def test_options_passes_and_runs_no_code_of_a_route(served: Served) -> None:
    for path in ("/test/ignore", CHAT):
        answer = await served.ask("OPTIONS", path)
        assert (answer.status, answer.body) == (200, b"")
        assert "POST" in answer.headers["allow"]


async def test_head_is_guarded_as_reading_is(served: Served, user: User) -> None:
    assert (await served.ask("HEAD", "/health")).status == 200
    assert (await served.ask("HEAD", "/test/ignore")).status == 401
    answer = await served.ask("HEAD", "/test/ignore", token_headers(user))
    assert (answer.status, answer.body) == (200, b"")


async def test_a_caller_who_is_refused_is_told_in_the_paths_dialect(served: Served) -> None:
    shipped = (await served.ask("GET", "/api/nothing")).json
    assert (shipped["code"], shipped["error_type"], shipped["error"]) == (
        401,
        "authentication_error",
        "Authentication error: Missing credentials",
    )
    assert (await served.ask("GET", "/v1/models")).json["error"]["type"] == "authentication_error"


# What it draws on


async def test_reading_and_writing_have_budgets_of_their_own(limited: Served) -> None:
    headers = token_headers(await limited.make_user())
    assert limits_of(await limited.ask("GET", "/test/ignore", headers)) == ("9", "8")
    assert limits_of(await limited.ask("HEAD", "/test/ignore", headers)) == ("9", "7")
    assert limits_of(await limited.ask("POST", "/test/ignore", headers)) == ("3", "2")


async def test_who_has_used_up_a_budget_is_told_when_to_come_again(limited: Served) -> None:
    headers = token_headers(await limited.make_user())
    answers = [await limited.ask("POST", "/test/ignore", headers) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert limits_of(answers[-1]) == ("3", "0")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json["error_type"] == "rate_limit_error"
    assert (await limited.ask("GET", "/test/ignore", headers)).status == 200


async def test_whoever_brings_nothing_that_holds_uses_up_its_address(limited: Served) -> None:
    bad: list[Mapping[str, str]] = [{}, {"Authorization": "Bearer a.b.c"}, {"X-API-Key": "x"}, {"X-API-Key": "f" * 64}]
    statuses = [(await limited.ask("POST", path, headers)).status for headers in bad for path in (CHAT, "/api/nothing")]
    assert statuses == [401] * PUBLIC_LIMIT + [429]
    assert (await limited.ask("GET", "/test/welcome")).status == 429
    assert (await limited.ask("GET", "/nothing")).status == 429
    assert (await limited.ask("GET", "/health")).status == 200
    assert (await limited.ask("GET", "/test/ignore", token_headers(await limited.make_user()))).status == 200


async def test_options_and_what_is_not_counted_draw_on_nothing(limited: Served) -> None:
    for _ in range(PUBLIC_LIMIT + 1):
        assert (await limited.ask("OPTIONS", CHAT)).status == 200
        assert (await limited.ask("GET", "/health")).status == 200
    assert limits_of(await limited.ask("GET", "/test/welcome")) == (str(PUBLIC_LIMIT), str(PUBLIC_LIMIT - 1))


async def test_a_request_of_a_caller_who_is_remembered_costs_one_round_trip_to_redis(
    served: Served, user: User, redis_url: str, servers: EmbeddedServers, database_name: str
) -> None:
    """And nothing of PostgreSQL, which lets nobody in meanwhile."""
    headers = token_headers(user)
    await served.ask("GET", "/v1/models", headers)
    with psycopg.connect(servers.owner_database_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS false".encode())
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database_name])
    with watch_redis(redis_url) as commands:
        answers = [await served.ask("GET", "/v1/models", headers) for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        assert commands() == ["EVALSHA"] * 5


# Bodies


@pytest.mark.parametrize("path", ["/test/read", "/test/ignore", "/test/welcome", "/api/auth/api-keys"])
async def test_a_body_above_a_mebibyte_is_a_413_also_where_nobody_reads_it(
    served: Served, user: User, path: str
) -> None:
    head = build_head("POST", path, {**token_headers(user), "Content-Length": str(SMALL_BODY_BYTES + 1)})
    answer = await served.send(head)
    assert (answer.status, answer.json["error_type"]) == (413, "payload_too_large")


@pytest.mark.parametrize("path", ["/test/read", "/test/welcome"])
async def test_a_body_that_says_nothing_of_its_length_is_bounded_too(served: Served, user: User, path: str) -> None:
    answer = await served.send(chunked(served, path, token_headers(user), SMALL_BODY_BYTES + 0x10000))
    assert (answer.status, answer.json["error_type"]) == (413, "payload_too_large")


async def test_a_body_of_a_mebibyte_is_taken(served: Served, user: User) -> None:
    answer = await served.ask("POST", "/test/read", token_headers(user), b"x" * SMALL_BODY_BYTES)
    assert (answer.status, answer.body.split()[1]) == (200, str(SMALL_BODY_BYTES).encode())
    answer = await served.send(chunked(served, "/test/read", token_headers(user), SMALL_BODY_BYTES))
    assert (answer.status, answer.body.split()[1]) == (200, str(SMALL_BODY_BYTES).encode())


async def test_a_server_that_takes_less_than_a_mebibyte_takes_no_more(
    stores: Mapping[str, str], tmp_path: Path
) -> None:
    async with open_served(stores, tmp_path, MAX_BODY_BYTES="10") as served:
        add_routes(served)
        headers = token_headers(await served.make_user())
        assert (await served.ask("POST", "/test/ignore", headers, b"x" * 10)).status == 200
        assert (await served.ask("POST", "/test/ignore", headers, b"x" * 11)).status == 413


async def test_a_prompt_may_be_larger(served: Served, user: User) -> None:
    message = {"role": "user", "content": "x" * 2 * SMALL_BODY_BYTES}
    body = json.dumps({"model": "openai/gpt-4.1-mini", "messages": [message]}).encode()
    assert (await served.ask("POST", CHAT, token_headers(user), body)).status not in {200, 401, 413}


async def test_who_is_refused_is_refused_whatever_the_size_of_its_body(served: Served) -> None:
    head = build_head("POST", "/test/read", {"Content-Length": str(SMALL_BODY_BYTES + 1)})
    assert (await served.send(head)).status == 401
