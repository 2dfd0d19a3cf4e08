"""Every command from nothing, as a shell starts it. The other tests start them with their imports done."""

import os
import subprocess
import sys

import pytest

from scripts.environment import PROJECT

USAGE = "usage: python -m scripts."


@pytest.mark.parametrize(
    ("command", "said"),
    [
        *((command, f"{USAGE}{command} ") for command in ("audit", "reconcile", "seed", "sign_in", "token")),
        ("migrate", "DATABASE_OWNER_URL (or DATABASE_URL) is missing"),
    ],
)
def test_a_command_starts_from_nothing_and_imports_without_a_warning(command: str, said: str) -> None:
    argv = [sys.executable, "-W", "error", "-m", f"scripts.{command}", "--help"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert (done.stdout + done.stderr).startswith(said)
