"""Autobahn's cases for WebSocket servers, played by a program that nobody here wrote, against an echo behind ours.

The suite itself needs Python 2; kosoku runs its case files: https://github.com/curioswitch/kosoku. What the cases are:
https://github.com/crossbario/autobahn-testsuite. 12 and 13 are about compression, which we never agree to; 9 are long
messages. `NON-STRICT` is what the standard allows: an echo that the client's next frame, a fault, overtakes.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.server.fixes_client import serve

COMPRESSION = ("12.*", "13.*")
FINE = {"OK", "NON-STRICT", "INFORMATIONAL"}
PATIENCE_SECONDS = 60
SOAK_SECONDS = 600


async def play(folder: Path, address: tuple[str, int], *options: str) -> Mapping[str, Any]:
    """The result of each case."""
    program = Path(sys.executable).with_name("kosoku")
    command = [str(program), "{}:{}".format(*address), "--outdir", str(folder), *options]
    await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    (results,) = json.loads(await trio.Path(folder / "index.json").read_text()).values()
    return results  # type: ignore[no-any-return] # by case


async def check(folder: Path, number: int, *options: str) -> None:
    with serve(folder) as served:
        results = await play(folder / "report", served.address, *options)
        assert await is_quiet(served.log)
    found = {case: (result["behavior"], result["behaviorClose"]) for case, result in results.items()}
    assert {case: said for case, said in found.items() if not FINE.issuperset(said)} == {}
    assert len(found) == number


async def is_quiet(log: Path) -> bool:
    return "Traceback" not in await trio.Path(log).read_text()


async def test_autobahn_finds_no_fault_with_frames_pings_fragments_text_and_closes(tmp_path: Path) -> None:
    skipped = [word for case in (*COMPRESSION, "9.*") for word in ("--exclude", case)]
    with trio.fail_after(PATIENCE_SECONDS):
        await check(tmp_path, 247, "--parallelism", "16", *skipped)


@pytest.mark.soak
async def test_autobahn_finds_no_fault_with_anything_but_compression(tmp_path: Path) -> None:
    skipped = [word for case in COMPRESSION for word in ("--exclude", case)]
    with trio.fail_after(SOAK_SECONDS):
        await check(tmp_path, 301, *skipped)
