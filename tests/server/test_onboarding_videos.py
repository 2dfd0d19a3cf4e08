"""Videos for newcomers: only what is a URL, for an app that refuses all if one is none."""

from typing import Any

import pytest

from server.onboarding_videos import build_video_urls, check_videos

CDN = "https://cdn.example.com/media"


def test_a_path_stands_below_the_cdn() -> None:
    value = {"intro": "onboarding/intro/index.m3u8", "plan": "/a//b.m3u8/"}
    assert check_videos(value) == []
    assert build_video_urls(CDN, value) == {
        "intro": "https://cdn.example.com/media/onboarding/intro/index.m3u8",
        "plan": "https://cdn.example.com/media/a/b.m3u8",
    }


@pytest.mark.parametrize(("cdn", "value"), [(None, {"intro": "a"}), (CDN, None), (CDN, []), (CDN, {})])
def test_there_are_none_when_either_is_unset(cdn: str | None, value: Any) -> None:
    assert build_video_urls(cdn, value) == {}


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "//", "a b", "é", "a\n", "%", "%zz", "a%2", "https://elsewhere.example.com/x", "a?b", "a#b", "[a]"),
        *("../a", "a/../b", "a/.", "a\\b", "x" * 501, None, 1, ["a"]),
    ],
    ids=repr,
)
def test_what_would_be_no_url_is_refused_and_left_out(path: Any) -> None:
    value = {"good": "a%20b/c-d_e.m3u8", "bad": path}
    assert check_videos(value) == ["bad: it must be a path of a URL below the CDN"]
    assert build_video_urls(CDN, value) == {"good": f"{CDN}/a%20b/c-d_e.m3u8"}


@pytest.mark.parametrize("value", [None, [], "a", 1])
def test_what_is_no_object_is_refused(value: Any) -> None:
    assert check_videos(value) == ["it must be an object of paths, by the names of the videos"]


def test_names_are_plain_and_not_many() -> None:
    assert check_videos({"Intro 1": "a"}) == ["Intro 1: a video is named in lower-case letters, digits and _"]
    assert check_videos({f"v{n}": "a" for n in range(101)}) == ["at most 100 videos"]
