"""Commands of scripts/ in processes of their own, as somebody would type them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.environment import PROJECT


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it said."""

    status: int
    output: str
    errors: str


def run_command(module: str, *arguments: str, environment: Mapping[str, str]) -> Done:
    """Nothing is inherited but PATH."""
    done = subprocess.run(  # noqa: S603 # our own commands
        [sys.executable, "-W", "error", "-m", f"scripts.{module}", *arguments],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)
