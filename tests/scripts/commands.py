"""Commands of scripts/ in processes of their own, as somebody would type them."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

import trio

from scripts.environment import PROJECT
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


@asynccontextmanager
async def open_command(module: str, *arguments: str) -> AsyncIterator[trio.Process]:
    """One to talk with, from nothing. Nothing is inherited but PATH. Killed at the end, should it still run."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", "-m", f"scripts.{module}", *arguments],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
