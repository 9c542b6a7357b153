"""What is stored in a newer format is refused, and an older one is brought up when it is written to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from toastrack import Record
from toastrack.errors import StoreError
from toastrack.stores import formats

if TYPE_CHECKING:
    from contract.conftest import MakeStore, Runs

A, B = Record("a", "rye bread keeps fresh"), Record("b", "salt is in the dough")
LATER = 99


class LaterVersion:
    """A version of toastrack that writes a format which this one does not know."""

    def __init__(self, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._make_store = make_store
        self._monkeypatch = monkeypatch

    def upsert(self, *records: Record, adopt: bool = False) -> Any:
        with self._monkeypatch.context() as patch:
            patch.setattr(formats, "NEWEST", LATER)
            store: Any = self._make_store(adopt=adopt)
            store._backend.writes_format = LATER
            report = store.upsert(records)
            store.close()
        return report


@pytest.fixture
def later(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> LaterVersion:
    return LaterVersion(make_store, monkeypatch)


@pytest.mark.connection
def test_a_newer_format_is_refused(make_store: MakeStore, later: LaterVersion) -> None:
    later.upsert(A)
    for adopt in (False, True):
        store = make_store(adopt=adopt)
        for call in (
            store.open,
            lambda store=store: store.upsert([B]),
            lambda store=store: store.search("rye"),
            lambda store=store: store.get(["a"]),
            lambda store=store: store.delete(["a"]),
            store.count,
        ):
            with pytest.raises(StoreError) as caught:
                call()
            said = str(caught.value)
            for part in (f"format {LATER}", f"up to {formats.NEWEST}", "Upgrade toastrack"):
                assert part in said


@pytest.mark.connection
def test_an_older_format_counts_as_unchanged_until_something_is_written(
    make_store: MakeStore, later: LaterVersion, runs: Runs
) -> None:
    make_store().upsert([A, B])
    runs.clear()
    report = later.upsert(A, B)
    assert (report.embedded, report.written, report.unchanged) == (0, 0, 2)
    # Nothing needed it, so nothing was brought up.
    assert make_store().upsert([A]).unchanged == 1

    report = later.upsert(replace(A, metadata={"n": 1}), B)
    assert (report.embedded, report.written, report.unchanged) == (0, 1, 1)
    assert not runs
    with pytest.raises(StoreError, match=f"format {LATER}"):
        make_store().open()
    report = later.upsert(replace(A, metadata={"n": 1}), B)
    assert (report.written, report.unchanged) == (0, 2)
