"""The ids of tool calls that were made elsewhere, where a provider bounds their length."""

from hashlib import sha256


def fit_call_id(id_: str, max_chars: int | None) -> str:
    """The id itself, or a short one made of it, which is the same for the call and for its answer."""
    if max_chars is None or len(id_) <= max_chars:
        return id_
    return f"call_{sha256(id_.encode()).hexdigest()[:32]}"
