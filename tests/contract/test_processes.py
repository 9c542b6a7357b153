"""What is left of a store that is open when its process forks, or that goes to another process."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from awaited import Awaited, Loop
from forks import Child
from kinds import Kind

from toastrack import Record
from toastrack.errors import StoreError
from toastrack.stores import Store, run_sync

if TYPE_CHECKING:
    from contract.conftest import MakeStore

pytestmark = pytest.mark.connection

SIZE = 32
AXES = np.eye(SIZE, dtype=np.float32)
RECORDS = [Record(str(number), f"text {number}", vector=AXES[number]) for number in range(SIZE)]
ROUNDS = 40


def ask(store: Store, number: int) -> list[str]:
    """Ask many questions with one answer, each in a session of its own, and write between them."""
    answers = []
    for written in range(ROUNDS):
        if written % 8 == 0:
            store.upsert([Record(f"{number}-{written}", "written", vector=-AXES[number])])
        answers.append(store.search(AXES[number], 1)[0].id)
        answers.extend(record.id for record in store.get([str(number)]) if record)
    return answers


def here(store: Any) -> Any:
    """The store as this process can use it: an event loop's thread is in no forked child."""
    return Awaited(store._store, Loop()) if isinstance(store, Awaited) else store


@pytest.mark.parametrize("opened", [True, False])
def test_parent_and_forked_children_get_their_own_answers(
    kind: Kind, make_store: MakeStore, opened: bool
) -> None:
    make_store().upsert(RECORDS)
    store = make_store()
    if opened:
        assert store.search(AXES[0], 1)[0].id == "0"
    children = [Child(lambda number=number: ask(here(store), number)) for number in (1, 2)]  # type: ignore[misc]
    answers = ask(store, 3)
    for number, child in enumerate(children, 1):
        if kind.own:
            assert child.answer() == [str(number)] * 2 * ROUNDS
        else:
            with pytest.raises(StoreError, match=r"made in another process.*post_fork"):
                child.answer()
    assert answers == ["3"] * 2 * ROUNDS
    assert store.count() == SIZE + (3 if kind.own else 1) * len(range(0, ROUNDS, 8))
    assert store.upsert([Record("new", "text", vector=AXES[4])]).written == 1


def test_a_child_writes_and_builds(kind: Kind, make_store: MakeStore) -> None:
    store = make_store()
    store.upsert(RECORDS[:1])

    def write() -> tuple[int, bool]:
        mine = here(store)
        with mine:
            return mine.upsert(RECORDS).written, mine.build_index()

    if kind.own:
        assert Child(write).answer() == (SIZE - 1, True)
        assert store.count() == SIZE
    else:
        with pytest.raises(StoreError, match="made in another process"):
            Child(write).answer()
        assert store.count() == 1


def test_a_store_that_a_child_makes_over_what_its_parent_used(
    kind: Kind, make_store: MakeStore
) -> None:
    store = make_store()
    store.upsert(RECORDS)
    child = Child(lambda: here(make_store()).count())
    if kind.own:
        assert child.answer() == SIZE
    else:
        with pytest.raises(StoreError, match="made in another process"):
            child.answer()


@pytest.mark.parametrize("call", ["count", "upsert", "open", "close"])
def test_locks_that_another_thread_holds_do_not_stop_a_child(
    kind: Kind, make_store: MakeStore, call: str
) -> None:
    store: Any = make_store()
    store.upsert(RECORDS)
    calls: dict[str, Callable[[Any], int]] = {
        "count": lambda store: store.count(),
        "upsert": lambda store: store.upsert(RECORDS).read,
        "open": lambda store: store.open() and SIZE,
        "close": lambda store: store.__exit__() or SIZE,
    }
    flow = store._flow
    locks = [flow._opening]
    if hasattr(flow.backend, "_connections"):
        # Over a connection of the caller's it is one lock for all.
        locks.extend(dict.fromkeys(flow.backend._connections._using.values()))
    held, done = Event(), Event()

    async def hold() -> None:
        for lock in locks:
            await lock.__aenter__()
        held.set()
        done.wait(300)
        for lock in locks:
            await lock.__aexit__(None, None, None)

    with ThreadPoolExecutor(1) as threads:
        run: Callable[[Any], None] = store._loop.run if isinstance(store, Awaited) else run_sync
        future = threads.submit(run, hold())
        assert held.wait(300)
        child = Child(lambda: calls[call](here(store)))
        try:
            if kind.own or call == "close":
                assert child.answer() == SIZE
            else:
                with pytest.raises(StoreError, match="made in another process"):
                    child.answer()
        finally:
            done.set()
            future.result()
    assert store.count() == SIZE


def _count(pickled: bytes, answers: Any) -> None:
    store = pickle.loads(pickled)
    with store if hasattr(store, "__enter__") else Awaited(store, Loop()) as opened:
        answers.put((opened.count(), opened.search(AXES[5], 1)[0].id))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_over_an_address_it_goes_to_another_process(
    kind: Kind, make_store: MakeStore, method: str
) -> None:
    store: Any = make_store()
    store.upsert(RECORDS)
    store = store._store if isinstance(store, Awaited) else store
    if not kind.own:
        with pytest.raises(TypeError, match="of yours cannot be pickled or copied"):
            pickle.dumps(store)
        return
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=_count, args=(pickle.dumps(store), answers))
    process.start()
    assert answers.get(timeout=300) == (SIZE, "5")
    process.join()
    assert process.exitcode == 0
