"""Events in the shapes that Stripe documents; README.md says after which pages they were written."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
USER_ID, PURCHASE_ID = "7d1f3f0c-2a55-4a1e-9c64-0f6f2b8a9d10", "c0ffee00-5b1e-4c7a-8f0e-3d9a7e51b2c4"
"""Of the order in all of them: 10.00 with 2.00 of fee, and 0.83 of tax on top."""


def read_payload(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def read_json(name: str) -> Any:
    return json.loads(read_payload(name))
