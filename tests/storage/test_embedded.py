"""The private PostgreSQL and Redis: they start, end, survive kill -9, and leave nothing behind."""

import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import coredis
import psutil  # type: ignore[import-untyped]  # ships no types
import psycopg
import pytest

from storage.embedded import (
    EmbeddedServers,
    remove_servers,
    running_servers,
    start_servers,
    stop_servers,
    temporary_servers,
)
from storage.embedded_home import LocalServersUnavailable


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    """One data folder for all tests that leave it as they found it: making a database takes most of a second."""
    yield from _new_folder()


@pytest.fixture
def folder() -> Iterator[Path]:
    yield from _new_folder()


def _new_folder() -> Iterator[Path]:
    folder = Path(tempfile.gettempdir()) / f"cloche-test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield folder
    finally:
        remove_servers(folder)


def _is_alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def _ask(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def _write(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def test_the_server_role_owns_nothing_and_inherits_nothing(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        with psycopg.connect(servers.database_url) as connection:
            row = connection.execute(
                "SELECT current_user, rolsuper, rolinherit FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            assert row == ("cloche_server", False, False)
            connection.execute("SET ROLE cloche_request")
            connection.execute("SET ROLE cloche_operator")
        assert _ask(servers.owner_database_url, "SELECT current_database()") == "cloche"
        inherits = "SELECT bool_or(inherit_option) FROM pg_auth_members WHERE member = 'cloche_server'::regrole"
        assert _ask(servers.owner_database_url, inherits) is False


async def test_coredis_reaches_redis_by_the_url(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        async with coredis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            await client.set("greeting", "hello")
            assert await client.get("greeting") == "hello"


async def test_redis_wants_its_password(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        scheme, _, address = servers.redis_url.partition("://")
        nameless = f"{scheme}://{address.partition('@')[2]}"
        async with coredis.Redis.from_url(nameless) as client:
            with pytest.raises(coredis.exceptions.AuthenticationRequiredError):
                await client.ping()


def test_starting_twice_finds_the_same_servers(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        assert start_servers(shared_folder, durable=False) == servers


def test_two_starts_at_once_make_one_pair_of_servers(folder: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        found: set[EmbeddedServers] = set(threads.map(lambda _: start_servers(folder, durable=False), range(4)))
    assert len(found) == 1


async def test_what_was_written_is_there_after_stop_and_start(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        _write(servers.owner_database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        async with coredis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            await client.set("kept", "42")
    with running_servers(shared_folder, durable=False) as servers:
        assert _ask(servers.owner_database_url, "SELECT answer FROM kept") == 42
        async with coredis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
            assert await client.get("kept") == "42"


def test_stopping_waits_until_both_have_ended(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        assert _is_alive(servers.postgres_pid)
        assert _is_alive(servers.redis_pid)
    assert not _is_alive(servers.postgres_pid)
    assert not _is_alive(servers.redis_pid)
    stop_servers(shared_folder)


def test_commits_survive_kill_nine(folder: Path) -> None:
    first = start_servers(folder)
    _write(first.owner_database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(first.postgres_pid, signal.SIGKILL)
    os.kill(first.redis_pid, signal.SIGKILL)
    second = start_servers(folder)
    assert second.postgres_pid != first.postgres_pid
    assert _ask(second.owner_database_url, "SELECT answer FROM kept") == 42


def test_a_backend_that_outlives_its_postmaster_is_ended_by_the_next_start(shared_folder: Path) -> None:
    first = start_servers(shared_folder, durable=False)
    backends: SimpleQueue[int] = SimpleQueue()

    def stay_busy() -> None:
        with psycopg.connect(first.owner_database_url) as connection:
            backends.put(connection.info.backend_pid)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT count(*) FROM generate_series(1, 200000000)")
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(stay_busy)
        backend = backends.get(timeout=10)
        os.kill(first.postgres_pid, signal.SIGKILL)
        with running_servers(shared_folder, durable=False) as second:
            assert not _is_alive(backend)
            assert _ask(second.database_url, "SELECT 1") == 1
        busy.result(30)


def test_a_stranger_with_the_pid_in_the_lock_file_does_not_block_the_start(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False):
        pass
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (shared_folder / "postgres" / "postmaster.pid").write_text(f"{stranger.pid}\n{shared_folder}/postgres\n")
        with running_servers(shared_folder, durable=False) as servers:
            assert _ask(servers.database_url, "SELECT 1") == 1
        stranger.kill()


def test_an_interrupted_first_start_is_begun_anew(folder: Path) -> None:
    with running_servers(folder, durable=False):
        pass
    (folder / "postgres").rename(folder / "postgres.new")
    (folder / "postgres.new" / "PG_VERSION").unlink()
    with running_servers(folder, durable=False) as servers:
        assert _ask(servers.database_url, "SELECT 1") == 1


def test_data_of_another_version_is_refused_with_its_reason_and_nothing_stays_up(folder: Path) -> None:
    with running_servers(folder, durable=False) as servers:
        pass
    (folder / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(LocalServersUnavailable, match=r"9\.6"):
        start_servers(folder, durable=False)
    assert not _is_alive(servers.redis_pid)
    assert not _processes_naming(folder)


def test_if_one_cannot_start_the_other_does_not_stay_up(folder: Path) -> None:
    with running_servers(folder, durable=False):
        pass
    (folder / "redis" / "dump.rdb").write_text("this is no dump")
    with pytest.raises(LocalServersUnavailable, match=r"redis\.log"):
        start_servers(folder, durable=False)
    assert not _processes_naming(folder)


def test_the_servers_are_in_sessions_of_their_own_and_nobody_s_children(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        for pid in (servers.postgres_pid, servers.redis_pid):
            assert os.getsid(pid) != os.getsid(0)
            assert psutil.Process(pid).ppid() != os.getpid()


def test_both_listen_on_sockets_in_a_folder_for_their_account_alone(shared_folder: Path) -> None:
    with running_servers(shared_folder, durable=False) as servers:
        sockets = Path(servers.redis_url.partition("@")[2]).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        for pid in (servers.postgres_pid, servers.redis_pid):
            assert psutil.Process(pid).net_connections("inet") == []


def test_a_path_too_long_for_a_socket_or_with_spaces_is_no_obstacle(folder: Path) -> None:
    deep = folder / "with spaces, ünd 'quotes\"" / ("x" * 120)
    folder.mkdir()
    folder.chmod(0o755)
    deep.parent.mkdir()
    deep.parent.chmod(0o755)
    with running_servers(deep, durable=False) as servers:
        assert _ask(servers.database_url, "SELECT 1") == 1
        sockets = Path(servers.redis_url.partition("@")[2]).parent
        assert sockets.exists()
    assert not sockets.exists()
    remove_servers(deep)


def test_a_closed_folder_above_stays_closed(folder: Path) -> None:
    """Root's servers run as another account, which cannot pass: they live elsewhere then, and come back to it."""
    folder.mkdir(mode=0o700)
    data = folder / "data"
    before = _modes(folder)
    with running_servers(data, durable=False) as servers:
        _write(servers.owner_database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert (data / "elsewhere").exists() == (os.geteuid() == 0)
    with running_servers(data, durable=False) as servers:
        assert _ask(servers.owner_database_url, "SELECT answer FROM kept") == 42
    assert _modes(folder) == before
    place = Path((data / "elsewhere").read_text().strip()) if (data / "elsewhere").exists() else data
    remove_servers(data)
    assert not place.exists()
    assert not data.exists()


def test_temporary_servers_leave_nothing() -> None:
    with temporary_servers() as servers:
        assert _ask(servers.database_url, "SHOW fsync") == "off"
        home = Path(servers.redis_url.partition("@")[2]).parent.parent
        assert home.exists()
    assert not home.exists()
    assert not _is_alive(servers.postgres_pid)


def test_what_a_killed_test_run_left_behind_is_cleared_by_the_next() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    leftover = Path(tempfile.gettempdir()) / f"cloche-test-{ended.pid}-{secrets.token_hex(4)}"
    left = start_servers(leftover, durable=False)
    with temporary_servers():
        assert not _is_alive(left.postgres_pid)
        assert not leftover.exists()


def test_the_servers_do_commit_to_disk_unless_told_otherwise(shared_folder: Path) -> None:
    with running_servers(shared_folder) as servers:
        assert _ask(servers.database_url, "SHOW fsync") == "on"
        assert _ask(servers.database_url, "SHOW synchronous_commit") == "on"


def _modes(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mode, path.stat().st_uid) for path in (folder, *folder.parents)}


def _processes_naming(folder: Path) -> list[int]:
    processes = psutil.process_iter(["cmdline"])
    return [process.pid for process in processes if any(str(folder) in word for word in process.info["cmdline"] or ())]
