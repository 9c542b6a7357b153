"""A fork at any moment of another thread: parent and child answer as ever, and neither hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from models import save_tiny_cross_encoder
from programs import run_warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

# Other threads of the parent go on all the time; what they hold at a fork is left to chance.
_FORKING = """
import asyncio, os, signal, sys, threading
import numpy as np
from toastrack import Embedder, Reranker

folder, what, rounds = {folder!r}, {what!r}, {rounds}
texts = ["rye bread " * n for n in range(1, 9)]

def anew():
    '''Answer with what was made for this one question.'''
    thing = (Reranker if what == "rerank" else Embedder)(folder, device="cpu")
    return ask(thing)

def ask(thing):
    if what == "rerank":
        if asynchronous:
            return asyncio.run(thing.ascore("rye", texts))
        return thing.score("rye", texts)
    if asynchronous:
        return asyncio.run(thing.aembed_documents(texts))
    return thing.embed_documents(texts)

asynchronous = {asynchronous}
shared = (Reranker if what == "rerank" else Embedder)(folder, device="cpu")
expected = ask(shared)
done, wrong = threading.Event(), []

def go_on():
    try:
        while not done.is_set():
            for answer in (ask(shared), anew()):
                np.testing.assert_allclose(answer, expected, atol=1e-4)
    except BaseException as error:
        wrong.append(error)

threads = [threading.Thread(target=go_on) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = []
for _ in range(rounds):
    child = os.fork()
    if not child:
        signal.alarm(120)
        status = 1
        try:
            for answer in (ask(shared), anew()):
                np.testing.assert_allclose(answer, expected, atol=1e-4)
            status = 0
        finally:
            os._exit(status)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
for thread in threads:
    thread.join()
print(statuses, wrong)
"""


@pytest.mark.parametrize(
    ("rounds", "asynchronous"),
    [
        (3, False),
        pytest.param(20, False, marks=pytest.mark.rest),
        pytest.param(20, True, marks=pytest.mark.rest),
    ],
)
@pytest.mark.parametrize("what", ["embed", "rerank"])
def test_a_fork_while_other_threads_run_the_model(
    tiny_folder: Path, cross_encoder_folder: Path, what: str, rounds: int, asynchronous: bool
) -> None:
    folder = cross_encoder_folder if what == "rerank" else tiny_folder
    code = _FORKING.format(folder=str(folder), what=what, rounds=rounds, asynchronous=asynchronous)
    assert run_warm(code) == f"{[0] * rounds} []\n"


# A lock of Python's in the place of those of native code, and held nearly all the time.
_LOCKING = """
import threading
from toastrack.engines.cross_encoder import TorchCrossEncoder
from toastrack.engines.sentence_transformers import SentenceTransformersEngine

native = threading.RLock()

def locking(call):
    def locked(*args, **options):
        with native:
            return call(*args, **options)
    return locked

for engine in (TorchCrossEncoder, SentenceTransformersEngine):
    engine.__init__, engine.run = locking(engine.__init__), locking(engine.run)
"""


@pytest.mark.parametrize("what", ["embed", "rerank"])
def test_a_fork_waits_for_what_native_code_has_locked(
    tiny_folder: Path, cross_encoder_folder: Path, what: str
) -> None:
    """A child would wait for ever for a lock whose thread it does not have."""
    folder = cross_encoder_folder if what == "rerank" else tiny_folder
    code = _FORKING.format(folder=str(folder), what=what, rounds=5, asynchronous=False)
    assert run_warm(_LOCKING + code) == f"{[0] * 5} []\n"


def test_a_fork_within_a_batch_does_not_wait_for_itself(tiny_folder: Path) -> None:
    code = f"""
import os, signal
from toastrack import Embedder
from toastrack.engines.sentence_transformers import SentenceTransformersEngine
from toastrack.utils import computing

computing._SECONDS = 100_000
signal.alarm(120)
run = SentenceTransformersEngine.run
statuses = []

def forking(*args, **options):
    found = run(*args, **options)
    child = os.fork()
    if not child:
        with computing.computing():
            os._exit(0)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return found

SentenceTransformersEngine.run = forking
embedder = Embedder({str(tiny_folder)!r}, device="cpu")
print(len(embedder.embed_documents(["rye", "bread"])), set(statuses))
"""
    assert run_warm(code) == "2 {0}\n"


_COMPUTING = """
import os, signal, threading
from toastrack.utils import computing

computing._SECONDS = 100_000
signal.alarm(120)
"""


def test_two_forks_from_within_batches_do_not_wait_for_each_other() -> None:
    code = """
both, statuses = threading.Barrier(2), []

def fork():
    with computing.computing():
        both.wait()
        child = os.fork()
        if not child:
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

threads = [threading.Thread(target=fork) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(statuses)
"""
    assert run_warm(_COMPUTING + code) == "[0, 0]\n"


def test_ctrl_c_as_a_fork_begins_holds_nobody_up_afterwards() -> None:
    code = """
computing._in_parent()  # which Python calls, though Ctrl-C ended what is called before
with computing.computing():
    print("computed")
"""
    assert run_warm(_COMPUTING + code) == "computed\n"


def test_a_fork_while_another_thread_imports(tmp_path: Path) -> None:
    """What is half imported at a fork stays so in the child, which would wait for it for ever."""
    (tmp_path / "toastrack_slow.py").write_text(
        "import __main__\n__main__.begun.set()\nfor number in range(2_000_000): pass\n"
    )
    code = f"""
import os, signal, sys, threading
import toastrack
import __main__
__main__.begun = begun = threading.Event()
sys.path.insert(0, {str(tmp_path)!r})
importing = threading.Thread(target=lambda: __import__("toastrack_slow"))
importing.start()
begun.wait()
child = os.fork()
if not child:
    signal.alarm(120)
    import toastrack_slow
    os._exit(0 if toastrack_slow.number == 1_999_999 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
importing.join()
"""
    assert run_warm(code) == "0\n"


def test_a_fork_does_not_wait_for_a_program_that_runs_in_an_import(tmp_path: Path) -> None:
    """It would take as long as the program; here for ever, but for the alarm."""
    (tmp_path / "program.py").write_text(
        """
import os, signal, sys, threading
from toastrack.utils import forks

forks._SECONDS_FOR_IMPORTS = float("inf")
signal.alarm(60)

def fork():
    child = os.fork()
    if not child:
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

forking = threading.Thread(target=fork)
forking.start()
forking.join()
"""
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import program"
    assert run_warm(code) == "0\n"


def with_cached_properties() -> Iterator[str]:
    """Modules of ours that have some, and can be imported here."""
    for folder in ("core", "integrations"):
        root = Path(__file__).parents[2] / folder
        for path in root.rglob("*.py"):
            if "@cached_property" in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(root).with_suffix("").parts)
                with suppress(ImportError):  # an extra is not installed
                    import_module(name)
                    yield name


def test_locks_of_a_model_s_settings_that_another_thread_holds(tmp_path: Path) -> None:
    """Of a reranker, and those that cached properties have before Python 3.12."""
    modules = list(with_cached_properties())
    assert "toastrack.models.config" in modules
    folder = save_tiny_cross_encoder(tmp_path / "reranker", whole=True)
    code = f"""
import contextlib, os, signal, threading
from functools import cached_property
from importlib import import_module
from toastrack import Reranker
reranker = Reranker({str(folder)!r}, device="cpu")
locks = [reranker._lock, reranker._model._lock]
parts = [
    part
    for name in {modules!r}
    for cls in vars(import_module(name)).values() if isinstance(cls, type)
    for part in vars(cls).values()
    if isinstance(part, cached_property) and hasattr(part, "lock")
]
locks += [part.lock for part in parts]
held, done = threading.Event(), threading.Event()
def hold():
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        held.set()
        done.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(120)
    assert all(part.lock.acquire(blocking=False) for part in parts)
    os._exit(0 if reranker.score("rye", ["bread"]).shape == (1,) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
holder.join()
"""
    assert run_warm(code) == "0\n"


def test_an_event_loop_that_a_child_goes_on_with(tiny_folder: Path) -> None:
    """The threads that its calls ran on are the parent's."""
    code = f"""
import asyncio, os, signal
import numpy as np
from toastrack import Embedder
embedder = Embedder({str(tiny_folder)!r}, device="cpu")
loop = asyncio.new_event_loop()
expected = loop.run_until_complete(embedder.aembed_documents(["rye"] * 300))
child = os.fork()
if not child:
    signal.alarm(120)
    answer = loop.run_until_complete(embedder.aembed_documents(["rye"] * 300))
    os._exit(0 if np.allclose(answer, expected, atol=1e-4) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
loop.close()
"""
    assert run_warm(code) == "0\n"
