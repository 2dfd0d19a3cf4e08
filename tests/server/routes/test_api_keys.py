"""API keys, as they are asked for: what a caller may give away. The rest is shown in tests/end_to_end."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from server.auth.callers import Caller
from server.errors import NotAllowed
from server.operations import decode_body
from server.routes.api_keys import ApiKeyWish, build_key, check_wish

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def build_caller(*scopes: str, role: str = "user") -> Caller:
    return Caller(UUID(int=1), "ann@example.com", role, None, None, frozenset(scopes))


@pytest.mark.parametrize(
    ("role", "asked", "is_allowed"),
    [
        ("user", '["read"]', True),
        ("user", '["read", "write"]', True),
        ("user", '["read", "rpc"]', False),
        ("user", '["read", "admin"]', False),
        ("admin", '["read", "admin"]', True),
        ("admin", '["rpc"]', False),
    ],
)
def test_a_key_can_do_no_more_than_whoever_makes_it(role: str, asked: str, is_allowed: bool) -> None:
    who = build_caller("read", "write", role=role)
    body = b'{"label": "laptop", "scopes": %s}' % asked.encode()
    wish = check_wish(decode_body(body, ApiKeyWish))
    if is_allowed:
        assert set(build_key(who, wish, ("k" * 64, "secret"), NOW).scopes) <= who.scopes | {"admin"}
    else:
        with pytest.raises(NotAllowed):
            build_key(who, wish, ("k" * 64, "secret"), NOW)
