"""What a program has in place of files: rows, frames, and the frameworks' documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toastrack import Embedder, Record, ingest
from toastrack.errors import SourceError
from toastrack.ingestion.objects import is_row, is_table, read_objects, rows_of
from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "Rye.", "days": 7, "day": date(2024, 5, 1), "price": float("nan")},
    {"id": "b", "text": "Salt.", "days": None, "day": None, "price": 1.5},
]
METADATA: list[dict[str, Any]] = [
    {"days": 7, "day": "2024-05-01", "price": None},
    {"days": None, "day": None, "price": 1.5},
]


def read(items: Any, options: ReadOptions | None = None) -> list[Any]:
    rows = rows_of(items) if is_table(items) else items
    return list(read_objects(rows, options or ReadOptions()))


def expected() -> list[SourceDocument]:
    return [
        SourceDocument(str(row["id"]), str(row["text"]), f"row {number}", metadata)
        for number, (row, metadata) in enumerate(zip(ROWS, METADATA, strict=True), start=1)
    ]


def test_mappings_are_rows() -> None:
    assert read(ROWS) == expected()


def test_values_of_other_types_become_json() -> None:
    row = {
        "id": np.int64(7),
        "text": "x",
        "n": np.float32(1.5),
        "at": datetime(2024, 5, 1, tzinfo=timezone.utc),
        "price": Decimal("1.50"),
        "none": Decimal("sNaN"),
        "pairs": [(1, 2), (3, 4)],
        "v": np.ones(2, np.float32),
    }
    (item,) = read([row], ReadOptions(vector="v"))
    assert item.id == "7"
    assert item.vector is row["v"]
    assert item.metadata == {
        "n": 1.5,
        "at": "2024-05-01T00:00:00+00:00",
        "price": "1.50",
        "none": None,
        "pairs": [[1, 2], [3, 4]],
    }


def test_an_arrow_table_and_its_batches_are_rows() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    table = pyarrow.Table.from_pylist(ROWS)
    assert read(table) == expected()
    assert read(table.to_batches()[0]) == expected()
    stamps = pyarrow.table(
        {"id": ["a"], "text": ["x"], "at": pyarrow.array([1], pyarrow.timestamp("ns"))}
    )
    assert read(stamps)[0].metadata == {"at": "1970-01-01T00:00:00"}
    twice = pyarrow.table([["a"], ["x"], ["y"]], names=["id", "text", "text"])
    with pytest.raises(SourceError, match="'text'"):
        read(twice)


def test_a_frame_of_pandas_is_rows() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(ROWS)
    first, second = read(frame)
    assert first == expected()[0]
    assert second.metadata == METADATA[1]
    frame["at"] = pandas.to_datetime(["2024-05-01T10:00:00.000000001Z", None])
    assert [item.metadata["at"] for item in read(frame)] == ["2024-05-01T10:00:00+00:00", None]
    frame.columns = [*frame.columns[:-1], "id"]
    with pytest.raises(SourceError, match="'id'"):
        read(frame)


def test_a_frame_of_polars_is_rows() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    assert read(polars.DataFrame(ROWS)) == expected()


def test_langchains_documents_keep_id_and_metadata() -> None:
    documents = pytest.importorskip(
        "langchain_core.documents", reason="the extra 'langchain' is not installed"
    )
    document = documents.Document(page_content="Rye.", metadata={"n": 7}, id="a")
    assert read([document]) == [SourceDocument("a", "Rye.", "document 1", {"n": 7})]
    (bad,) = read([documents.Document(page_content="Rye.")])
    assert bad == BadInput("document 1", "it has no id. Give it one, or use id_from='content'.")
    (named,) = read([documents.Document(page_content="Rye.")], ReadOptions(id_from="content"))
    assert re.fullmatch("[0-9a-f]{64}", named.id)


def test_llama_indexs_nodes_keep_id_and_metadata() -> None:
    schema = pytest.importorskip(
        "llama_index.core.schema", reason="the extra 'llama-index' is not installed"
    )
    nodes = [
        schema.TextNode(text="Rye.", id_="a", metadata={"n": 7, "m": 8}),
        schema.Document(text="Salt.", id_="b", metadata={"n": 9}),
    ]
    assert read(nodes, ReadOptions(metadata=["n"])) == [
        SourceDocument("a", "Rye.", "node 1", {"n": 7}),
        SourceDocument("b", "Salt.", "node 2", {"n": 9}),
    ]
    (bad, _) = read(nodes, ReadOptions(metadata=["z"]))
    assert bad == BadInput("node 1", "its metadata has no 'z' to keep.")


def test_what_is_one_document_is_no_table() -> None:
    assert is_row({"id": "a"})
    assert is_row(Record("a", "x"))
    assert not is_table({"id": "a"})
    assert not is_table([{"id": "a"}])


class Nothing:
    """No store: what is wrong is said before it is asked for anything."""


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({"id": "a", "text": "x"}, r"One dict was given\. Write it in a list"),
        (Record("a", "x"), r"One Record was given\. Write it in a list"),
        (7, "ingest takes paths or records, not int"),
        (b"docs", "ingest takes paths or records, not bytes"),
        ([Path("a.md"), Record("a", "x")], "paths or records, not both"),
    ],
)
def test_what_stands_in_the_wrong_place_gets_a_sentence(sources: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        ingest(sources, Nothing())  # type: ignore[arg-type]


def test_what_is_no_store_gets_a_sentence() -> None:
    store: Any = "postgresql://localhost/db"
    with pytest.raises(TypeError, match=r"such as PostgresStore\(\.\.\.\), not str\.$"):
        ingest([Record("a", "x")], store)
    postgres = pytest.importorskip(
        "toastrack_postgres", reason="the extra 'postgres' is not installed"
    )
    store = postgres.AsyncPostgresStore("postgresql://localhost/db", embedder=Embedder())
    with pytest.raises(TypeError, match="AsyncPostgresStore is awaited, and ingest is not"):
        ingest([Record("a", "x")], store)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([Record("a", "x"), "a.md"], "paths or records, not both"),
        ([Record("a", "x"), 7], "but input 2 is int"),
        ([["a", "x"]], "but input 1 is list"),
        ([("a", "x")], "but input 1 is tuple. Its fields need names: psycopg's row_factory="),
    ],
)
def test_what_is_no_document_in_a_stream_gets_a_sentence(items: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        read(items)


def test_rows_go_into_a_store_as_files_do(
    postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    postgres = pytest.importorskip(
        "toastrack_postgres", reason="the extra 'postgres' is not installed"
    )

    def stream() -> Iterator[dict[str, Any]]:
        yield {"sku": "a", "title": "Rye", "body": "Keeps long."}
        yield {"sku": "b", "title": "Salt"}

    said: list[str] = []
    with postgres.PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        report = ingest(
            stream(),
            store,
            text="{title}: {body}",
            id_column="sku",
            skip_bad=True,
            on_skip=lambda skip: said.append(str(skip)),
        )
        assert (report.written, report.skipped) == (1, 1)
        assert store.get(["a"]) == [
            Record("a", "Rye: Keeps long.", {"title": "Rye", "body": "Keeps long."})
        ]
    assert said == ["row 2: there is no field 'body' for text=, only 'sku', 'title'."]
