"""What an account takes of an issuer's word."""

import pytest

from storage.identities import build_placeholders, read_email, read_name

ISSUER = "https://issuer.example/"


@pytest.mark.parametrize("email", ["a@b", "Ann@Example.com", "ann@" + "x" * 251, "änn@example.com"])
def test_an_address_is_taken_as_it_is(email: str) -> None:
    assert read_email(email) == email


@pytest.mark.parametrize("email", [None, "", "ab", "ann@" + "x" * 252, "a\x00nn@b", "ann@\nexample.com", "\ud800@b"])
def test_what_cannot_be_stored_or_shown_is_no_address(email: str | None) -> None:
    assert read_email(email) is None


@pytest.mark.parametrize(
    ("told", "name"),
    [("Ann", "Ann"), (" Ann\x00 Lee\n", "Ann Lee"), ("x" * 300, "x" * 255), ("", None), ("\x00", None), (None, None)],
)
def test_a_name_is_cut_and_cleaned(told: str | None, name: str | None) -> None:
    assert read_name(told) == name


def test_a_plain_subject_is_shown() -> None:
    assert build_placeholders(ISSUER, "google-oauth2|123")[0] == "user-google-oauth2|123"


@pytest.mark.parametrize("subject", ["auth0|ABC", "samlp|corp|ann@example.com", "x" * 255, "änn", "a b"])
def test_a_subject_that_could_be_mistaken_is_hidden(subject: str) -> None:
    (placeholder,) = build_placeholders(ISSUER, subject)
    assert subject not in placeholder
    assert "@" not in placeholder
    assert len(placeholder) <= 255


def test_no_two_subjects_have_the_same_placeholder_in_any_case() -> None:
    pairs = [(ISSUER, "a|abc"), (ISSUER, "a|ABC"), (ISSUER, "a|AbC"), ("https://other.example/", "a|ABC")]
    first = [build_placeholders(*pair)[0].lower() for pair in pairs]
    last = [build_placeholders(*pair)[-1].lower() for pair in pairs]
    assert len(set(first)) == len(set(last)) == len(pairs)
