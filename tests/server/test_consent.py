"""What consent comes to, decided without asking anybody."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.consent import (
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    check_metadata,
    find_blocking,
    find_percent,
    find_source,
    find_standings,
    read_doc_type,
    read_moment,
    read_region,
)
from server.errors import ArgumentInvalid, ChoiceUnknown, RequestInvalid
from storage.consents import Consent
from storage.legal_documents import DocType
from tests.storage.documents import build_document

TODAY = date(2026, 3, 1)
DAY = timedelta(days=1)
NOW = datetime(2026, 2, 1, tzinfo=UTC)

TERMS_1 = build_document("terms", "1", TODAY - 30 * DAY)
TERMS_2 = build_document("terms", "2", TODAY - 20 * DAY, material=True)
TERMS_3 = build_document("terms", "3", TODAY - 10 * DAY)
TERMS_4 = build_document("terms", "4", TODAY + DAY, material=True)
PRIVACY = build_document("privacy", "1", TODAY - DAY)
ELSEWHERE = build_document("terms", "1", TODAY, region="us", material=True)
DOCUMENTS = [TERMS_4, TERMS_2, PRIVACY, TERMS_1, ELSEWHERE, TERMS_3]


def agree(doc_type: DocType, version: str | None) -> Consent:
    return Consent(doc_type, "eu", version, None if version is None else NOW)


def nest(levels: int) -> dict[str, Any]:
    return {"inner": nest(levels - 1)} if levels > 1 else {}


def test_regions_and_types_are_read_in_any_case() -> None:
    assert (read_region("EU"), read_region("us"), read_doc_type("Terms"), read_doc_type("PRIVACY")) == (
        *("eu", "us"),
        *("terms", "privacy"),
    )


@pytest.mark.parametrize("word", ["", "uk", "eu ", "e\u0075\u0301", "EU,US", "\0"])
def test_another_word_is_refused_and_the_right_ones_are_told(word: str) -> None:
    with pytest.raises(ChoiceUnknown, match="eu, us"):
        read_region(word)
    with pytest.raises(ChoiceUnknown, match="privacy, terms"):
        read_doc_type(word)


def test_a_document_is_missing_unless_its_very_version_was_accepted() -> None:
    standings = find_standings([PRIVACY, TERMS_3], [agree("terms", "2"), agree("privacy", "1")])
    assert [(standing.is_missing, standing.accepted_version) for standing in standings] == [(False, "1"), (True, "2")]
    for consents in ([], [agree("privacy", None)]):
        (standing,) = find_standings([PRIVACY], consents)
        assert (standing.is_missing, standing.accepted_at) == (True, None)


@pytest.mark.parametrize(
    ("terms", "privacy", "blocking"),
    [
        (None, None, ["privacy", "terms"]),
        ("3", "1", []),
        ("3", None, ["privacy"]),
        ("2", "1", []),
        ("1", "1", ["terms"]),
        ("gone", "1", ["terms"]),
        ("4", "1", []),
    ],
)
def test_a_material_change_blocks_who_accepted_what_was_before_it_and_a_correction_does_not(
    terms: str | None, privacy: str | None, blocking: list[str]
) -> None:
    assert find_blocking(DOCUMENTS, [agree("terms", terms), agree("privacy", privacy)], "eu", TODAY) == blocking


def test_a_material_change_blocks_from_its_day_on() -> None:
    consents = [agree("terms", "3"), agree("privacy", "1")]
    assert find_blocking(DOCUMENTS, consents, "eu", TODAY) == []
    assert find_blocking(DOCUMENTS, consents, "eu", TODAY + DAY) == ["terms"]


def test_where_nothing_is_in_force_nothing_blocks() -> None:
    assert find_blocking(DOCUMENTS, [], "eu", TODAY - 40 * DAY) == []
    assert find_blocking([], [], "us", TODAY) == []


@pytest.mark.parametrize(
    ("headers", "source"),
    [
        ({"X-Client-Type": "desktop"}, "desktop"),
        ({"X-Client-Type": " Mobile "}, "mobile"),
        ({"X-Client-Type": "ios", "X-Title": "App"}, "mobile"),
        ({"X-Client-Type": "web"}, "website"),
        ({"X-Client-Type": "toaster"}, "api"),
        ({"X-Title": "App"}, "desktop"),
        ({}, "api"),
    ],
)
def test_clients_say_where_somebody_agreed(headers: dict[str, str], source: str) -> None:
    assert find_source(headers, is_api_key=False) == source
    assert find_source(headers, is_api_key=True) == "api"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"locale": "de", "shown": [1, 2.5, None, True], "of": {"a": "\u2028 👩‍💻"}},
        {"digits": 10**200},
        {"text": "x" * (MAX_METADATA_BYTES - len('{"text":""}'))},
        nest(MAX_METADATA_DEPTH),
    ],
)
def test_metadata_stays_as_it_is(metadata: dict[str, Any]) -> None:
    assert check_metadata(metadata) is metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {"text": "x" * MAX_METADATA_BYTES},
        {"text": "ü" * (MAX_METADATA_BYTES // 2)},
        nest(MAX_METADATA_DEPTH + 1),
        nest(500),
        {"text": "a\0b"},
        {"a\0b": 1},
        {"list": [{"deep": ["\0"]}]},
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(ArgumentInvalid, match="metadata"):
        check_metadata(metadata)


@pytest.mark.parametrize(
    "text",
    [
        *("2025-01-31T10:20:30Z", "2025-01-31T11:20:30+01:00", "2025-01-31T11:20:30 01:00", "2025-01-31t10:20:30.000z"),
        "2025-02-01T10:19:30+23:59",
    ],
)
def test_a_time_is_read_in_utc(text: str) -> None:
    assert read_moment("from", text) == datetime(2025, 1, 31, 10, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("2025-01-31", "2025-01-31T10:20:30", "2025-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00"),
        *("1738318830", "yesterday"),
    ],
)
def test_what_is_no_time_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(RequestInvalid, match=r"^from: "):
        read_moment("from", text)


@given(st.text())
def test_no_text_breaks_the_reading_of_a_time(text: str) -> None:
    with suppress(RequestInvalid):
        assert read_moment("to", text).tzinfo is UTC


def test_a_rate_is_in_percent_to_two_places() -> None:
    assert find_percent(2, 3) == Decimal("66.67")
    assert str(find_percent(0, 7)) == "0.00"
    assert str(find_percent(5, 5)) == "100.00"
    assert find_percent(0, 0) is None
