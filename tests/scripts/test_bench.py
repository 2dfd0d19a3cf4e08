"""scripts/bench.py: that it measures, that what it counts is right, and that it leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from scripts.bench import MEASUREMENTS
from scripts.benchmark.answers import END, EVENT_BYTES, FIRST_TOKEN, START, STREAM_HEAD, TEXT, WHOLE, WHOLE_STREAM
from scripts.benchmark.calls import BenchFailed, Call, Target
from scripts.benchmark.devices import BINARY, PING, build_frame, take_frames
from scripts.benchmark.devices import TEXT as TEXT_FRAME
from scripts.benchmark.figures import Reading, as_table, build_figures, percentile
from scripts.benchmark.reactor import Reactor
from scripts.benchmark.relay import find_text
from scripts.benchmark.stage import open_folder
from scripts.benchmark.wishes import Wish, read_wish
from scripts.environment import PROJECT
from server.websocket_frames import build_binary, build_ping, build_text
from storage.embedded import remove_servers

END_TIMEOUT_SECONDS = 60.0
PAYLOADS = (b"", b"{}", b"x" * 126, b"x" * 70_000)
MAY_BE_ZERO = {"server waited for its core", "streams cut before the provider was called", "memory per idle stream",
               "memory per idle device"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    process: subprocess.Popen[str]

    def left_behind(self) -> list[psutil.Process]:
        """Whatever shares its session, or serves its stores."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def children(self) -> list[psutil.Process]:
        return [process for process in self.left_behind() if process.pid != self.process.pid]

    def store_folders(self) -> list[Path]:
        return list(Path(tempfile.gettempdir()).glob(f"cloche-test-{self.process.pid}-*"))

    def folders(self) -> list[Path]:
        return [*self.store_folders(), *Path(tempfile.gettempdir()).glob(f"cloche-bench-{self.process.pid}-*")]

    def wait_for_server(self) -> None:
        """Until the first measurement begins."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("run 1 of 1"):
                return
        raise AssertionError("it ended before it had measured anything")

    def end_stores(self) -> None:
        for folder in self.store_folders():
            remove_servers(folder)

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            is_store = any(f"cloche-test-{self.process.pid}-" in word for word in process.cmdline())
            in_session = os.getsid(process.pid) == self.process.pid
            return process.status() != psutil.STATUS_ZOMBIE and (is_store or in_session)
        return False


@contextmanager
def open_bench(*arguments: str) -> Iterator[Bench]:
    """In a session of its own, which ends with the block."""
    argv = [sys.executable, "-m", "scripts.bench", "--quick", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=PROJECT, text=True, stdout=pipe, stderr=pipe, start_new_session=True) as process:  # noqa: S603  # our own
        bench = Bench(process)
        try:
            yield bench
        finally:
            process.kill()
            bench.end_stores()
            for left in bench.children():
                left.kill()


@dataclass(frozen=True, slots=True)
class Measured:
    record: dict[str, Any]
    output: str
    left_behind: list[psutil.Process]
    folders: list[Path]

    def figures(self) -> dict[str, dict[str, Any]]:
        return {figure["name"]: figure for figure in self.record["figures"]}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    with open_bench("--json", str(path)) as bench:
        output, errors = bench.process.communicate(timeout=300)
        assert bench.process.returncode == 0, errors
        return Measured(json.loads(path.read_text()), output, bench.left_behind(), bench.folders())


def test_a_quick_run_measures_everything_beside_a_direct_connection(measured: Measured) -> None:
    figures = measured.figures()
    for name in ("first token p50, 1 stream", "first token p99, 3 streams", "streamed events, saturated",
                 "streamed events, each its own write", "whole answers",
                 "client's close to provider's close p50", "client's close to provider's close p99"):  # fmt: skip
        figure = figures[name]
        assert figure["direct"] > 0
        assert figure["added"] == pytest.approx(figure["cloche"] - figure["direct"])
        assert figure["cloche_runs"] == [figure["cloche"]]
    assert "memory per idle stream" in figures
    for name in ("memory per idle device", "relayed calls, 1 pair, 100 calls/s: p50", "relayed calls, 3 pairs",
                 "relayed calls, 3 pairs on two servers: p99", "relayed events, 3 pairs",
                 "relayed calls, 3 pairs, 20 calls/s: p99",
                 "relayed terminal"):  # fmt: skip
        assert figures[name]["direct"] is None
    assert measured.record["runs"] == 1
    assert "core" in measured.record["pinning"]
    assert isinstance(measured.record["was_disturbed"], bool)


def test_all_figures_are_positive_and_in_the_table(measured: Measured) -> None:
    for name, figure in measured.figures().items():
        is_short = name.startswith("relayed") and name.endswith("server CPU")  # which is counted in hundredths
        assert figure["cloche"] > 0 or name in MAY_BE_ZERO or is_short
        assert f"{name}  " in measured.output


def test_every_call_is_settled_in_the_end(measured: Measured) -> None:
    assert measured.record["calls_settled"] > 0
    assert measured.record["calls_still_held"] == 0


def test_it_leaves_nothing_behind(measured: Measured) -> None:
    assert measured.left_behind == []
    assert measured.folders == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_it_leaves_nothing_behind(number: signal.Signals, status: int) -> None:
    with open_bench("--only", "first_token") as bench:
        bench.wait_for_server()
        assert len(bench.children()) >= 4
        bench.process.send_signal(number)
        assert bench.process.wait(END_TIMEOUT_SECONDS) == status
        assert bench.left_behind() == []
        assert bench.folders() == []


def test_killed_it_takes_the_server_and_the_provider_along() -> None:
    with open_bench("--only", "first_token") as bench:
        bench.wait_for_server()
        served = [process for process in bench.children() if os.getsid(process.pid) == bench.process.pid]
        assert len(served) == 2
        bench.process.kill()
        bench.process.wait()
        _, alive = psutil.wait_procs(served, END_TIMEOUT_SECONDS)
        assert alive == []
        (left,) = Path(tempfile.gettempdir()).glob(f"cloche-bench-{bench.process.pid}-*")
        with open_folder() as folder:
            assert folder.is_dir()
            assert not left.exists()
        assert not folder.exists()


def test_a_measurement_that_does_not_exist_is_refused_by_name() -> None:
    argv = [sys.executable, "-m", "scripts.bench", "--only", "luck"]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603  # our own
    assert done.returncode == 2
    assert all(name in done.stderr for name in MEASUREMENTS)


def test_a_wish_survives_the_prompt() -> None:
    wish = Wish("paced", 17, 80, 50_000)
    assert read_wish(f'{{"content":"How are you? {wish.as_text()}"}}'.encode()) == wish
    assert read_wish(b'{"content":"How are you?"}') is None


def test_a_streamed_event_has_the_length_that_is_common() -> None:
    assert len(TEXT.split(b"\r\n")[1]) == EVENT_BYTES == int(TEXT.split(b"\r\n")[0], 16)


def receive(answer: bytes, split: int) -> Call:
    """A call whose answer comes in two pieces, after which the connection ends."""
    ended: list[Call] = []
    with socket.create_server(("127.0.0.1", 0)) as listening, closing(Reactor()) as reactor:
        target = Target("test", listening.getsockname()[1], "m", ({},))
        call = Call(reactor, target, b"?", ended.append)
        connected, _ = listening.accept()
        with closing(call), connected:
            connected.sendall(answer[:split])
            reactor.run(lambda: call.received_bytes >= split, 5)
            connected.sendall(answer[split:])
            reactor.run(lambda: call.received_bytes == len(answer), 5)
            connected.shutdown(socket.SHUT_WR)
            reactor.run(lambda: bool(ended), 5)
    assert ended == [call]
    return call


def test_events_and_ends_are_found_however_an_answer_is_split() -> None:
    answer = STREAM_HEAD + START + TEXT + END
    for split in range(len(STREAM_HEAD), len(answer)):
        call = receive(answer, split)
        assert call.events == answer.count(b"\n\n")
        assert call.first_at > 0


def test_a_whole_answer_ends_with_its_length() -> None:
    call = receive(WHOLE, len(WHOLE) - 5)
    assert call.first_at > 0
    assert FIRST_TOKEN in WHOLE
    assert receive(WHOLE_STREAM, len(STREAM_HEAD)).events == 5


def test_a_refusal_and_an_answer_that_breaks_off_are_no_measurement() -> None:
    with pytest.raises(BenchFailed, match="402 Payment"):
        receive(b"HTTP/1.1 402 Payment Required\r\nContent-Length: 0\r\n\r\n", 0)
    with pytest.raises(BenchFailed, match="broke off"):
        receive(STREAM_HEAD + START, 0)


def test_figures_are_medians_and_know_their_aims() -> None:
    runs = [Reading("whole answers", "requests/s", cloche, 10_000.0) for cloche in (290.0, 310.0, 900.0)]
    figure, plain = build_figures([*runs, Reading("memory before", "MiB", 80.0)])
    assert (figure.cloche, figure.direct, figure.added, figure.is_met) == (310.0, 10_000.0, -9_690.0, True)
    assert (plain.direct, plain.added, plain.aim, plain.is_met) == (None, None, None, None)
    slow = build_figures([Reading("first token p50, 200 streams", "ms", 14.0, 3.0)])
    assert slow[0].is_met is False
    assert "added at most 10, MISSED" in as_table(slow)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(number) for number in range(1, 101)], 99) == 99.0
    assert percentile([5.0], 99) == 5.0


def test_frames_of_devices_are_found_however_they_are_split() -> None:
    frames = b"".join(build(payload) for payload in PAYLOADS for build in (build_text, build_ping, build_binary))
    whole = [(opcode, payload) for payload in PAYLOADS for opcode in (TEXT_FRAME, PING, BINARY)]
    for split in (*range(300), len(frames) - 1):
        received, found = bytearray(frames[:split]), []
        found += take_frames(received)
        received += frames[split:]
        assert found + take_frames(received) == whole
        assert not received


def test_a_devices_frames_are_masked_by_zeros() -> None:
    for payload in PAYLOADS:
        frame = build_frame(TEXT_FRAME, payload)
        masked = bytearray(build_text(payload))
        masked[1] |= 0x80
        at = len(masked) - len(payload)
        assert frame == bytes(masked[:at]) + bytes(4) + payload


def test_an_answer_is_the_callers() -> None:
    asked = b'{"type":"rpc.request","payload":{"id":"17","method":"x","params":{},"clientId":"c","userId":"u"}}'
    assert (find_text(asked, b"id"), find_text(asked, b"clientId")) == (b"17", b"c")
