"""Where the private servers live and the account that they run as.

PostgreSQL refuses to run as root. Started by root, the servers run as the owner of existing data, else as `nobody`.
A data folder that this account cannot reach (below a home with mode 0700, say) stays as it is: the servers then live
in a folder of ours in /var/lib or the temporary folder, named in the file `elsewhere`. Programs that the account
cannot reach are copied. Nothing that we did not make changes its mode or owner.
"""

import fcntl
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]  # ships no types

from storage.errors import StorageError

# The kernel allows 107 bytes and PostgreSQL appends a name. Other characters would need quoting in three syntaxes.
PLAIN_SOCKETS_FOLDER = re.compile(r"/[A-Za-z0-9/._-]{1,85}")


class LocalServersUnavailable(StorageError):
    """The private PostgreSQL or Redis could not be started; the message names the reason and where to look."""


@dataclass(frozen=True, slots=True)
class Home:
    """A folder that we made, which holds what the servers need, and the account that they run as."""

    folder: Path
    account: pwd.struct_passwd

    def run(
        self, argv: list[str], *, stdout: int, stderr: IO[bytes] | int, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command as the servers' account, in a session of its own, where no Ctrl-C reaches it."""
        return _run(self.account, argv, stdout=stdout, stderr=stderr, pass_fds=pass_fds)

    def own_folder(self, name: str) -> Path:
        """A folder that only the servers' account may enter."""
        path = self.folder / name
        if not path.exists():
            path.mkdir(mode=0o700)
            os.chown(path, self.account.pw_uid, self.account.pw_gid)
        return path

    def write(self, name: str, text: str) -> Path:
        """Replace a file at once. Only the servers' account can read it."""
        return _write_private(self.folder / name, text, self.account)


def make_data_folder(folder: Path) -> None:
    """Make a data folder that the servers' account can walk through. One that exists stays as it is."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make_home_folder(folder)
    elif os.geteuid() not in (0, folder.stat().st_uid):
        raise LocalServersUnavailable(f"{folder} belongs to another user; name a folder of your own in CLOCHE_DATA")


@contextmanager
def locked_home(folder: Path) -> Iterator[tuple[Home, int]]:
    """The home of this data folder, made if need be, and the descriptor of a lock that its holder alone has.

    A child that inherits the descriptor prolongs the lock; the kernel drops it with its last holder.
    """
    folder = folder.absolute()
    make_data_folder(folder)
    with os.fdopen(os.open(folder / "servers.lock", os.O_RDWR | os.O_CREAT, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _choose_home(folder), lock.fileno()


def remove_home(folder: Path) -> None:
    """Delete the data folder and what lives elsewhere on its behalf. The servers must have ended."""
    note = folder / "elsewhere"
    if note.exists():
        shutil.rmtree(note.read_text().strip())
    shutil.rmtree(folder)


def choose_sockets_folder(home: Home) -> Path:
    """Beside the data, or in the temporary folder if that path would not do for a socket."""
    if PLAIN_SOCKETS_FOLDER.fullmatch(str(home.folder / "sockets")):
        return home.own_folder("sockets")
    note = home.folder / "sockets-folder"
    if note.exists() and _belongs_to(home.account, Path(note.read_text())):
        return Path(note.read_text())
    sockets = Path(tempfile.mkdtemp(prefix="cloche-", dir=_short_reachable_base(home.account)))
    os.chown(sockets, home.account.pw_uid, home.account.pw_gid)
    _write_private(note, str(sockets))
    return sockets


def remove_sockets_folder(home: Home) -> None:
    """Remove the folder that `choose_sockets_folder` made in the temporary folder, if it made one."""
    note = home.folder / "sockets-folder"
    if note.exists():
        shutil.rmtree(note.read_text(), ignore_errors=True)
        note.unlink()


def reachable_program(home: Home, site: Path, program: str, folders: tuple[str, ...]) -> Path:
    """A program below `site`, or a copy of it and of the folders that it needs if the account cannot reach it."""
    if _can_reach(home.account, site / program):
        return site / program
    copies = home.folder / "programs"
    for folder in folders:
        shutil.rmtree(copies / folder, ignore_errors=True)
        shutil.copytree(site / folder, copies / folder, ignore=shutil.ignore_patterns("*.a", "include"))
    for path in (copies, *copies.rglob("*")):
        path.chmod(0o755)
    return copies / program


def _make_home_folder(folder: Path) -> None:
    """Root's servers run as another account: it must be able to walk through, but not to look around."""
    try:
        folder.mkdir()
    except FileExistsError:  # another start, at this very moment, was first
        return
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _choose_home(folder: Path) -> Home:
    note = folder / "elsewhere"
    place = Path(note.read_text().strip()) if note.exists() else folder
    if not place.exists():
        _make_home_folder(place)
    account = _choose_account(place / "postgres")
    if place == folder and not (place / "postgres").exists() and not _can_reach(account, folder):
        place = _make_place_elsewhere(folder, account)
        _write_private(note, f"{place}\n")
    return Home(place, account)


def _choose_account(postgres: Path) -> pwd.struct_passwd:
    try:
        if os.geteuid() != 0:
            return pwd.getpwuid(os.geteuid())
        owner = postgres.stat().st_uid if postgres.exists() else 0
        return pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError as error:
        raise LocalServersUnavailable(f"PostgreSQL needs an account that the system knows: {error}") from error


def _make_place_elsewhere(folder: Path, account: pwd.struct_passwd) -> Path:
    """The name follows from the folder's, so that what a deleted data folder left behind is replaced, not kept."""
    place = _reachable_base(account) / f"cloche-{sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}"
    if _belongs_to(pwd.getpwuid(os.geteuid()), place):
        _kill_processes_in(place)
        shutil.rmtree(place)
    _make_home_folder(place)
    return place


def _kill_processes_in(place: Path) -> None:
    """End servers whose data is to be deleted anyway."""
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(f"{place}/") for word in process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait(10)


def _reachable_base(account: pwd.struct_passwd) -> Path:
    for base in (Path("/var/lib"), Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  # we own what we make there
        if os.access(base, os.W_OK) and _can_reach(account, base):
            return base
    raise LocalServersUnavailable(f"the account {account.pw_name} can reach neither the data folder nor /tmp")


def _short_reachable_base(account: pwd.struct_passwd) -> Path:
    own = Path(tempfile.gettempdir())
    if PLAIN_SOCKETS_FOLDER.fullmatch(f"{own}/cloche-12345678") and _can_reach(account, own):
        return own
    return Path("/tmp")  # noqa: S108  # mkdtemp is safe there


def _belongs_to(account: pwd.struct_passwd, folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == account.pw_uid


def _can_reach(account: pwd.struct_passwd, path: Path) -> bool:
    """Ask the kernel as that account: modes alone do not tell (access lists, mounts)."""
    argv = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
    return _run(account, argv).returncode == 0


def _run(
    account: pwd.struct_passwd,
    argv: list[str],
    *,
    stdout: int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.DEVNULL,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[bytes]:
    as_other = os.geteuid() == 0
    return subprocess.run(  # noqa: S603  # programs of ours
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        user=account.pw_uid if as_other else None,
        group=account.pw_gid if as_other else None,
        extra_groups=[] if as_other else None,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def _write_private(path: Path, text: str, account: pwd.struct_passwd | None = None) -> Path:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if account is not None:
            os.fchown(file.fileno(), account.pw_uid, account.pw_gid)
        file.write(text)
    return draft.replace(path)
