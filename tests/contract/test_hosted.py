"""A hosted model in every store: filled, asked, opened again by what was recorded, refused if another."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from model_server import ModelServer, serving, status

from toastrack import Embedder, Hosted, Record, ingest
from toastrack.errors import GuessWarning, ModelError, SpaceMismatchError
from toastrack.utils import arrays

if TYPE_CHECKING:
    from toastrack.stores.protocol import IngestStore, Store

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")

KEY = "sk-s3cret-0123456789"
RECORDS = [
    Record("rye", "Rye bread keeps for a week."),
    Record("salt", "Salt the dough."),
    Record("crust", "why is the crust brown?"),
]


@pytest.fixture
def server(
    loaded: Embedder, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModelServer]:
    """Serves the tiny model, which gets its prompts from its clients."""
    monkeypatch.setenv("TOASTRACK_API_KEY", KEY)
    monkeypatch.setattr("toastrack.hosted.client.sleep", lambda seconds: None)
    plain = Embedder(
        tiny_folder, device="cpu", query_prompt="", document_prompt="", on_truncate="ignore"
    )

    def embed(texts: Sequence[str], role: str) -> arrays.FloatMatrix:
        return plain.embed_documents(texts)

    with serving(ModelServer(embed, key=KEY)) as running:
        yield running


def hosted(server: ModelServer, **settings: Any) -> Embedder:
    return Embedder(
        server.model, engine=Hosted(base_url=server.url), query_prompt="query: ", **settings
    )


@pytest.mark.connection
def test_a_store_is_filled_and_asked_and_found_again_with_the_key_alone(
    server: ModelServer, make_store: Any
) -> None:
    store: Store = make_store(hosted(server))
    assert store.upsert(RECORDS).embedded == 3
    found = store.search("what keeps?", k=3)
    query = server.embed(["query: what keeps?"], "")[0]
    scores = dict(
        zip(
            (record.id for record in RECORDS),
            server.embed([record.text for record in RECORDS], "") @ query,
            strict=True,
        )
    )
    assert [match.id for match in found] == sorted(scores, key=lambda id: -scores[id])
    np.testing.assert_allclose(
        [match.score for match in found], [scores[match.id] for match in found], atol=2e-3
    )
    assert KEY not in json.dumps(store.space.to_dict())
    again: Store = make_store(Embedder.from_space)
    assert [match.id for match in again.search("what keeps?", k=3)] == [m.id for m in found]
    assert again.space.base_url == server.url
    asked = len(server.asked)
    assert again.upsert(RECORDS).unchanged == 3
    assert len(server.asked) == asked


def test_another_hosted_model_and_a_local_one_are_refused(
    server: ModelServer, make_store: Any, embedder: Embedder
) -> None:
    make_store(hosted(server)).upsert(RECORDS)
    with pytest.raises(SpaceMismatchError, match="weights"):
        make_store(embedder).search("rye")
    server.model = "other"
    with pytest.raises(SpaceMismatchError, match=r"hosted:other"):
        make_store(hosted(server)).search("rye")


def test_a_server_that_fails_half_way_leaves_what_is_right_and_can_be_asked_again(
    server: ModelServer, make_store: Any
) -> None:
    store: Store = make_store(hosted(server))
    store.upsert(RECORDS[:1])
    server.faults = [status(500)] * 4
    with pytest.raises(ModelError, match="status 500"):
        store.upsert(RECORDS)
    assert store.count() == 1
    assert store.upsert(RECORDS).embedded == 2


def test_ingest_splits_by_characters_and_says_so_once(
    server: ModelServer, make_store: Any, tmp_path: Path
) -> None:
    server.model = f"of {tmp_path.name}"  # what is said once is said of a name
    file = tmp_path / "bread.txt"
    file.write_text("Rye bread keeps for a week. " * 100, encoding="utf-8")
    store: IngestStore = make_store(hosted(server))
    with pytest.warns(GuessWarning, match="split at 1,024 characters") as said:
        report = ingest(file, store)
    assert len(said) == 1
    assert report.chunks == 3
    assert all(len(record.text) <= 1_024 for record in store.records())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ingest(file, store).unchanged == 3
