"""What clients decode when something went wrong: one envelope for the shipped ones, and OpenAI's error object."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType


class ErrorEnvelope(msgspec.Struct, rename={"error_type_camel": "errorType", "error_details_camel": "errorDetails"}):
    """Both spellings: the desktop reads snake_case, iOS camelCase. A 401 also has `error`, which older clients search.
    `code` is the HTTP status.
    """

    code: int
    message: str
    error_type: str
    error_type_camel: str
    error: str | UnsetType = UNSET
    error_details: Mapping[str, object] | UnsetType = UNSET
    error_details_camel: Mapping[str, object] | UnsetType = UNSET


class OpenAiErrorDetail(msgspec.Struct):
    """`code` is the word that programs branch on, OpenAI's own where it has one."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAiError(msgspec.Struct):
    error: OpenAiErrorDetail
