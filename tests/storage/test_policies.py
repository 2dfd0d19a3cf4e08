"""Rows belong to users: shown in SQL, as whoever might try. Every table with a `user_id` is found by itself."""

from collections.abc import Iterator
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
import trio
from psycopg import errors, sql

from storage.credits import Credits
from storage.embedded import EmbeddedServers
from storage.postgres import open_database
from tests.conftest import with_database
from tests.storage.calls import build_hold, build_settlement, make_user

TABLES_OF_USERS = """
    SELECT relname, relrowsecurity AND relforcerowsecurity,
           EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid
                   AND polroles @> ARRAY[(SELECT oid FROM pg_roles WHERE rolname = 'cloche_request')]
                   AND pg_get_expr(polqual, polrelid) = '(user_id = app_user_id())')
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND attname = 'user_id' AND NOT attisdropped
    ORDER BY relname
"""
SIGN_IN_ROWS: LiteralString = """
    INSERT INTO identities (issuer, subject, user_id, email_verified) VALUES ('i', %(user_id)s, %(user_id)s, false);
    INSERT INTO user_aliases (alias_id, user_id) VALUES (gen_random_uuid(), %(user_id)s);
    INSERT INTO logins (id, user_id, issuer, subject, refresh_token, auth_time, expires_at)
        VALUES (gen_random_uuid(), %(user_id)s, 'i', 's', 'sealed', now(), now() + interval '1 day');
    INSERT INTO revoked_tokens (revocation_id, user_id, expires_at)
        VALUES (gen_random_uuid(), %(user_id)s, now() + interval '1 day');
    INSERT INTO api_keys (user_id, key_hash, hint, label, scopes)
        VALUES (%(user_id)s, encode(sha256(%(user_id)s::text::bytea), 'hex'), 'h', 'l', '{read}');
"""
BILLING_ROWS: LiteralString = """
    INSERT INTO spending_limits (user_id, period, limit_usd) VALUES (%(user_id)s, 'day', 100);
    INSERT INTO billing_notices (user_id, kind, notice_key) VALUES (%(user_id)s, 'k', 'k');
    INSERT INTO billing_customers (user_id, stripe_customer_id) VALUES (%(user_id)s, 'cus_' || %(user_id)s);
    INSERT INTO purchases (id, user_id, kind, gross_cents, fee_cents, net_cents)
        VALUES (gen_random_uuid(), %(user_id)s, 'checkout', 1000, 200, 800);
    INSERT INTO setup_sessions (stripe_session_id, user_id) VALUES ('cs_' || %(user_id)s, %(user_id)s);
"""
CONSENT_ROWS: LiteralString = """
    INSERT INTO user_consents (user_id, doc_type, region, accepted_version, accepted_at, source)
        VALUES (%(user_id)s, 'terms', 'eu', '1', now(), 'desktop');
    INSERT INTO user_consent_events (user_id, doc_type, region, version, action, source)
        VALUES (%(user_id)s, 'terms', 'eu', '1', 'accepted', 'desktop');
"""
DEVICE_ROWS: LiteralString = """
    INSERT INTO devices (user_id, device_id) VALUES (%(user_id)s, %(user_id)s);
    INSERT INTO device_presence_history (user_id, device_id, status) VALUES (%(user_id)s, %(user_id)s, 'online');
    INSERT INTO push_tokens (id, user_id, device_id, platform, token)
        VALUES (%(user_id)s, %(user_id)s, %(user_id)s, 'ios', %(user_id)s);
    INSERT INTO notifications (id, user_id, kind, title, body, is_silent, deliver_until)
        VALUES (%(user_id)s, %(user_id)s, 'test', 't', 'b', false, now());
    INSERT INTO notification_deliveries (notification_id, token_id, user_id, platform)
        VALUES (%(user_id)s, %(user_id)s, %(user_id)s, 'ios');
"""
OF_OPERATORS = ("notification_deliveries", "push_tokens")
"""Of these a request sees not even its own rows: where a phone can be reached is told to nobody."""
OUR_ROLES = ("cloche_server", "cloche_request", "cloche_operator")


@pytest.fixture
def owner(servers: EmbeddedServers, accounts_name: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(with_database(servers.owner_database_url, accounts_name), autocommit=True) as connection:
        yield connection


@pytest.fixture
def server(servers: EmbeddedServers, accounts_name: str) -> Iterator[psycopg.Connection]:
    """As the server logs in, each test in a transaction that is rolled back."""
    with psycopg.connect(with_database(servers.database_url, accounts_name)) as connection:
        yield connection
        connection.rollback()


@pytest.fixture(scope="module")
def users(servers: EmbeddedServers, accounts_name: str) -> tuple[UUID, UUID]:
    """Two users who have a row in every table."""
    url = with_database(servers.database_url, accounts_name)
    return trio.run(make_rows, url), trio.run(make_rows, url)


async def make_rows(database_url: str) -> UUID:
    async with open_database(database_url, size=1) as database:
        user_id = await make_user(database, "10")
        rows = SIGN_IN_ROWS + BILLING_ROWS + CONSENT_ROWS + DEVICE_ROWS
        await database.as_operator("test").fetch(rows, {"user_id": user_id})
        settled, running = build_hold(user_id), build_hold(user_id)
        await Credits(database).hold(settled)
        await Credits(database).settle(build_settlement(settled))
        await Credits(database).hold(running)
    return user_id


def become(connection: psycopg.Connection, role: str, user_id: UUID | str = "") -> None:
    settings = "SELECT set_config('role', %s, true), set_config('app.user_id', %s, true)"
    connection.execute(settings, [role, str(user_id)])


def find_tables(owner: psycopg.Connection) -> list[str]:
    return [name for name, *_ in owner.execute(TABLES_OF_USERS)]


def find_readable_tables(owner: psycopg.Connection) -> list[str]:
    return [name for name in find_tables(owner) if name not in OF_OPERATORS]


def fetch(connection: psycopg.Connection, statement: str, table: str, *parameters: object) -> list[tuple[object, ...]]:
    query = sql.SQL(statement).format(sql.Identifier(table))
    return connection.execute(query, parameters).fetchall()


def test_every_table_with_a_user_is_guarded(owner: psycopg.Connection) -> None:
    found = owner.execute(TABLES_OF_USERS).fetchall()
    tables = {"credit_balances", "credit_ledger", "devices", "holds", "usage", "identities", "logins", "api_keys"}
    tables |= {"spending_limits", "billing_notices", "billing_customers", "purchases", "setup_sessions"}
    tables |= {"user_consents", "user_consent_events", "device_presence_history", "push_tokens", "notifications"}
    tables |= {"notification_deliveries"}
    assert tables <= {name for name, *_ in found}
    assert [name for name, is_forced, has_policy in found if not (is_forced and has_policy)] == []


def test_a_table_that_somebody_forgot_to_guard_would_be_found(owner: psycopg.Connection) -> None:
    with owner.transaction(force_rollback=True):
        owner.execute("CREATE TABLE forgotten (user_id uuid)")
        owner.execute("CREATE TABLE unforced (user_id uuid); ALTER TABLE unforced ENABLE ROW LEVEL SECURITY")
        owner.execute("CREATE POLICY own ON unforced TO cloche_request USING (user_id = app_user_id())")
        found = {name: guards for name, *guards in owner.execute(TABLES_OF_USERS)}
    assert found["forgotten"] == [False, False]
    assert found["unforced"] == [False, True]


def test_a_user_sees_own_rows_and_no_others(
    owner: psycopg.Connection, server: psycopg.Connection, users: tuple[UUID, UUID]
) -> None:
    for table in find_tables(owner):
        assert len(fetch(owner, "SELECT DISTINCT user_id FROM {}", table)) == 2, f"{table}: a row for each, please"
    for table in find_readable_tables(owner):
        for user_id in users:
            become(server, "cloche_request", user_id)
            assert fetch(server, "SELECT DISTINCT user_id FROM {}", table) == [(user_id,)]
    assert server.execute("SELECT id FROM users").fetchall() == [(users[1],)]


@pytest.mark.parametrize("nobody", ["", str(UUID(int=1))])
def test_without_a_user_nothing_is_visible(
    owner: psycopg.Connection, server: psycopg.Connection, users: tuple[UUID, UUID], nobody: str
) -> None:
    become(server, "cloche_request", nobody)
    for table in [*find_readable_tables(owner), "users"]:
        assert fetch(server, "SELECT FROM {}", table) == []


def test_without_a_role_the_server_may_do_nothing(
    owner: psycopg.Connection, server: psycopg.Connection, users: tuple[UUID, UUID]
) -> None:
    for table in [*find_tables(owner), "users"]:
        server.execute("SELECT set_config('app.user_id', %s, true)", [str(users[0])])
        with pytest.raises(errors.InsufficientPrivilege):
            fetch(server, "SELECT FROM {}", table)
        server.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credit_balances SET balance_usd = 1000",
        "INSERT INTO credit_balances (user_id, balance_usd) VALUES (app_user_id(), 1000)",
        "DELETE FROM credit_balances",
        "INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key)"
        " VALUES (app_user_id(), 'grant', 1000, 'x')",
        "UPDATE credit_balances SET free_usd = 1000",
        "UPDATE credit_balances SET free_expires_at = NULL",
        "UPDATE credit_balances SET free_lot = 0",
        "UPDATE credit_ledger SET amount_usd = 1000",
        "DELETE FROM credit_ledger",
        "TRUNCATE credit_ledger",
        "UPDATE holds SET charged_usd = 1000",
        "UPDATE holds SET state = 'settled'",
        "UPDATE holds SET refunded_usd = 1",
        "UPDATE holds SET free_usd = 0",
        "DELETE FROM holds",
        "INSERT INTO usage SELECT * FROM usage",
        "UPDATE usage SET cost_usd = 0",
        "DELETE FROM usage",
        "UPDATE users SET role = 'admin'",
        "INSERT INTO users (email, role) VALUES ('x@y.z', 'admin')",
        "DELETE FROM users",
        "SELECT key_hash FROM api_keys",
        "SELECT * FROM api_keys",
        "UPDATE api_keys SET scopes = '{admin}'",
        "INSERT INTO api_keys (user_id, key_hash, hint, label, scopes) SELECT id, '', '', '', '{admin}' FROM users",
        "DELETE FROM api_keys",
        "SELECT refresh_token FROM logins",
        "UPDATE logins SET expires_at = 'infinity'",
        "DELETE FROM logins",
        "UPDATE identities SET user_id = user_id",
        "INSERT INTO identities (issuer, subject, user_id, email_verified) SELECT 'i', 's', id, true FROM users",
        "INSERT INTO user_aliases SELECT gen_random_uuid(), id FROM users",
        "DELETE FROM user_aliases",
        "DELETE FROM revoked_tokens",
        "UPDATE revoked_tokens SET expires_at = now()",
        "SELECT reference FROM deleted_accounts",
        "DELETE FROM deleted_accounts",
        "INSERT INTO deleted_accounts (reference) VALUES ('user:x')",
        "SELECT action FROM audit_log",
        "INSERT INTO spending_limits (user_id, period, limit_usd) VALUES (app_user_id(), 'month', 1)",
        "UPDATE spending_limits SET limit_usd = 1000",
        "UPDATE spending_limits SET spent_usd = 0",
        "UPDATE spending_limits SET period_start = now()",
        "DELETE FROM spending_limits",
        "INSERT INTO billing_notices (user_id, kind, notice_key) VALUES (app_user_id(), 'k', 'x')",
        "UPDATE billing_notices SET details = '{}'",
        "DELETE FROM billing_notices",
        "INSERT INTO billing_customers (user_id) VALUES (app_user_id())",
        "UPDATE billing_customers SET stripe_customer_id = 'cus_x'",
        "UPDATE billing_customers SET top_off_enabled = true",
        "INSERT INTO purchases (id, user_id, kind, gross_cents, fee_cents, net_cents)"
        " VALUES (gen_random_uuid(), app_user_id(), 'checkout', 1, 0, 1)",
        "UPDATE purchases SET state = 'paid'",
        "UPDATE purchases SET net_cents = gross_cents",
        "DELETE FROM purchases",
        "INSERT INTO setup_sessions (stripe_session_id, user_id) VALUES ('cs_x', app_user_id())",
        "DELETE FROM setup_sessions",
        "SELECT id FROM stripe_events",
        "INSERT INTO stripe_events (id, type) VALUES ('evt_x', 'invoice.paid')",
        "UPDATE stripe_events SET state = 'pending'",
        "SELECT figures FROM reconciliations",
        "INSERT INTO user_consents (user_id, doc_type, region, source) VALUES (app_user_id(), 'privacy', 'eu', 'api')",
        "UPDATE user_consents SET accepted_version = '2'",
        "DELETE FROM user_consents",
        "INSERT INTO user_consent_events (user_id, doc_type, region, version, action, source)"
        " VALUES (app_user_id(), 'terms', 'eu', '1', 'withdrawn', 'api')",
        "UPDATE user_consent_events SET action = 'withdrawn'",
        "DELETE FROM user_consent_events",
        "UPDATE legal_documents SET version = '2'",
        "INSERT INTO legal_documents (doc_type, region, version, effective_at, url)"
        " VALUES ('terms', 'eu', '2', now(), '/')",
        "SELECT value FROM configuration_versions",
        "UPDATE system_prompts SET system_prompt = 'x'",
        "INSERT INTO system_prompts (task_type, system_prompt, version, updated_by) VALUES ('x', 'x', '1', 'x')",
        "SELECT system_prompt FROM system_prompt_versions",
        "UPDATE regions SET url = 'https://example.com'",
        "UPDATE providers SET api_base_url = 'https://example.com'",
        "UPDATE configuration SET value = '1000'",
        "INSERT INTO configuration (key, value) VALUES ('x', '1')",
        "UPDATE models SET pricing_info = '{}'",
        "SELECT token FROM push_tokens",
        "SELECT id FROM push_tokens",
        "INSERT INTO push_tokens (user_id, device_id, platform, token)"
        " VALUES (app_user_id(), app_user_id(), 'ios', 'x')",
        "UPDATE push_tokens SET token = 'x'",
        "DELETE FROM push_tokens",
        "SELECT state FROM notification_deliveries",
        "UPDATE notification_deliveries SET state = 'due'",
        "DELETE FROM notification_deliveries",
        "INSERT INTO notifications (user_id, kind, title, body, is_silent, deliver_until)"
        " VALUES (app_user_id(), 'test', 't', 'b', false, now())",
        "UPDATE notifications SET title = 'x'",
        "UPDATE device_presence_history SET status = 'online'",
        "DELETE FROM device_presence_history",
        "CREATE TABLE mine (id int)",
        "SET LOCAL row_security = off; SELECT FROM holds",
    ],
)
def test_a_request_may_not(server: psycopg.Connection, users: tuple[UUID, UUID], statement: str) -> None:
    become(server, "cloche_request", users[0])
    with pytest.raises(errors.InsufficientPrivilege):
        server.execute(statement.encode())


def test_a_request_changes_nothing_of_others(server: psycopg.Connection, users: tuple[UUID, UUID]) -> None:
    alice, bob = users
    become(server, "cloche_request", alice)
    assert server.execute("UPDATE credit_balances SET held_usd = 0 WHERE user_id = %s", [bob]).rowcount == 0
    assert server.execute("DELETE FROM notifications WHERE user_id = %s", [bob]).rowcount == 0
    assert server.execute("DELETE FROM devices WHERE user_id = %s", [bob]).rowcount == 0
    assert server.execute("UPDATE devices SET status = 'online' WHERE user_id = %s", [bob]).rowcount == 0
    for changed in ("spending_limits SET held_usd = 0", "billing_notices SET read_at = now()"):
        assert server.execute(f"UPDATE {changed} WHERE user_id = %s".encode(), [bob]).rowcount == 0
    assert server.execute("UPDATE notifications SET read_at = now() WHERE user_id = %s", [bob]).rowcount == 0
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        server.execute("INSERT INTO devices (user_id, device_id) VALUES (%s, %s)", [bob, uuid4()])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credit_ledger SET amount_usd = 0",
        "DELETE FROM credit_ledger",
        "TRUNCATE credit_ledger",
        "UPDATE credit_balances SET balance_usd = 0",
        "INSERT INTO credit_balances (user_id, balance_usd) SELECT id, 1000 FROM users",
        "UPDATE credit_balances SET free_usd = 0",
        "UPDATE credit_balances SET free_lot = 0",
        "DELETE FROM holds",
        "UPDATE user_consent_events SET action = 'withdrawn'",
        "DELETE FROM user_consent_events",
        "DELETE FROM user_consents",
        "UPDATE legal_documents SET version = '2'",
        "INSERT INTO legal_documents (doc_type, region, version, effective_at, url)"
        " VALUES ('terms', 'eu', '2', now(), '/')",
        "DELETE FROM configuration_versions",
        "DELETE FROM system_prompts",
        "UPDATE system_prompt_versions SET system_prompt = 'x'",
        "DELETE FROM system_prompt_versions",
        "UPDATE regions SET url = 'https://example.com'",
        "UPDATE models SET pricing_info = '{}'",
    ],
)
def test_an_operator_may_not_rewrite_what_was_booked(
    server: psycopg.Connection, users: tuple[UUID, UUID], statement: str
) -> None:
    become(server, "cloche_operator")
    with pytest.raises(errors.InsufficientPrivilege):
        server.execute(statement.encode())


@pytest.mark.parametrize("statement", ["UPDATE credit_ledger SET amount_usd = 0", "TRUNCATE credit_ledger"])
def test_not_even_the_owner_rewrites_the_ledger(
    owner: psycopg.Connection, users: tuple[UUID, UUID], statement: str
) -> None:
    with pytest.raises(errors.RaiseException, match="append-only"):
        owner.execute(statement.encode())


def test_an_operator_sees_everybody(
    owner: psycopg.Connection, server: psycopg.Connection, users: tuple[UUID, UUID]
) -> None:
    become(server, "cloche_operator")
    for table in find_tables(owner):
        assert len(fetch(server, "SELECT DISTINCT user_id FROM {}", table)) == 2


def test_no_role_of_the_server_is_above_the_policies(owner: psycopg.Connection) -> None:
    above = "SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole FROM pg_roles WHERE rolname = ANY(%s)"
    assert dict(owner.execute(above, [list(OUR_ROLES)]).fetchall()) == dict.fromkeys(OUR_ROLES, False)
    owned = "SELECT relname FROM pg_class WHERE relowner IN (SELECT oid FROM pg_roles WHERE rolname = ANY(%s))"
    assert owner.execute(owned, [list(OUR_ROLES)]).fetchall() == []
    members = """
        SELECT pg_has_role('cloche_server', oid, 'MEMBER') FROM pg_roles
        WHERE oid IN (SELECT relowner FROM pg_class WHERE relnamespace = 'public'::regnamespace)
    """
    assert owner.execute(members).fetchall() == [(False,)]


def test_only_the_server_can_log_in(owner: psycopg.Connection) -> None:
    who = "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname = ANY(%s)"
    assert owner.execute(who, [list(OUR_ROLES)]).fetchall() == [("cloche_server",)]
