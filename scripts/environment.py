"""The settings of a development server: what ./scripts/run has written down, so that other commands find it."""

import os
import stat
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """Where ./scripts/run keeps its data: CLOCHE_DATA, else .data in the project."""
    return Path(os.environ.get("CLOCHE_DATA") or PROJECT / ".data").absolute()


def read_environment() -> dict[str, str]:
    """This process's environment, completed by what ./scripts/run has written down. What is set (not empty) wins."""
    given = {name: value for name, value in os.environ.items() if value}
    return read_settings(data_folder()) | given


def read_settings(folder: Path) -> dict[str, str]:
    """The written settings alone; none if there is no file, or if anybody but us could have written or read it."""
    path = folder / "environment"
    if not path.is_file() or not _is_private(path):
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name: value for name, _, value in pairs}


def write_settings(folder: Path, settings: dict[str, str]) -> None:
    """Replace the file at once. It holds secrets: only we may read it. Values have no line breaks."""
    draft = folder / "environment.new"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in settings.items())
    draft.replace(folder / "environment")


def _is_private(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
