"""Push tokens: what can be one, and how it is kept."""

import pytest

from server.errors import DeviceInvalid
from server.push_token_rules import check_environment, check_platform, check_push_token
from storage.push_tokens import PushPlatform

APNS_TOKEN = "0123456789ABCDEFabcdef" * 3


@pytest.mark.parametrize(
    ("told", "known", "platform"),
    [
        (None, None, "ios"),
        (None, "", "ios"),
        (None, "ios", "ios"),
        (None, "macos", "ios"),
        (None, "Android", "android"),
        ("ios", "android", "ios"),
        ("iOS", None, "ios"),
        (" Android ", "ios", "android"),
    ],
)
def test_the_platform_is_what_is_told_else_what_is_known(told: str | None, known: str | None, platform: str) -> None:
    assert check_platform(told, known) == platform


@pytest.mark.parametrize("told", ["", "macos", "ios17", "apns", "ıos"])
def test_a_platform_that_nobody_pushes_to_is_refused_in_the_word_of_clients(told: str) -> None:
    with pytest.raises(DeviceInvalid, match=r"^invalid_platform$"):
        check_platform(told, "ios")


@pytest.mark.parametrize(
    ("told", "environment"),
    [(None, None), ("", None), ("Production", "production"), ("sandbox", "sandbox"), ("development", "sandbox")],
)
def test_the_environment_is_one_of_apns(told: str | None, environment: str | None) -> None:
    assert check_environment(told, "ios") == environment
    assert check_environment(told, "android") is None


@pytest.mark.parametrize("platform", ["ios", "android"])
def test_an_environment_that_there_is_not_is_refused(platform: PushPlatform) -> None:
    with pytest.raises(DeviceInvalid, match=r"^invalid_environment$"):
        check_environment("staging", platform)


@pytest.mark.parametrize("token", [APNS_TOKEN, f" {APNS_TOKEN}\n", "0" * 16, "f" * 400])
def test_a_token_of_apns_is_kept_in_lower_case(token: str) -> None:
    assert check_push_token(token, "ios") == token.strip().lower()


@pytest.mark.parametrize("token", ["dX9:APA91b-_~", "x", "Z" * 4096])
def test_a_token_of_fcm_is_kept_as_it_is(token: str) -> None:
    assert check_push_token(token, "android") == token


@pytest.mark.parametrize(
    ("platform", "token"),
    [
        ("ios", None),
        ("ios", ""),
        ("ios", "0" * 14),
        ("ios", "0" * 17),
        ("ios", "0" * 402),
        ("ios", "0" * 15 + "g"),
        ("ios", "0" * 15 + "\u0660"),  # a digit, in Arabic
        ("ios", "0" * 8 + " " + "0" * 8),
        ("ios", "../" + "0" * 16),
        ("android", None),
        ("android", " "),
        ("android", "a b"),
        ("android", "a\0"),
        ("android", "é"),
        ("android", "x" * 4097),
    ],
)
def test_what_cannot_be_a_token_is_refused_and_not_repeated(platform: PushPlatform, token: str | None) -> None:
    with pytest.raises(DeviceInvalid, match=r"^invalid_push_token$"):
        check_push_token(token, platform)
