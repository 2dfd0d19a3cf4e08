"""The videos that newcomers are shown: paths below the CDN, by name, in the row `onboarding_videos`. Pure."""

import re
from collections.abc import Mapping
from typing import Any

MOST_VIDEOS = 100

_KEY = re.compile(r"[a-z][a-z0-9_]{0,99}")
_PATH = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=@/-]|%[0-9A-Fa-f]{2}){1,500}")
"""https://www.rfc-editor.org/rfc/rfc3986#section-3.3, without colons, which would make a scheme of it."""


def check_videos(value: Any) -> list[str]:
    """Everything that is wrong with them, a line each."""
    if not isinstance(value, Mapping):
        return ["it must be an object of paths, by the names of the videos"]
    problems = [] if len(value) <= MOST_VIDEOS else [f"at most {MOST_VIDEOS} videos"]
    for key, path in value.items():
        if not _is_key(key):
            problems.append(f"{key[:100]}: a video is named in lower-case letters, digits and _")
        if not _is_path(path):
            problems.append(f"{key[:100]}: it must be a path of a URL below the CDN")
    return problems


def build_video_urls(cdn_base_url: str | None, value: Any) -> dict[str, str]:
    """By name; iOS refuses all of them if one is no URL, so what would be none is left out. `cdn_base_url` ends in no
    slash.
    """
    if cdn_base_url is None or not isinstance(value, Mapping):
        return {}
    return {key: f"{cdn_base_url}/{_trim(path)}" for key, path in value.items() if _is_path(path)}


def _is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def _is_path(path: Any) -> bool:
    if not isinstance(path, str) or _PATH.fullmatch(path) is None:
        return False
    steps = _trim(path).split("/")
    return steps != [""] and not {".", ".."} & set(steps)


def _trim(path: str) -> str:
    return re.sub("/{2,}", "/", path).strip("/")
