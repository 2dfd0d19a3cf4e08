"""A token that another region made brings its user along: all regions share the secret, and none the database."""

from dataclasses import dataclass
from datetime import UTC, datetime

from server.auth.tokens import AppToken
from server.circumstances import circumstances
from storage.accounts import User
from storage.audit import AuditEntry
from storage.sign_ins import Identity, SignIns


@dataclass(frozen=True, slots=True)
class Provisioning:
    sign_ins: SignIns
    issuer: str

    async def provision(self, token: AppToken) -> User | None:
        """The user whom the token means, made if new. None if the token was revoked, or the account deleted after it.

        A token that does not say who its user is to the issuer brings nobody along: nobody could sign in as that user.
        """
        if token.subject is None:
            return None
        return await self.sign_ins.provision(
            token.user_id,
            token.revocation_id,
            Identity(self.issuer, token.subject, token.email or None, email_verified=False, name=None),
            datetime.fromtimestamp(token.auth_time, UTC),
            lambda user: build_entry(token, user),
        )


def build_entry(token: AppToken, user: User) -> AuditEntry:
    """About the user here; the entity is the user as the token names it, which is another if it was known already."""
    at_hand = circumstances()
    return AuditEntry(
        "user_provisioned",
        "success",
        "system",
        user.id,
        "user",
        str(token.user_id),
        address=at_hand.address,
        user_agent=at_hand.user_agent,
        request_id=at_hand.request_id,
        details={"session_id": str(token.revocation_id)},
    )
