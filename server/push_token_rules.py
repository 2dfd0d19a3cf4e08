"""Push tokens as clients bring them: of which platform and environment, and whether they can be any at all. Pure."""

import re
from typing import get_args

from server.errors import DeviceInvalid
from storage.push_tokens import PushEnvironment, PushPlatform

_PLATFORMS: tuple[PushPlatform, ...] = get_args(PushPlatform)
_ENVIRONMENTS: dict[str, PushEnvironment] = {
    "production": "production",
    "sandbox": "sandbox",
    "development": "sandbox",
}
"""The last as apps are signed: https://developer.apple.com/documentation/bundleresources/entitlements/aps-environment"""
_TOKENS: dict[PushPlatform, re.Pattern[str]] = {
    "ios": re.compile(r"([0-9A-Fa-f]{2}){8,200}"),
    "android": re.compile(r"[!-~]{1,4096}"),
}
"""Neither service promises a length, so the bounds are wide. iOS hands out bytes, which the app writes in hexadecimal:
https://developer.apple.com/documentation/usernotifications/registering-your-app-with-apns
"""


def check_platform(told: str | None, known: str | None) -> PushPlatform:
    """What is told counts; else what the device has said it runs on. Phones were iPhones once, and said nothing. Raises
    DeviceInvalid.
    """
    if told is None:
        return "android" if (known or "").lower() == "android" else "ios"
    found = told.strip().lower()
    for platform in _PLATFORMS:
        if found == platform:
            return platform
    raise DeviceInvalid("invalid_platform")


def check_environment(told: str | None, platform: PushPlatform) -> PushEnvironment | None:
    """Where APNs knows the token, if that is told; FCM has but one. Raises DeviceInvalid."""
    if not told:
        return None
    found = _ENVIRONMENTS.get(told.strip().lower())
    if found is None:
        raise DeviceInvalid("invalid_environment")
    return found if platform == "ios" else None


def check_push_token(told: str | None, platform: PushPlatform) -> str:
    """As it is kept: one token is always the same text. Raises DeviceInvalid, which does not repeat it."""
    token = (told or "").strip()
    if _TOKENS[platform].fullmatch(token) is None:
        raise DeviceInvalid("invalid_push_token")
    return token.lower() if platform == "ios" else token
