"""The version is said in two places, which agree."""

import tomllib
from pathlib import Path

from server.version import VERSION

PROJECT = Path(__file__).resolve().parent.parent.parent


def test_the_version_is_that_of_the_project() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"] == VERSION
