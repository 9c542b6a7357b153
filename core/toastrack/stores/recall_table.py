"""What an index misses and saves, as one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

AskedWith = Literal["rows", "texts"]
"""Rows of the table, each left out of its own answer; or texts, embedded as queries."""


@dataclass(frozen=True)
class RecallRow:
    """One way to search, of those that ``PostgresStore.recall`` tries.

        with PostgresStore("postgresql://localhost/shop", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat."), Record("2", "Salt it.")])
            store.build_index()
            best = max(store.recall(k=1).rows, key=lambda row: row.recall)

    Args:
        index: What is asked: "exact", or a kind of index.
        ef_search: How many rows the index looks at.
        oversampling: How many times ``k`` rows are compared again by their whole vectors.
        recall: The share of the best ``k`` that is found, from 0 to 1.
        p50_ms: How long half of the searches take at most, in milliseconds.
        p95_ms: How long 95 of 100 searches take at most, in milliseconds.
    """

    index: str
    ef_search: int | None
    oversampling: float | None
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class RecallTable:
    """What the indexes of a table find of the best rows, and how long they take.

        with PostgresStore("postgresql://localhost/shop", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat."), Record("2", "Salt it.")])
            store.build_index()
            print(store.recall(k=1))  # as Markdown

    Args:
        k: How many rows were asked for.
        queries: How many queries were asked.
        asked_with: "rows" of the table, each left out of its own answer, or "texts" that were given,
            embedded as queries.
        rows: One for each way to search, the exact one first.
    """

    k: int
    queries: int
    asked_with: AskedWith
    rows: tuple[RecallRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        lines = [
            f"| index | ef_search | oversampling | recall@{self.k} | p50 ms | p95 ms |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            ef_search = "" if row.ef_search is None else row.ef_search
            again = "" if row.oversampling is None else f"{row.oversampling:g}"
            lines.append(
                f"| {row.index} | {ef_search} | {again} | {row.recall:.3f} | {row.p50_ms:.1f} | "
                f"{row.p95_ms:.1f} |"
            )
        return "\n".join([*lines, "", self._said()])

    def _said(self) -> str:
        if self.asked_with == "texts":
            return f"The queries were {self.queries:,} texts, embedded as queries."
        return (
            f"The queries were {self.queries:,} rows, each left out of its own answer. Questions "
            "lie elsewhere than documents, above all those of a model with a query prompt, and are "
            "mostly found less well: give texts as queries."
        )
