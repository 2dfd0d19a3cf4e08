"""Commands of scripts/ in processes of their own, as somebody would type them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile

from tests.preloaded import start_preloader

END_SECONDS = 60
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it said."""

    status: int
    output: str
    errors: str


def run_command(module: str, *arguments: str, environment: Mapping[str, str]) -> Done:
    """Nothing is inherited but PATH. Warnings are errors."""
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = start_preloader().start(
            [f"scripts.{module}", *arguments],
            {"PATH": os.environ["PATH"], **environment},
            output.fileno(),
            errors.fileno(),
            is_strict=True,
        )
        try:
            status = process.wait(END_SECONDS)
        finally:
            process.kill()
            process.wait(END_SECONDS)
        texts = [os.pread(file.fileno(), MOST_BYTES, 0).decode() for file in (output, errors)]
    return Done(status, *texts)
