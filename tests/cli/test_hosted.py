"""The command line with a model on a server: named once, recorded, and asked there again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_server import ModelServer, random_vectors, serving
from programs import Run

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")

KEY = "sk-s3cret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setenv("TOASTRACK_API_KEY", KEY)

    def score(query: str, texts: object) -> list[float]:
        return [float(len(text)) for text in texts]  # type: ignore[attr-defined]

    with serving(ModelServer(random_vectors(16), key=KEY, score=score)) as running:
        yield running


@pytest.mark.filterwarnings("ignore:Texts for .tiny. are split at")
def test_a_store_remembers_the_server_and_needs_the_key_alone(
    run: Run, docs: Path, url: str, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(
        "ingest", docs, "--to", url, "--base-url", server.url, "--model", server.model
    )
    assert code == 0, err
    assert KEY not in out + err
    code, out, err = run(
        "search",
        "salt",
        "--in",
        url,
        "--json",
        "--reranker-url",
        server.url,
        "--reranker",
        server.model,
    )
    assert code == 0, err
    assert [match["id"] for match in json.loads(out)] == ["rye.md", "salt.md"]
    code, out, err = run("doctor", "--in", url)
    assert f"hosted: tiny at {server.url}" in out
    assert KEY not in out + err
    monkeypatch.delenv("TOASTRACK_API_KEY")
    code, _, err = run("search", "salt", "--in", url)
    assert code != 0
    assert "It was looked for in TOASTRACK_API_KEY" in err


@pytest.mark.filterwarnings("ignore:Texts for .tiny. are split at")
def test_list_asks_no_server_and_shows_one_that_would_not_be_asked(
    run: Run, docs: Path, url: str, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--base-url", server.url, "--model", server.model)
    assert run("ingest", docs, "--to", url, *words)[0] == 0
    asked = len(server.seen)
    monkeypatch.setattr("toastrack.hosted.settings._is_loopback", lambda host: False)
    monkeypatch.delenv("TOASTRACK_API_KEY")
    code, out, err = run("list", url, "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert (row["model"], row["records"], row["dimensions"]) == ("tiny", 2, 16)
    assert len(server.seen) == asked
    code, _, err = run("search", "salt", "--in", url)
    assert code == 2
    assert "or --allow-http in" in err


def test_embed_prints_the_vectors_of_a_server(run: Run, server: ModelServer) -> None:
    code, out, err = run("embed", "rye", "--base-url", server.url, "--model", server.model)
    assert code == 0, err
    assert len(json.loads(out)[0]) == 16


def test_an_address_that_cannot_be_is_exit_code_2(run: Run) -> None:
    code, _, err = run("embed", "rye", "--base-url", "http://192.168.0.7/v1")
    assert code == 2
    assert "--base-url http://192.168.0.7/v1 would send" in err
    assert "or --allow-http in" in err
