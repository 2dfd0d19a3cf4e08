"""The journal of running calls: what outlives `kill -9`, who may read it, and what is no journal at all."""

import json
import os
import struct
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import storage.journal
from proxy.events import Usage
from storage.journal import Journal, JournalUnusable, Progress, count_running, find_journals, open_journal, read_orphan
from tests.storage.journals import journal_process, leave_journal

BIGGEST = 2**64 - 1
CALLS = [
    Progress(UUID(int=1)),
    Progress(UUID(int=2), True),
    Progress(UUID(int=3), True, True, *range(1, 11)),
    Progress(UUID(int=2**128 - 1), True, False, *[BIGGEST] * 10),
]


def read(path: Path) -> list[Progress]:
    with read_orphan(path) as progress:
        return progress


def begin(journal: Journal, progress: Progress) -> storage.journal.Slot:
    slot = journal.open_slot(progress.hold_id)
    slot.note(progress.accepted, progress.reported, progress)
    return slot


# Dying


def test_what_was_noted_outlives_a_kill(tmp_path: Path) -> None:
    leave_journal(tmp_path, CALLS)
    (path,) = find_journals(tmp_path)
    assert read(path) == CALLS
    assert find_journals(tmp_path) == []


def test_the_journal_of_one_who_lives_is_no_orphan(tmp_path: Path) -> None:
    with journal_process(tmp_path, CALLS):
        (path,) = find_journals(tmp_path)
        assert read(path) == []
        assert path.exists()
    assert read(path) == CALLS


def test_ones_own_journal_is_no_orphan(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        slot = begin(journal, CALLS[2])
        (path,) = find_journals(tmp_path)
        assert read(path) == []
        assert path.exists()
        assert journal.running() == [CALLS[2]]
        slot.clear()


def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    with journal_process(tmp_path, []) as process:
        assert len(find_journals(tmp_path)) == 1
        process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_an_end_with_calls_still_running_leaves_them(tmp_path: Path) -> None:
    with journal_process(tmp_path, CALLS) as process:
        process.communicate()
    (path,) = find_journals(tmp_path)
    assert read(path) == CALLS


# Reading what was left


def test_there_is_a_place_for_every_bucket_of_usage() -> None:
    members = {field.name for field in fields(Progress)}
    assert members - {"hold_id", "accepted", "reported"} == {field.name for field in fields(Usage)}


def test_what_older_code_left_is_read_in_its_own_layout(tmp_path: Path) -> None:
    slot = struct.Struct("<16s??6xQQQQQ")
    path = tmp_path / "1-abc.journal"
    taken = slot.pack(UUID(int=7).bytes, True, False, 1, 2, 3, 4, 5)
    path.write_bytes(bytes(slot.size) + taken + bytes(10 * slot.size))
    assert find_journals(tmp_path) == [path]
    assert read(path) == [Progress(UUID(int=7), True, False, 1, 2, 3, 4, 5)]
    assert find_journals(tmp_path) == []


def test_older_code_and_ours_do_not_take_each_others_files(tmp_path: Path) -> None:
    """They look for `*.journal`; and what newer code leaves, in a layout that we do not know, is left alone."""
    leave_journal(tmp_path, CALLS)
    (tmp_path / "2.journal-3").write_bytes(b"x" * 1000)
    assert list(tmp_path.glob("*.journal")) == []
    assert [path.suffix for path in find_journals(tmp_path)] == [".journal-2"]


def test_of_two_readers_one_gets_it(tmp_path: Path) -> None:
    leave_journal(tmp_path, CALLS)
    (path,) = find_journals(tmp_path)
    with read_orphan(path) as first, read_orphan(path) as second:
        assert (first, second) == (CALLS, [])
    assert read(path) == []


def test_one_who_found_it_just_before_it_was_removed_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is open already when the first reader ends and lets go of the lock."""
    leave_journal(tmp_path, CALLS)
    (path,) = find_journals(tmp_path)
    lock = storage.journal._lock_nowait
    others = []

    def read_before_locking(file: object) -> bool:
        monkeypatch.undo()
        others.append(read(path))
        return lock(file)  # type: ignore[arg-type] # the file that came in

    monkeypatch.setattr(storage.journal, "_lock_nowait", read_before_locking)
    assert read(path) == []
    assert others == [CALLS]


def test_what_could_not_be_used_stays_for_another_try(tmp_path: Path) -> None:
    leave_journal(tmp_path, CALLS)
    (path,) = find_journals(tmp_path)
    with suppress(ValueError), read_orphan(path):
        raise ValueError
    assert read(path) == CALLS


def test_a_journal_that_vanished_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "gone.journal") == []


@given(content=st.binary(max_size=500) | st.binary(min_size=64, max_size=64).map(lambda slot: slot * 3))
def test_whatever_a_file_holds_can_be_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("torn") / "1.journal"
    path.write_bytes(content)
    for progress in read(path):
        assert Progress.from_json(progress.hold_id, json.loads(progress.as_json())) == progress
    assert not path.exists()


def test_what_is_no_file_or_not_ours_is_left_alone(tmp_path: Path) -> None:
    folder, pipe = tmp_path / "1.journal", tmp_path / "2.journal"
    folder.mkdir()
    os.mkfifo(pipe)
    assert read(folder) == []
    assert read(pipe) == []
    assert find_journals(tmp_path) == [folder, pipe]


def test_a_file_of_somebody_else_charges_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_journal(tmp_path, CALLS)
    (path,) = find_journals(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert read(path) == []
    assert path.exists()


def test_one_that_died_before_it_was_ready_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "1-abc.new").write_bytes(b"x")
    assert find_journals(tmp_path) == []


@pytest.mark.parametrize("state", [{}, {"accepted": 1}, {"output_tokens": BIGGEST, "unknown": 1}])
def test_a_state_that_lacks_members_is_read(state: dict[str, int]) -> None:
    progress = Progress.from_json(UUID(int=1), state)
    assert progress.accepted == bool(state.get("accepted"))
    assert progress.output_tokens == state.get("output_tokens", 0)


# Counting


def test_the_running_calls_of_all_workers_of_a_server_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_as_worker() -> int:
        return 4711

    monkeypatch.setattr(storage.journal, "_find_server", start_as_worker)
    with open_journal(tmp_path) as first, open_journal(tmp_path) as second:
        slots = [begin(first, Progress(uuid4(), True)) for _ in range(300)] + [begin(second, call) for call in CALLS]
        assert count_running(tmp_path) == 300 + len(CALLS)
        for slot in slots[:-1]:
            slot.clear()
        assert count_running(tmp_path) == 1
        slots[-1].clear()
        assert count_running(tmp_path) == 0
    assert count_running(tmp_path) == 0


def test_the_calls_of_another_server_beside_ours_are_not_counted(tmp_path: Path) -> None:
    with journal_process(tmp_path, CALLS), open_journal(tmp_path) as journal:
        slot = begin(journal, CALLS[0])
        assert count_running(tmp_path) == 1
        slot.clear()


def test_the_calls_that_a_dead_worker_left_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_journal(tmp_path, CALLS)
    (path,) = find_journals(tmp_path)
    monkeypatch.setattr(storage.journal, "_find_server", lambda: int(path.name.partition("-")[0]))
    assert count_running(tmp_path) == 0
    assert read(path) == CALLS


# Slots


def test_running_calls_are_known_until_they_are_cleared(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        slots = [begin(journal, call) for call in CALLS]
        assert journal.running() == CALLS
        slots[1].clear()
        slots[1].clear()
        slots[1].note(True, True, CALLS[2])
        assert journal.running() == [CALLS[0], *CALLS[2:]]
        for slot in slots:
            slot.clear()
        assert journal.running() == []


def test_a_slot_is_used_again(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for _ in range(3):
            begin(journal, CALLS[3]).clear()
        slot = journal.open_slot(UUID(int=9))
        assert journal.running() == [Progress(UUID(int=9))]
        slot.clear()


def test_when_the_slots_run_out_a_call_runs_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.journal, "_SLOTS", 2)
    with open_journal(tmp_path) as journal:
        slots = [begin(journal, Progress(uuid4(), True)) for _ in range(3)]
        assert len(journal.running()) == 2
        for slot in slots:
            slot.clear()
        assert journal.running() == []
        begin(journal, CALLS[2])
        assert journal.running() == [CALLS[2]]


def test_what_could_not_be_settled_is_kept_apart_until_it_is_handed_over(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        slots = [begin(journal, call) for call in CALLS]
        slots[2].leave()
        slots[2].leave()
        slots[2].clear()
        assert journal.running() == [*CALLS[:2], CALLS[3]]
        assert journal.left_behind() == [CALLS[2]]
        journal.forget(journal.left_behind())
        assert journal.left_behind() == []
        assert journal.running() == [*CALLS[:2], CALLS[3]]
        for slot in slots:
            slot.clear()
    assert list(tmp_path.iterdir()) == []


# The folder


def test_the_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with open_journal(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalUnusable, match=r"JOURNAL_FOLDER .*file"), open_journal(tmp_path / "file"):
        raise AssertionError
