"""What an issuer says of somebody, as an account can have it: address and name, or what stands for them. Pure."""

import hashlib
import re

MIN_ADDRESS, MAX_ADDRESS, MAX_NAME = 3, 255, 255
_PLAIN_SUBJECT = re.compile(r"[a-z0-9|_.:-]{1,150}")


def read_email(email: str | None) -> str | None:
    """The address, if it is such as can be stored and shown."""
    if email is None or not email.isprintable():
        return None
    return email if MIN_ADDRESS <= len(email) <= MAX_ADDRESS else None


def read_name(name: str | None) -> str | None:
    """As it fits, without what cannot be stored or seen."""
    text = "".join(character for character in name or "" if character.isprintable()).strip()
    return text[:MAX_NAME] or None


def build_placeholders(issuer: str, subject: str) -> tuple[str, ...]:
    """For `users.email`, which is unique in any case, where no address was verified: the first that is free is taken.

    None is anybody's address. A subject is shown as it is if it can be neither mistaken for an address nor for another
    subject in capitals.
    """
    digest = hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()
    plain = (f"user-{subject}",) if _PLAIN_SUBJECT.fullmatch(subject) else ()
    return (*plain, f"user-{digest}")
