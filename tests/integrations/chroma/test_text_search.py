"""Why a Chroma collection is not searched by words: its own programs say so."""

from __future__ import annotations

from typing import Any

import pytest

from toastrack import Embedder, Record
from toastrack.errors import UnsupportedError
from toastrack_chroma import ChromaStore


def test_the_host_has_no_search_by_words_and_the_store_says_why(
    client: Any, embedder: Embedder
) -> None:
    from chromadb import K, Search
    from chromadb.errors import ChromaError

    with ChromaStore(client, "docs", embedder=embedder) as store:
        store.upsert([Record("rye", "Rye keeps for a week.")])
        collection = client.get_collection("docs")
        with pytest.raises((NotImplementedError, ChromaError)) as raised:
            collection.search(Search().where(K.DOCUMENT.contains("Rye")))
        assert "not implemented" in str(raised.value).lower()
        for mode in ("text", "hybrid"):
            with pytest.raises(
                UnsupportedError, match="Search is not implemented for Local Chroma"
            ):
                store.search("rye", mode=mode)
        with pytest.raises(UnsupportedError, match="where_document"):
            store.build_text_index()
        (match,) = store.search("rye", where_document={"$contains": "Rye"})
        assert match.id == "rye"
