"""The issuer's refresh tokens at rest: AES-256-GCM, each sealed for the one login that it belongs to. Pure.

A sealed token is the login's id (16 bytes), a random nonce (12 bytes), and the ciphertext with its tag. The id is
authenticated with it, so that nobody who can write rows moves a token from one login to another. Random nonces are safe
for 2**32 tokens under one key: https://doi.org/10.6028/NIST.SP.800-38D, 8.3.
"""

import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_ID_BYTES = 16
_NONCE_BYTES = 12


def seal_refresh_token(key: bytes, login_id: UUID, text: str) -> bytes:
    """Never the same twice, also for the same token."""
    nonce = os.urandom(_NONCE_BYTES)
    return login_id.bytes + nonce + AESGCM(key).encrypt(nonce, text.encode(), login_id.bytes)


def unseal_refresh_token(key: bytes, sealed: bytes, login_id: UUID | None = None) -> str | None:
    """None if it was sealed under another key, for another login than the one named, or is not what was sealed."""
    id_, rest = sealed[:_ID_BYTES], sealed[_ID_BYTES:]
    if len(id_) != _ID_BYTES or (login_id is not None and id_ != login_id.bytes):
        return None
    try:
        return AESGCM(key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], id_).decode()
    except (InvalidTag, ValueError):
        return None
