"""The calls that wait: each is answered once, whatever the order of answers, losses, returns and deadlines."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import server.relay.call_table
from server.relay.call_frames import OFFLINE, TOO_LATE
from server.relay.call_table import ANSWER_SECONDS, GRACE_SECONDS, MAX_PENDING, MISSED_SECONDS, Call, CallTable, Desktop
from tests.server.relay.call_town import ANN, DESK, OTHER_DESK

PHONE_SOCKET, OTHER_SOCKET = uuid4(), uuid4()


def build_desktop(device_id: UUID = DESK, instance: str = "here") -> Desktop:
    return Desktop(device_id, uuid4(), instance)


def add(
    table: CallTable,
    desktop: Desktop,
    call_id: str = "c-1",
    key: str | None = None,
    *,
    now: float = 0,
    frame: bytes = b"frame",
    is_ping: bool = False,
    caller_id: UUID = PHONE_SOCKET,
) -> Call:
    ends_at = now + ANSWER_SECONDS
    call = Call(table.next_serial(), ANN, caller_id, call_id, desktop, key, is_ping, ends_at)
    table.add(call, frame)
    return call


def answer(table: CallTable, call_id: str = "c-1", *, now: float = 1, is_final: bool = True) -> bool:
    return table.answer(PHONE_SOCKET, call_id, DESK, now, is_final=is_final)


def test_a_call_that_was_answered_waits_no_more() -> None:
    table = CallTable()
    add(table, build_desktop())
    assert answer(table)
    assert not len(table)
    assert not table.expire(10 * ANSWER_SECONDS)


def test_calls_expire_in_the_order_in_which_their_desktops_spoke_last() -> None:
    table, desktop = CallTable(), build_desktop()
    first, second = add(table, desktop, "c-1", now=0), add(table, desktop, "c-2", now=1)
    assert answer(table, "c-1", now=2, is_final=False)
    assert table.next_at == ANSWER_SECONDS + 1
    assert table.expire(ANSWER_SECONDS + 1) == {second: TOO_LATE}
    assert table.expire(ANSWER_SECONDS + 2) == {first: TOO_LATE}


def test_a_grace_does_not_outlive_a_call() -> None:
    table, desktop = CallTable(), build_desktop()
    call = add(table, desktop, key="k")
    table.lose(desktop.connection_id, ANSWER_SECONDS - 1)
    assert table.expire(ANSWER_SECONDS) == {call: OFFLINE}
    assert not table.lost


def test_the_ids_of_failed_calls_that_are_remembered_are_bounded() -> None:
    table = CallTable()
    for number in range(MAX_PENDING + 1):
        table.fail(add(table, build_desktop(), str(number)))
    assert answer(table, "0")
    assert not answer(table, "1")


def test_an_id_that_is_used_again_is_answered_again() -> None:
    table, desktop = CallTable(), build_desktop()
    table.fail(add(table, desktop))
    add(table, desktop)
    assert answer(table)
    assert not answer(table), "the late one"


def test_what_the_desktop_never_got_is_sent_without_a_key() -> None:
    table, old, new = CallTable(), build_desktop(), build_desktop()
    call = add(table, old)
    assert table.miss(call.serial, old.connection_id, b"back", 0) is None
    assert table.meet(ANN, new, 0).again == [(call, b"back")]
    table.lose(new.connection_id, 1)
    assert table.meet(ANN, build_desktop(), 1).failed == [call]
    assert not table.kept_bytes


def test_what_a_connection_has_missed_is_not_sent_to_it_at_once() -> None:
    table, desktop = CallTable(), build_desktop()
    call = add(table, desktop)
    table.miss(call.serial, desktop.connection_id, b"back", 5)
    assert not table.meet(ANN, desktop, 4.9).again
    assert table.meet(ANN, desktop, 5).again == [(call, b"back")]
    assert table.miss(call.serial, desktop.connection_id, b"back", 5 + MISSED_SECONDS) is call


def test_a_miss_of_an_older_connection_says_nothing() -> None:
    table, old, new = CallTable(), build_desktop(), build_desktop()
    call = add(table, old, key="k")
    table.lose(old.connection_id, 0)
    assert len(table.meet(ANN, new, 0).again) == 1
    assert table.miss(call.serial, old.connection_id, b"back", GRACE_SECONDS) is None
    assert table.is_asked(call, new.connection_id)


def test_a_keyed_call_that_misses_the_new_connection_keeps_its_grace() -> None:
    table, old, new = CallTable(), build_desktop(), build_desktop()
    call = add(table, old, key="k")
    table.lose(old.connection_id, 0)
    table.meet(ANN, new, 0)
    table.miss(call.serial, new.connection_id, b"back", 1)
    assert not table.give_up(ANN, DESK)
    assert not table.expire(GRACE_SECONDS - 1)
    assert table.meet(ANN, new, 2).again == [(call, b"frame")]


def test_however_late_a_process_is_found_to_be_gone_its_desktops_are_looked_for_first() -> None:
    table, first, second = CallTable(), build_desktop(), build_desktop(OTHER_DESK)
    calls = [add(table, first, "c-1"), add(table, second, "c-2")]
    table.lose_instance("here", 50, 50 - 2 * GRACE_SECONDS)
    assert not table.expire(50 + MISSED_SECONDS)
    table.note_sought(calls[0].device_key)
    assert list(table.expire(50 + MISSED_SECONDS)) == calls[:1]
    table.note_sought(calls[0].device_key)
    table.note_sought(calls[1].device_key)
    assert list(table.expire(50 + MISSED_SECONDS)) == calls[1:]


def test_who_was_looked_for_last_comes_last() -> None:
    table, first, second = CallTable(), build_desktop(), build_desktop(OTHER_DESK)
    keys = [add(table, first, "c-1").device_key, add(table, second, "c-2").device_key]
    table.lose_instance("here", 0, 0)
    assert list(table.lost) == keys
    table.note_sought(keys[0])
    assert list(table.lost) == keys[::-1]


def test_kept_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.relay.call_table, "MAX_KEPT_BYTES_OF_USER", 10)
    table, old, new = CallTable(), build_desktop(), build_desktop()
    kept, not_kept = (add(table, old, call_id, "k", frame=b"123456") for call_id in ("c-1", "c-2"))
    assert table.kept_bytes == 6
    table.lose(old.connection_id, 0)
    met = table.meet(ANN, new, 0)
    assert ([call for call, _ in met.again], met.failed) == ([kept], [not_kept])
    answer(table)
    assert table.kept_bytes == 0


def test_bare_calls_and_pings_are_not_kept() -> None:
    table, desktop = CallTable(), build_desktop()
    add(table, desktop, "c-1")
    add(table, desktop, "c-2", "k", is_ping=True)
    assert table.kept_bytes == 0


def test_no_call_is_in_the_log_by_its_contents() -> None:
    assert "secret" not in repr(add(CallTable(), build_desktop(), key="k", frame=b"secret"))


@dataclass
class Trial:
    """Two desktops that answer each call that has reached them once, though perhaps only after they have gone; what the
    caller has been given of each call is counted.
    """

    table: CallTable = field(default_factory=CallTable)
    now: float = 0.0
    made: list[Call] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)
    finals: Counter[str] = field(default_factory=Counter)
    unanswered: list[tuple[UUID, Call]] = field(default_factory=list)
    live: dict[UUID, Desktop] = field(default_factory=dict)
    deliveries: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.live = {device_id: build_desktop(device_id) for device_id in (DESK, OTHER_DESK)}

    def call(self, device_id: UUID, is_keyed: bool, is_ping: bool, reaches: bool) -> None:
        call_id = f"c-{len(self.made)}"
        caller_id = PHONE_SOCKET if len(self.made) % 3 else OTHER_SOCKET
        desktop = self.live[device_id]
        key = call_id if is_keyed else None
        call = add(self.table, desktop, call_id, key, now=self.now, is_ping=is_ping, caller_id=caller_id)
        self.made.append(call)
        self._arrive(call, reaches)

    def answer(self, number: int, is_final: bool) -> None:
        if self.unanswered:
            device_id, call = self.unanswered[number % len(self.unanswered)]
            is_passed_on = self.table.answer(call.caller_id, call.id, device_id, self.now, is_final=is_final)
            if is_final:
                self.unanswered.remove((device_id, call))
                self.finals[call.id] += is_passed_on

    def lose(self, device_id: UUID) -> None:
        self._count(self.table.lose(self.live[device_id].connection_id, self.now))
        self.live[device_id] = build_desktop(device_id)

    def lose_instance(self) -> None:
        self._count(self.table.lose_instance("here", self.now, self.now))

    def meet(self, device_id: UUID, reaches: bool) -> None:
        met = self.table.meet(ANN, self.live[device_id], self.now)
        self._count(met.failed)
        for call, frame in met.again:
            assert frame == b"frame"
            self._arrive(call, reaches)

    def replace(self, device_id: UUID, reaches: bool) -> None:
        self.lose(device_id)
        self.meet(device_id, reaches)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._count(self.table.expire(self.now))

    def forget(self) -> None:
        self.table.forget(OTHER_SOCKET)
        self.forgotten |= {call.id for call in self.made if call.caller_id == OTHER_SOCKET}

    def give_up(self, device_id: UUID) -> None:
        self._count(self.table.give_up(ANN, device_id))

    def answer_all(self) -> None:
        while self.unanswered:
            self.answer(0, is_final=True)

    def check_end(self) -> None:
        assert {call.id: 1 for call in self.made if call.id not in self.forgotten} == {
            call_id: count for call_id, count in self.finals.items() if call_id not in self.forgotten
        }
        bare = {call.id for call in self.made if call.idempotency_key is None or call.is_ping}
        assert all(self.deliveries[call_id] <= 1 for call_id in bare), "what has no key is never carried out twice"
        table = self.table
        assert (len(table), table.kept_bytes, len(table.lost), len(table._asked)) == (0, 0, 0, 0)

    def _arrive(self, call: Call, reaches: bool) -> None:
        if reaches:
            self.deliveries[call.id] += 1
            self.unanswered.append((call.desktop.device_id, call))
        else:
            missed = self.table.miss(call.serial, call.desktop.connection_id, b"frame", self.now)
            self._count([] if missed is None else [missed])

    def _count(self, failed: Iterable[Call]) -> None:
        self.finals.update(call.id for call in failed)


DEVICES = st.sampled_from([DESK, DESK, OTHER_DESK])
MOSTLY, SELDOM = st.sampled_from([True, True, False]), st.sampled_from([False, False, True])
STEPS = st.one_of(
    st.tuples(st.just("call"), DEVICES, MOSTLY, SELDOM, MOSTLY),
    st.tuples(st.just("answer"), st.integers(0, 20), MOSTLY),
    st.tuples(st.just("lose"), DEVICES),
    st.tuples(st.just("lose_instance")),
    st.tuples(st.just("meet"), DEVICES, MOSTLY),
    st.tuples(st.just("replace"), DEVICES, MOSTLY),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 6.0, 61.0])),
    st.tuples(st.just("give_up"), DEVICES),
    st.tuples(st.just("forget")),
)


@given(st.lists(STEPS, min_size=5, max_size=40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_call_is_answered_exactly_once(steps: list[tuple[object, ...]], are_answers_late: bool) -> None:
    trial = Trial()
    for name, *args in steps:
        getattr(trial, str(name))(*args)
    if not are_answers_late:
        trial.answer_all()
    trial.wait(2 * ANSWER_SECONDS)
    trial.answer_all()
    trial.check_end()
