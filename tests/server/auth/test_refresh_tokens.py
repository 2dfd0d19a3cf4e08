"""Refresh tokens at rest."""

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from server.auth.refresh_tokens import seal_refresh_token, unseal_refresh_token

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
LOGIN, OTHER_LOGIN = uuid4(), uuid4()


@given(st.text(max_size=300))
def test_what_was_sealed_can_be_read_with_its_key(text: str) -> None:
    encoded = text.encode("utf-8", "ignore").decode()
    sealed = seal_refresh_token(KEY, LOGIN, encoded)
    assert unseal_refresh_token(KEY, sealed, LOGIN) == encoded
    assert unseal_refresh_token(KEY, sealed) == encoded


def test_a_sealed_token_shows_nothing_of_itself() -> None:
    assert b"refresh" not in seal_refresh_token(KEY, LOGIN, "refresh-token-of-ann")


def test_nothing_is_sealed_the_same_twice() -> None:
    assert len({seal_refresh_token(KEY, LOGIN, "token") for _ in range(100)}) == 100


def test_a_sealed_token_is_a_nonce_a_ciphertext_and_a_tag_behind_the_logins_id() -> None:
    sealed = seal_refresh_token(KEY, LOGIN, "token")
    assert sealed[:16] == LOGIN.bytes
    assert len(sealed) == 16 + 12 + len("token") + 16


def test_another_key_reads_nothing() -> None:
    assert unseal_refresh_token(OTHER_KEY, seal_refresh_token(KEY, LOGIN, "token"), LOGIN) is None


def test_a_token_that_was_moved_to_another_login_is_refused() -> None:
    sealed = seal_refresh_token(KEY, LOGIN, "token")
    moved = OTHER_LOGIN.bytes + sealed[16:]
    assert unseal_refresh_token(KEY, sealed, OTHER_LOGIN) is None
    assert unseal_refresh_token(KEY, moved, OTHER_LOGIN) is None
    assert unseal_refresh_token(KEY, moved) is None


def test_every_changed_byte_shows() -> None:
    sealed = seal_refresh_token(KEY, LOGIN, "token")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert unseal_refresh_token(KEY, bytes(changed), LOGIN) is None, place


def test_what_was_cut_short_is_refused() -> None:
    sealed = seal_refresh_token(KEY, LOGIN, "token")
    for length in range(len(sealed)):
        assert unseal_refresh_token(KEY, sealed[:length], LOGIN) is None, length
