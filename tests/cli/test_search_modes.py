"""``toastrack ingest --text-index`` and ``toastrack search --mode``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import Run

from toastrack.stores import open_store


def test_what_was_ingested_with_an_index_of_words_is_found_by_them(
    run: Run, tmp_path: Path, docs: Path, tiny_folder: Path
) -> None:
    models = pytest.importorskip("qdrant_client.models", reason="no extra 'qdrant'")
    if not hasattr(models, "TextQuery"):
        pytest.skip("qdrant-client before 1.20 has no search by words")
    address = f"qdrant:{tmp_path / 'store'}/docs"
    words = ("ingest", docs, "--to", address, "--model", tiny_folder)
    assert run(*words)[0] == 0
    asked = ("search", "is the dough salt?", "--in", address, "--json")
    code, _, err = run(*asked, "--mode", "text")
    assert code == 2
    assert "toastrack ingest --text-index english" in err
    assert run(*words, "--text-index", "english")[0] == 0
    for mode, kind in (("text", "text"), ("hybrid", "rrf"), ("vector", "cosine")):
        code, out, _ = run(*asked, "--mode", mode)
        found = json.loads(out)
        assert code == 0
        assert {match["score_kind"] for match in found} == {kind}
        assert len(found) == (1 if mode == "text" else 2)
    assert run(*asked, "--mode", "words")[0] == 2
    code, _, err = run(*words, "--text-index", "german")
    assert code == 2
    assert "language='english'" in err


def test_a_host_without_words_says_so_before_the_load(
    run: Run, tmp_path: Path, docs: Path, tiny_folder: Path
) -> None:
    pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    address = f"chroma:{tmp_path / 'store'}/docs"
    words = ("ingest", docs, "--to", address, "--model", tiny_folder)
    code, _, err = run(*words, "--text-index", "english")
    assert code == 2
    assert "cannot be searched by the words of its texts" in err
    with open_store(address, create=False) as store:
        assert store.count() == 0
    assert run(*words)[0] == 0
    code, _, err = run("search", "salt", "--in", address, "--mode", "hybrid")
    assert code == 2
    assert "cannot be searched by the words of its texts" in err


def test_no_language_is_said_before_the_load(
    run: Run, url: str, docs: Path, tiny_folder: Path
) -> None:
    words = ("ingest", docs, "--to", url, "--model", tiny_folder, "--text-index", "klingon")
    code, _, err = run(*words)
    assert code == 2
    assert "language='klingon'" in err
    with open_store(url, create=False) as store:
        assert store.count() == 0
