"""What a device remembers, in memory and in its file."""

from pathlib import Path

import pytest

from scripts.device_link.memory import Memory, load_memory


def test_credentials_and_the_last_event_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "phone.json"
    memory = load_memory(path)
    memory.note_registered("session", "token")
    assert memory.note_event(2**53 - 1)
    memory.save()
    assert load_memory(path) == Memory(path, "session", "token", 2**53 - 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "token" not in repr(memory)


def test_without_credentials_the_last_event_stays(tmp_path: Path) -> None:
    path = tmp_path / "phone.json"
    memory = Memory(path, "session", "token", 7)
    memory.forget_credentials()
    assert load_memory(path) == Memory(path, None, None, 7)


def test_the_largest_event_counts() -> None:
    memory = Memory()
    assert [memory.note_event(one) for one in (5, 4, 5, 6)] == [True, False, False, True]
    assert memory.last_event_id == 6


@pytest.mark.parametrize("text", ["", "{", '{"sessionId": 5}'])
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "phone.json"
    path.write_text(text)
    assert load_memory(path) == Memory(path)
