"""The push services' settings: what goes together, what must be a key, and that no secret is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from server.push.settings import FCM_URL, ApnsSettings, FcmSettings, PushSettings, read_push_settings
from server.settings import Settings
from tests.push_stand_in.keys import find_account_key, find_apns_key, write_pem

APNS = {
    "APNS_TEAM_ID": "TEAM123456",
    "APNS_KEY_ID": "KEY1234567",
    "APNS_PRIVATE_KEY": write_pem(find_apns_key()),
    "APNS_BUNDLE_ID": "com.example.app",
}
RSA_PEM = write_pem(find_account_key())
ACCOUNT = {
    "type": "service_account",
    "project_id": "example-project",
    "private_key_id": "0123456789abcdef",
    "private_key": RSA_PEM,
    "client_email": "push@example-project.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def read(is_production: bool = True, /, **environment: str) -> tuple[PushSettings, list[str]]:
    settings = Settings(environment)
    return read_push_settings(settings, is_production), settings.problems


def read_apns(**environment: str) -> ApnsSettings:
    settings, problems = read(**{**APNS, **environment})
    assert problems == []
    assert settings.apns is not None
    return settings.apns


def read_fcm(**fields: Any) -> FcmSettings | None:
    settings, problems = read(FCM_SERVICE_ACCOUNT=json.dumps({**ACCOUNT, **fields}))
    assert (settings.fcm is None) == bool(problems)
    return settings.fcm


def test_without_settings_both_services_are_off() -> None:
    assert read() == (PushSettings(apns=None, fcm=None, ca_file=None, lease_seconds=60), [])


def test_apns_is_on_with_four_settings_and_begins_in_the_sandbox() -> None:
    apns = read_apns()
    assert (apns.team_id, apns.key_id, apns.bundle_id) == ("TEAM123456", "KEY1234567", "com.example.app")
    assert apns.environment == "sandbox"
    assert apns.production_url == "https://api.push.apple.com"
    assert apns.sandbox_url == "https://api.sandbox.push.apple.com"


def test_a_flag_makes_production_the_first_environment() -> None:
    assert read_apns(APNS_PRODUCTION="true").environment == "production"


@pytest.mark.parametrize("name", list(APNS))
def test_three_of_four_are_a_problem_that_names_the_fourth(name: str) -> None:
    settings, problems = read(**{other: value for other, value in APNS.items() if other != name})
    assert settings.apns is None
    [problem] = problems
    assert problem.startswith(f"{name} missing")


def test_what_is_wrong_is_told_beside_what_is_missing() -> None:
    _, problems = read(APNS_TEAM_ID="TEAM 1", APNS_KEY_ID="KEY1234567")
    assert problems[0].startswith("APNS_TEAM_ID is wrong")
    assert problems[1].startswith("APNS_PRIVATE_KEY, APNS_BUNDLE_ID missing")


def test_a_key_may_stand_on_one_line() -> None:
    pem = APNS["APNS_PRIVATE_KEY"]
    assert read_apns(APNS_PRIVATE_KEY=pem.replace("\n", "\\n")).private_key == pem


@pytest.mark.parametrize(
    "key",
    [
        "not a key",
        RSA_PEM,
        write_pem(ec.generate_private_key(ec.SECP384R1())),
        write_pem(ed25519.Ed25519PrivateKey.generate()),
        find_apns_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")).decode(),
        APNS["APNS_PRIVATE_KEY"][:120],
    ],
    ids=["text", "RSA", "P-384", "Ed25519", "with a password", "cut"],
)
def test_another_key_than_p256_is_told_at_the_start_without_being_shown(key: str) -> None:
    settings, problems = read(**{**APNS, "APNS_PRIVATE_KEY": key})
    assert settings.apns is None
    [problem] = problems
    assert problem.startswith("APNS_PRIVATE_KEY is wrong: it must be the text of the .p8 file")
    assert key.splitlines()[-2 if "\n" in key.strip() else 0] not in problem


@pytest.mark.parametrize("name", ["APNS_PRODUCTION_URL", "APNS_SANDBOX_URL"])
def test_an_environment_may_be_elsewhere_but_only_over_tls_and_without_a_path(name: str) -> None:
    assert read(**APNS, **{name: "https://127.0.0.1:2197"})[1] == []
    for url in ("http://127.0.0.1:2197", "https://push.example.com/v1", "push.example.com"):
        assert read(**APNS, **{name: url})[1][0].startswith(f"{name} is wrong")


def test_fcm_is_on_with_a_service_account() -> None:
    fcm = read_fcm()
    assert fcm is not None
    assert (fcm.project_id, fcm.client_email) == ("example-project", ACCOUNT["client_email"])
    assert (fcm.token_url, fcm.base_url) == ("https://oauth2.googleapis.com/token", FCM_URL)
    assert fcm.private_key == RSA_PEM


def test_a_service_account_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_text(json.dumps(ACCOUNT))
    settings, problems = read(FCM_SERVICE_ACCOUNT=str(path))
    assert problems == []
    assert settings.fcm == read_fcm()


@pytest.mark.parametrize("text", ["/nowhere/account.json", "{", "{}", "[1]", '{"project_id": 1}'])
def test_what_is_no_service_account_is_told(text: str) -> None:
    settings, problems = read(FCM_SERVICE_ACCOUNT=text)
    assert settings.fcm is None
    [problem] = problems
    assert problem.startswith("FCM_SERVICE_ACCOUNT is wrong: it must be")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("private_key", "hunter2"),
        ("private_key", APNS["APNS_PRIVATE_KEY"]),
        ("private_key", write_pem(rsa.generate_private_key(65537, 1024))),  # noqa: S505 - to be refused
        ("token_uri", "http://oauth2.example.com/token"),
        ("token_uri", "ftp://oauth2.example.com/token"),
        ("project_id", ""),
        ("project_id", "../v1"),
        ("client_email", ""),
    ],
    ids=["no key", "EC", "short RSA", "plain HTTP", "FTP", "no project", "a path", "nobody"],
)
def test_a_part_of_a_service_account_that_is_none_is_told_without_being_shown(name: str, value: str) -> None:
    settings, problems = read(FCM_SERVICE_ACCOUNT=json.dumps({**ACCOUNT, name: value}))
    assert settings.fcm is None
    [problem] = problems
    assert name in problem
    assert not value or value not in problem


def test_a_token_endpoint_on_this_machine_needs_no_tls() -> None:
    assert read_fcm(token_uri="http://127.0.0.1:8421/token") is not None


def test_access_tokens_leave_the_machine_over_https_only() -> None:
    account = json.dumps(ACCOUNT)
    assert read(FCM_SERVICE_ACCOUNT=account, FCM_URL="http://fcm.example.com")[1] != []
    assert read(FCM_SERVICE_ACCOUNT=account, FCM_URL="http://127.0.0.1:8421")[1] == []
    assert read(False, FCM_SERVICE_ACCOUNT=account, FCM_URL="http://fcm.example.com")[1] == []


def test_further_authorities_are_read_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    settings, problems = read(PUSH_CA_FILE=str(path))
    assert (settings.ca_file, problems) == (path, [])


def test_a_file_without_certificates_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in (str(tmp_path / "empty.pem"), str(tmp_path / "gone.pem"), str(tmp_path)):
        settings, problems = read(PUSH_CA_FILE=name)
        assert settings.ca_file is None
        assert problems[0].startswith("PUSH_CA_FILE is wrong")


@pytest.mark.parametrize("seconds", ["4.9", "0", "nan", "x"])
def test_a_lease_is_long_enough_to_send_a_batch(seconds: str) -> None:
    assert read(PUSH_LEASE_SECONDS="5")[0].lease_seconds == 5
    assert read(PUSH_LEASE_SECONDS=seconds)[1][0].startswith("PUSH_LEASE_SECONDS is wrong")


def test_no_key_stands_in_a_repr() -> None:
    settings, _ = read(**APNS, FCM_SERVICE_ACCOUNT=json.dumps(ACCOUNT))
    assert "PRIVATE KEY" not in repr(settings)
