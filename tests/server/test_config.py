"""Settings: read once, all problems told at once, and no secret in what is told."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.provider import Provider, load_providers, setting_names
from server.config import MEBIBYTE, Config, ConfigInvalid, read_config

PROVIDERS = load_providers()
SECRET = "s3cret-" * 6
NEEDED = {
    "DATABASE_URL": "postgresql://cloche:hunter2@127.0.0.1/cloche",
    "REDIS_URL": "redis://:hunter2@127.0.0.1:6379",
    "JWT_SECRET": SECRET,
    "API_KEY_HASH_SECRET": "s3cret-keys-" * 4,
    "AUDIT_HMAC_SECRET": "s3cret-audit-" * 4,
    "SERVER_URL": "https://api.example.com",
    "AUTH0_DOMAIN": "example.eu.auth0.com",
    "AUTH0_API_AUDIENCE": "https://api.example.com",
    "AUTH0_NATIVE_CLIENT_ID": "desktop, mobile",
}


def read(**settings: str) -> Config:
    return read_config(NEEDED | settings, PROVIDERS)


def refuse(environment: Mapping[str, str]) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        read_config(environment, PROVIDERS)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_a_few_settings_are_enough() -> None:
    config = read()
    stores = (config.database_url, config.redis_url, config.jwt_secret)
    assert (*stores, config.api_key_secret, config.audit_secret) == tuple(NEEDED.values())[:5]
    assert (config.server_url, config.region) == ("https://api.example.com", "default")
    assert config.cors_origins == {"*"}
    assert (config.trusted_proxies, config.logs_access) == ((), True)
    assert (config.deployment_token, config.deployment_color) == (None, "unknown")
    assert config.cdn_base_url is None
    assert config.is_production
    assert (config.jwt_previous_secret, config.feedback_secret) == (None, None)
    assert config.token_days == 1
    assert config.max_body_bytes == 128 * MEBIBYTE
    assert config.keep_alive_seconds == 15
    assert config.hold_lease_seconds == 60
    assert config.log_level == "INFO"


def test_what_is_missing_is_told_all_at_once_with_an_example() -> None:
    problems = refuse({"DATABASE_URL": " ", "LOG_LEVEL": "loud", "RATE_LIMIT_READS": "0"})
    assert [problem.split()[0] for problem in problems] == [
        *("SERVER_URL", "DATABASE_URL", "REDIS_URL", "JWT_SECRET", "LOG_LEVEL"),
        *("API_KEY_HASH_SECRET", "AUDIT_HMAC_SECRET"),
        *("AUTH0_DOMAIN", "AUTH0_API_AUDIENCE", "AUTH0_NATIVE_CLIENT_ID", "RATE_LIMIT_READS"),
    ]
    assert problems[1] == "DATABASE_URL is missing: set it to postgresql://user:password@host/database"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ENVIRONMENT", "staging"),
        ("DATABASE_URL", "mysql://hunter2@x/y"),
        ("REDIS_URL", "http://hunter2@x"),
        ("JWT_SECRET", "hunter2"),
        ("JWT_SECRET_PREVIOUS", "hunter2"),
        ("JWT_ACCESS_TOKEN_DURATION_DAYS", "0"),
        ("JWT_ACCESS_TOKEN_DURATION_DAYS", "nan"),
        ("JWT_ACCESS_TOKEN_DURATION_DAYS", "inf"),
        ("DATABASE_CONNECTIONS", "0"),
        ("DATABASE_CONNECTIONS", "1.5"),
        ("DATABASE_CONNECTIONS", "hunter2"),
        ("DATABASE_CONNECTIONS", "9" * 5000),
        ("DATABASE_CONNECTIONS", str(2**63)),
        ("KEEP_ALIVE_SECONDS", "hunter2"),
        ("DATABASE_URL", "postgresql://hunter2\udcff"),
        ("AUTH0_SERVER_CLIENT_SECRET", "hunter2\udcff"),
        ("MAX_BODY_BYTES", "128MB"),
        ("UPLOAD_DIR", "/nowhere/hunter2"),
        ("UPLOAD_DIR", "/dev/null"),
        ("UPLOAD_DIR", "hunter2\0"),
        ("UPLOAD_SECONDS", "0"),
        ("MAX_AUDIO_BYTES", "-1"),
        ("MAX_VIDEO_BYTES", "100 MiB"),
        ("MAX_UPLOADS_BYTES", "0"),
        ("KEEP_ALIVE_SECONDS", "-1"),
        ("HOLD_LEASE_SECONDS", "x"),
        ("LOG_LEVEL", "TRACE"),
        ("API_KEY_HASH_SECRET", "hunter2"),
        ("AUDIT_HMAC_SECRET", "hunter2"),
        ("FEATUREBASE_SSO_SECRET", "hunter2"),
        ("REGION", "Europe / West"),
        ("REGION", "x" * 41),
        ("SERVER_URL", "api.example.com"),
        ("CDN_BASE_URL", "http://cdn.example.com"),
        ("CDN_BASE_URL", "cdn.example.com"),
        ("DEPLOYMENT_COLOR", "blue;green"),
        ("REQUIRE_CONSENT", "true"),
        ("ACCESS_LOG", "sometimes"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "10.0.0.1, proxy.internal"),
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/path"),
        ("CORS_ORIGINS", "https://*.example.com"),
        ("RATE_LIMIT_READS", "many"),
        ("RATE_LIMIT_WINDOW_MS", "0"),
        ("OPENAI_BASE_URL", "api.openai.com"),
        ("OPENAI_BASE_URL", "ftp://api.openai.com"),
        ("OPENAI_BASE_URL", "https://"),
        ("OPENAI_BASE_URL", "https://hunter2@api.openai.com"),
        ("OPENAI_BASE_URL", "https://:hunter2@api.openai.com"),
        ("OPENAI_BASE_URL", "https://api.openai.com/v1?key=hunter2"),
        ("OPENAI_BASE_URL", "https://api.openai.com/v1#x"),
        ("OPENAI_BASE_URL", "https://[::1"),
        ("OPENAI_BASE_URL", "https://host:hunter2/v1"),
        ("OPENAI_BASE_URL", "https://host:99999/v1"),
        ("OPENAI_BASE_URL", "https://ho st/v1"),
        ("OPENAI_API_KEY", "Bearer hunter2"),
        ("OPENAI_API_KEY", "“hunter2”"),
        ("OPENAI_API_KEYS", "sk-1,hun\nter2"),
    ],
)
def test_what_is_wrong_is_named_and_secrets_are_not_repeated(name: str, text: str) -> None:
    (problem,) = refuse(NEEDED | {name: text})
    assert problem.startswith(f"{name} is wrong: ")
    assert "hunter2" not in problem


@pytest.mark.parametrize("name", ["KEEP_ALIVE_SECONDS", "JWT_SECRET_PREVIOUS", "OPENAI_API_KEY", "ENVIRONMENT"])
def test_an_empty_setting_counts_as_unset(name: str) -> None:
    assert read(**{name: "  "}) == read()


def test_every_setting_is_read() -> None:
    config = read(
        ENVIRONMENT="development",
        JWT_SECRET_PREVIOUS=" " + "p" * 32,
        JWT_ACCESS_TOKEN_DURATION_DAYS="0.5",
        DATABASE_CONNECTIONS="7",
        MAX_BODY_BYTES="1000",
        UPLOAD_DIR="/var",
        MAX_AUDIO_BYTES="5",
        MAX_VIDEO_BYTES="6",
        MAX_UPLOADS_BYTES="7",
        UPLOAD_SECONDS="8",
        KEEP_ALIVE_SECONDS="2.5",
        WRITE_DEADLINE_SECONDS="3",
        HOLD_LEASE_SECONDS="9",
        PROVIDER_CONNECT_SECONDS="1",
        PROVIDER_FIRST_BYTE_SECONDS="2",
        PROVIDER_IDLE_SECONDS="4",
        JOURNAL_FOLDER="/var/lib/cloche",
        LOG_LEVEL="debug",
        ACCESS_LOG="off",
        REGION="eu-west",
        SERVER_URL="https://api.example.com/",
        CORS_ORIGINS="https://App.example.com/, http://localhost:1420,tauri://localhost",
        TRUSTED_PROXIES="10.1.2.3/8, 192.0.2.7,fd00::/8",
        PLANTOCODE_DEPLOYMENT_TOKEN="deploy",
        DEPLOYMENT_COLOR="green",
        FEATUREBASE_SSO_SECRET="f" * 16,
        REQUIRE_CONSENT="EU",
    )
    assert not config.is_production
    assert config.jwt_previous_secret == "p" * 32
    assert (config.token_days, config.database_connections, config.max_body_bytes) == (0.5, 7, 1000)
    assert (config.upload_folder, config.max_audio_bytes, config.max_video_bytes) == (Path("/var"), 5, 6)
    assert (config.max_uploads_bytes, config.upload_seconds) == (7, 8)
    assert (config.keep_alive_seconds, config.write_deadline_seconds, config.hold_lease_seconds) == (2.5, 3, 9)
    assert (config.connect_seconds, config.first_byte_seconds, config.idle_seconds) == (1, 2, 4)
    assert (config.journal_folder, config.log_level) == (Path("/var/lib/cloche"), "DEBUG")
    assert (config.logs_access, config.region, config.server_url) == (False, "eu-west", "https://api.example.com")
    assert config.cors_origins == {"https://app.example.com", "http://localhost:1420", "tauri://localhost"}
    assert [str(network) for network in config.trusted_proxies] == ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]
    assert (config.deployment_token, config.deployment_color) == ("deploy", "green")
    assert config.feedback_secret == "f" * 16
    assert config.consent_region == "eu"
    assert {read().consent_region, read(REQUIRE_CONSENT="off").consent_region} == {None}


def test_no_secret_shows_in_a_repr() -> None:
    settings = {"JWT_SECRET_PREVIOUS": "p3evious-" * 4, "OPENAI_API_KEY": "sk-upstream"}
    shown = repr(read(**settings, VIBE_DEPLOYMENT_TOKEN="d3ploy", FEATUREBASE_SSO_SECRET="f3edback" * 4))
    for secret in ("hunter2", "s3cret", "p3evious", "sk-upstream", "d3ploy", "f3edback"):
        assert secret not in shown


def test_of_two_names_of_the_deployment_token_the_first_counts() -> None:
    both = read(VIBE_DEPLOYMENT_TOKEN="first", PLANTOCODE_DEPLOYMENT_TOKEN="second")
    assert both.deployment_token == "first"


def test_a_server_in_development_is_reached_on_this_machine() -> None:
    assert read(ENVIRONMENT="development", SERVER_URL="").server_url == "http://127.0.0.1:8080"


def test_each_purpose_has_a_secret_of_its_own_in_development_too() -> None:
    needed = {name: NEEDED[name] for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET")}
    development = needed | {"ENVIRONMENT": "development"}
    first, second = read_config(development, PROVIDERS), read_config(development, PROVIDERS)
    assert first == second
    assert len({first.jwt_secret, first.api_key_secret, first.audit_secret}) == 3
    changed = read_config(development | {"JWT_SECRET": "another-" * 5}, PROVIDERS)
    assert first.api_key_secret != changed.api_key_secret
    assert len(refuse(development | {"JWT_SECRET": "short"})) == 1


def test_the_journal_is_found_by_the_next_process_of_the_same_user() -> None:
    assert read().journal_folder == read().journal_folder
    assert str(os.getuid()) in read().journal_folder.name


# Providers


@pytest.fixture
def openai() -> Provider:
    return PROVIDERS["openai"]


def test_a_provider_without_a_key_is_there_and_not_usable(openai: Provider) -> None:
    upstream = read().upstreams["openai"]
    assert (upstream.base_url, upstream.api_keys, upstream.is_usable) == (openai.default_base_url, (), False)
    assert read(OPENAI_API_KEY="sk").upstreams["openai"].is_usable


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"OPENAI_API_KEYS": "a, b,,c ,"}, ("a", "b", "c")),
        ({"OPENAI_API_KEY": "a", "OPENAI_API_KEYS": "b,a"}, ("a", "b")),
        ({"OPENAI_API_KEYS": " , "}, ()),
    ],
)
def test_a_provider_may_have_several_keys(settings: dict[str, str], keys: tuple[str, ...]) -> None:
    assert read(**settings).upstreams["openai"].api_keys == keys


def test_a_stand_in_exists_in_development_only() -> None:
    assert "sandbox" not in read().upstreams
    assert read(ENVIRONMENT="development").upstreams["sandbox"].is_usable


def test_the_cdn_has_no_slash_at_its_end() -> None:
    assert read(CDN_BASE_URL="https://cdn.example.com/media/").cdn_base_url == "https://cdn.example.com/media"


def test_a_base_url_has_no_slash_at_its_end() -> None:
    config = read(OPENAI_BASE_URL="https://proxy.example.com/openai/v1/")
    assert config.upstreams["openai"].base_url == "https://proxy.example.com/openai/v1"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://localhost:9", "http://[::1]:9"])
def test_keys_may_go_unencrypted_to_this_machine(url: str) -> None:
    assert read(OPENAI_BASE_URL=url).upstreams["openai"].base_url == url


def test_keys_may_not_go_unencrypted_to_another_machine_in_production() -> None:
    settings = {"OPENAI_BASE_URL": "http://api.example.com/v1"}
    (problem,) = refuse(NEEDED | settings)
    assert problem.startswith("OPENAI_BASE_URL is wrong: ")
    assert read(ENVIRONMENT="development", **settings).upstreams["openai"].base_url == settings["OPENAI_BASE_URL"]


def test_names_of_settings_follow_from_the_providers_code() -> None:
    names = setting_names("my-model_host")
    assert (names.base_url, names.api_key) == ("MY_MODEL_HOST_BASE_URL", "MY_MODEL_HOST_API_KEY")


def test_the_journal_is_the_databases_own_and_outlives_a_new_password() -> None:
    def folder(url: str) -> Path:
        return read(DATABASE_URL=url).journal_folder

    first = folder("postgresql://cloche:one@db:5432/cloche")
    assert first == folder("postgresql://cloche:two@db:5432/cloche")
    assert first != folder("postgresql://cloche:one@db:5432/other")
    assert first != folder("postgresql://cloche:one@elsewhere:5432/cloche")
    assert first != folder("postgresql://cloche:one@db:5432,spare:5432/cloche")
