"""API keys, as they are asked for: what a caller may give away. The rest is shown in tests/end_to_end."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from server.auth.callers import Caller
from server.errors import NotAllowed
from server.routes.api_keys import build_key, read_wish

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
    wish = read_wish(b'{"label": "laptop", "scopes": %s}' % asked.encode())
    if is_allowed:
        assert set(build_key(who, wish, ("k" * 64, "secret"), NOW).scopes) <= who.scopes | {"admin"}
    else:
        with pytest.raises(NotAllowed):
            build_key(who, wish, ("k" * 64, "secret"), NOW)
