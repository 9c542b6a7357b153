"""A Postgres server with pgvector that lives in one folder and needs no installation.

    with EmbeddedPostgres("./.toastrack") as server:
        connection = psycopg.connect(server.conninfo)

The folder holds `data/` with the socket in it, `server.log`, and two locks. Every user has a shared
flock on `users.lock`; who can make it exclusive is the last one and stops the server. Who comes or
goes holds `toastrack.lock`, the gate. The kernel drops the locks of a killed process, so none
goes stale.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote
from weakref import WeakSet

import platformdirs
from psycopg import pq

from toastrack.errors import StoreError
from toastrack_postgres.embedded.programs import (
    ROOT_FOLDER,
    Programs,
    find_programs,
    make_root_folder,
    package_folder,
)

if sys.platform != "win32":
    import fcntl

START_SECONDS = 60
STOP_SECONDS = 60
INITDB_SECONDS = 120
# Longer than anybody in good health holds the gate.
GATE_SECONDS = 240
# What a socket's address takes, less its closing zero.
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
SOCKET = ".s.PGSQL.5432"
SETTINGS = {
    "cluster_name": "toastrack",
    "listen_addresses": "",
    "port": "5432",
    # Relative to the data folder, so that the folder can move.
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
}
if sys.platform == "linux":
    # A container's /dev/shm has 64 MB, too little to build an HNSW index in parallel.
    SETTINGS["dynamic_shared_memory_type"] = "sysv"

# What Postgres says while another server for the data comes up or has not gone altogether.
PASSING = ("already exists", "shared memory block")

# Who has to leave when the process ends.
_started: set[EmbeddedPostgres] = set()
# All there are: another thread may be inside any of them when the process forks.
_all: WeakSet[EmbeddedPostgres] = WeakSet()


def default_folder() -> Path:
    """Return the folder of the server that people get who name none."""
    if sys.platform != "win32" and os.geteuid() == 0:
        return ROOT_FOLDER / "postgres"
    return platformdirs.user_data_path("toastrack", appauthor=False) / "postgres"


class EmbeddedPostgres:
    """A Postgres server with pgvector in one folder, shared by all who use the folder.

        with EmbeddedPostgres("my-search") as server:
            print(server.conninfo)  # what psycopg.connect and PostgresStore take

    The first user starts it and the last one stops it, be they objects, threads or processes; who
    forgets ``stop()`` leaves when the interpreter ends. A process that is killed (SIGKILL, a SIGTERM
    that nobody handles, ``os._exit``) is no user any more, but if it was the last one its server
    runs on: who opens the folder next takes it over, and stops it as the last one to leave. A forked
    child is no user until it calls ``start()`` itself. The data is as safe as in any Postgres: fsync
    is on. It needs Linux or macOS, and listens on a socket inside the folder alone.

    Args:
        folder: A new folder, or one that such a server made; None is one in your data folder.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        path = default_folder() if folder is None else Path(folder).expanduser()
        self.folder = path.absolute()
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._mutex = threading.RLock()
        self._gate: int | None = None
        self._users: int | None = None
        # Kept for the case that somebody removes the folder under the server.
        self._server: tuple[int, os.stat_result] | None = None
        _all.add(self)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.folder,)

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.folder)!r})"

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def conninfo(self) -> str:
        """The URL that ``psycopg.connect`` takes.

        Raises:
            StoreError: The server is not started.
        """
        if self._users is None:
            raise StoreError(f"The server in {self.folder} is not started. Call start() first.")
        return self._url

    @property
    def _url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(os.fsencode(self._data))}&port=5432"

    def start(self) -> str:
        """Start the server, or attach to it where it runs, and return its URL.

        Raises:
            MissingExtraError: The extra ``embedded`` is not installed.
            StoreError: No server can live in the folder, or it did not start; says what it printed.
        """
        if sys.platform == "win32":
            raise StoreError(
                "The embedded Postgres server needs Linux or macOS. Give a postgresql:// URL."
            )
        with self._mutex:
            if self._users is not None and self._answers():
                return self._url
            # The server is gone, perhaps with its folder: come in anew.
            self._let_go()
            package_folder()
            _started.add(self)
            try:
                self._gate = self._claim_folder()
                with self._hold_gate():
                    self._users = self._open("users.lock")
                    fcntl.flock(self._users, fcntl.LOCK_SH)
                    self._bring_up()
            except OSError as error:
                self.stop()
                raise StoreError(
                    f"No Postgres server can live in {self.folder}: {error}. "
                    "Give a folder on a local disk where you may write."
                ) from error
            except BaseException:
                self.stop()
                raise
            return self._url

    def stop(self) -> None:
        """Leave; the last one to leave stops the server.

        Raises:
            StoreError: It did not stop within a minute.
        """
        with self._mutex:
            try:
                if self._users is not None:
                    with self._hold_gate():
                        try:
                            if self._is_last():
                                self._shut_down()
                        finally:
                            # Behind the gate, or the next to leave takes us for one who stays.
                            fcntl.flock(self._users, fcntl.LOCK_UN)
            finally:
                self._let_go()

    def _claim_folder(self) -> int:
        """Make the folder or see that it is ours, and open its gate."""
        excess = len(os.fsencode(self._data / SOCKET)) - SOCKET_PATH_BYTES
        if excess > 0:
            raise StoreError(
                f"The server's socket {self._data / SOCKET} has a path of "
                f"{SOCKET_PATH_BYTES + excess} bytes, and the system takes {SOCKET_PATH_BYTES}. "
                f"Give a folder whose path is {excess} bytes shorter."
            )
        if {",", "\n"} & set(str(self.folder)):
            raise StoreError(
                f"Postgres splits {str(self.folder)!r} at commas and line breaks. "
                "Give a folder without them."
            )
        if self.folder.is_relative_to(ROOT_FOLDER):
            make_root_folder()
        try:
            self.folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            # The gate is the first thing that we make, so our folder has it or is empty; asked for
            # in this order, as somebody else may make it between the two looks.
            if any(self.folder.iterdir()) and not (self.folder / "toastrack.lock").exists():
                raise StoreError(
                    f"{self.folder} holds files that are not toastrack's. "
                    "Give a new or an empty folder."
                ) from None
        return self._open("toastrack.lock")

    def _open(self, name: str, flags: int = 0) -> int:
        # Root may work in somebody's folder, who must not lead it elsewhere by a link.
        flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        return os.open(self.folder / name, flags, 0o600)

    @contextmanager
    def _hold_gate(self) -> Iterator[None]:
        assert self._gate is not None
        deadline = time.monotonic() + GATE_SECONDS
        # Asked again and again, because a flock that waits cannot give up.
        while not _lock(self._gate):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Somebody has been starting or stopping the server in {self.folder} for "
                    f"{GATE_SECONDS} s. Look for a suspended process that uses it."
                )
            time.sleep(0.005)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _is_last(self) -> bool:
        assert self._users is not None
        return _lock(self._users)

    def _let_go(self) -> None:
        for lock in (self._users, self._gate):
            if lock is not None:
                # Closing is not enough: a fork in another thread may hold a duplicate.
                fcntl.flock(lock, fcntl.LOCK_UN)
        self._close()
        _started.discard(self)

    def _close(self) -> None:
        for lock in (self._users, self._gate):
            if lock is not None:
                os.close(lock)
        self._users = self._gate = self._server = None

    def _answers(self) -> bool:
        url = f"{self._url}&connect_timeout=5"
        return pq.PGconn.ping(url.encode()) == pq.Ping.OK

    def _bring_up(self) -> None:
        """Return when the server answers; behind the gate, so nobody else starts or stops it."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            # A server that is there but silent comes up or goes down: somebody was killed while
            # at it. Or it is the rest of a killed server, which must not get a second one beside it.
            refusal = "" if self._is_occupied() else self._launch()
            if refusal and not any(reason in refusal for reason in PASSING):
                raise self._failure("The server did not start")
            # Asked once more, because a slow disk may have spent the time on initdb.
            if time.monotonic() > deadline and not self._answers():
                raise self._failure(f"The server did not answer for {START_SECONDS} s")
            time.sleep(0.1 if refusal else 0.01)
        pid = self._find_server()
        self._server = None if pid is None else (pid, self._data.stat())

    def _launch(self) -> str:
        """Start the server, which has no process now; return what it says if it refuses."""
        for name in ("postmaster.pid", f"{SOCKET}.lock"):
            # Postgres takes whatever process has the old number now, be it the zombie of the old
            # server, for a running server.
            (self._data / name).unlink(missing_ok=True)
        programs = find_programs(self._data)
        for half_made in self.folder.glob("data.new-*"):
            # Of a killed initdb. One that still runs, as an orphan, may leave some for next time.
            shutil.rmtree(half_made, ignore_errors=True)
        with suppress(FileNotFoundError):
            if self._log.stat().st_size > 1_000_000:
                self._log.replace(self._log.with_suffix(".log.old"))
        log = self._open("server.log", os.O_APPEND)
        try:
            if not (self._data / "PG_VERSION").exists():
                self._make_data(programs, log)
            begin = os.fstat(log).st_size
            options = ("start", "--silent", "--wait", f"--timeout={START_SECONDS}")
            seconds = START_SECONDS + 5
            if programs.run("pg_ctl", *options, data=self._data, log=log, seconds=seconds):
                return ""
            return os.pread(log, 10_000, begin).decode(errors="replace") or "pg_ctl failed"
        finally:
            os.close(log)

    def _make_data(self, programs: Programs, log: int) -> None:
        # It gets its name when it is whole.
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.folder))
        programs.give(new)
        # No password: the mode of the data folder says who reaches the socket.
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += [f"--set={name}={value}" for name, value in SETTINGS.items()]
        if not programs.run("initdb", *options, data=new, log=log, seconds=INITDB_SECONDS):
            shutil.rmtree(new, ignore_errors=True)
            raise self._failure("The data could not be set up")
        new.rename(self._data)
        # If a power cut undid the renaming, the next start would take the data for half-made.
        parent = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _find_server(self) -> int | None:
        """Return the process that serves our data, if there is one."""
        with suppress(OSError, ValueError, IndexError):
            pid = abs(int((self._data / "postmaster.pid").read_text().split()[0]))
            if _works_in(pid, self._data.stat()):
                return pid
        if self._server is not None and _works_in(*self._server):
            return self._server[0]
        return None

    def _is_occupied(self) -> bool:
        """Tell whether Postgres is at work on our data, perhaps still without its pid file."""
        if sys.platform != "linux":
            return self._find_server() is not None
        with suppress(FileNotFoundError):
            data = self._data.stat()
            numbers = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
            return any(_works_in(pid, data) for pid in numbers)
        return False

    def _shut_down(self) -> None:
        pid = self._find_server()
        if pid is None:
            return
        data = self._data.stat() if self._server is None else self._server[1]
        # Fast shutdown: clients are cut off, everything is written. Immediate, if the data is gone.
        os.kill(pid, signal.SIGINT if self._data.exists() else signal.SIGQUIT)
        deadline = time.monotonic() + STOP_SECONDS
        while _works_in(pid, data):
            if time.monotonic() > deadline:
                raise self._failure(f"The server, process {pid}, did not stop in {STOP_SECONDS} s")
            time.sleep(0.005)
        # As process 1 of a container we are its parent by now.
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)

    def _failure(self, what: str) -> StoreError:
        lines: list[str] = []
        with suppress(FileNotFoundError):
            lines = self._log.read_text(errors="replace").splitlines()[-20:]
        return StoreError("\n".join([f"{what} ({self.folder}). {self._log} ends:", *lines]))


class OwnServer(EmbeddedPostgres):
    """One that a store starts at its first use and leaves when it is closed."""

    def is_there(self) -> bool:
        """Tell whether the folder has the data of a server, running or not."""
        return (self._data / "PG_VERSION").exists()


def _lock(file: int) -> bool:
    """Take the lock for us alone if nobody else has it."""
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _works_in(pid: int, data: os.stat_result) -> bool:
    """Tell a living Postgres of ``data`` from its zombie and from who else has its number now."""
    if sys.platform == "linux":
        process = Path(f"/proc/{pid}")
        with suppress(OSError):
            if (process / "comm").read_text() in ("postgres\n", "pg_ctl\n"):
                return _folder_of(process) == (data.st_dev, data.st_ino)
        return False
    command = ["ps", "-o", "stat=", "-o", "comm=", "-p", str(pid)]
    status = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return "postgres" in status and not status.lstrip().startswith("Z")


def _folder_of(process: Path) -> tuple[int, int]:
    """Return device and inode of the folder that a process works in."""
    try:
        found = (process / "cwd").stat()
        return found.st_dev, found.st_ino
    except PermissionError:
        owner = process.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            raise
    # In a container root may not look into the processes of other accounts; the account may.
    answer = subprocess.run(
        ["stat", "-L", "-c", "%d %i", str(process / "cwd")],
        capture_output=True,
        text=True,
        check=False,
        user=owner.st_uid,
        group=owner.st_gid,
        extra_groups=[],
    ).stdout.split()
    if len(answer) != 2:
        raise ProcessLookupError(f"{process} has ended")
    return int(answer[0]), int(answer[1])


def _stop_all() -> None:
    with ExitStack() as stack:
        for server in tuple(_started):
            stack.callback(server.stop)


def _forget_all() -> None:
    for server in list(_all):
        server._mutex = threading.RLock()
        server._close()
    _started.clear()


if sys.platform != "win32":
    atexit.register(_stop_all)
    # A child with a copy of the locks would be a user who never leaves.
    os.register_at_fork(after_in_child=_forget_all)
