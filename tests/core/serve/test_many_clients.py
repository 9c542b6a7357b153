"""Many clients at once: one model, shared batches, a queue with an end, and nobody left behind."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from signal import SIGTERM
from typing import Any

import numpy as np
import pytest

from toastrack import Embedder, Reranker

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("orjson", reason="the extra 'serve' is not installed")

from serving import HEAD, SECONDS, Gate, Process, ask, connected, serving, wait_for

from toastrack.serve.app import Limits, Served

KEY = "sk-s3cret-0123456789"


@pytest.fixture
def served(tiny_folder: Path) -> Served:
    return Served(Embedder(tiny_folder, on_truncate="ignore"), ("tiny",))


def body(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": list(texts), **fields}


def vectors(content: Any) -> Any:
    return np.array([item["embedding"] for item in content["data"]], dtype=np.float32)


def test_requests_of_many_clients_share_batches(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(served.embedder, monkeypatch)
    texts = [f"rye {number}" for number in range(64)]
    with serving(served) as address, ThreadPoolExecutor(65) as pool:
        first = pool.submit(ask, address, body=body("salt", input_type="query"))
        assert gate.reached.wait(SECONDS)
        others = [pool.submit(ask, address, body=body(text, input_type="query")) for text in texts]
        wait_for(address, 65, "queries")
        gate.open.set()
        assert first.result().status == 200
        found = np.concatenate([vectors(other.result().content) for other in others])
    assert len(gate.batches) <= 4
    np.testing.assert_allclose(found, served.embedder.embed_queries(texts), atol=1e-6)


def test_a_full_queue_says_when_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(served.embedder, monkeypatch)
    with serving(served, limits=Limits(waiting=4)) as address, ThreadPoolExecutor() as pool:
        running = pool.submit(ask, address, body=body("a", "b", "c"))
        wait_for(address, 3)
        full = ask(address, body=body("d", "e"))
        assert (full.status, full.content["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(full.headers["retry-after"]) <= 30
        # What is asked is no document, and has a queue of its own.
        query = pool.submit(ask, address, body=body("d", "e", input_type="query"))
        wait_for(address, 2, "queries")
        gate.open.set()
        assert running.result().status == query.result().status == 200
        assert ask(address, body=body("d", "e")).status == 200
        # Alone it may be more than may wait.
        assert ask(address, body=body(*"abcdefgh")).status == 200


def test_who_goes_away_frees_the_place(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(served.embedder, monkeypatch)
    with serving(served, limits=Limits(waiting=80)) as address, ThreadPoolExecutor() as pool:
        running = pool.submit(ask, address, body=body("a"))
        assert gate.reached.wait(SECONDS)
        for number in (3, 70):  # tokenised by the worker, and on a thread
            with closing(connected(address)) as connection:
                content = str(body(*["gone"] * number)).replace("'", '"').encode()
                connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(content) + content)
                wait_for(address, 1 + number)
            wait_for(address, 1)
        gate.open.set()
        assert running.result().status == 200
        assert ask(address, body=body("b")).status == 200
    assert gate.batches == [1, 1]  # nothing of what nobody waits for was embedded


def test_a_model_that_fails_is_said_without_its_story(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tokenizer knows a word that its weights have no vector for."""
    folder = tmp_path / "torn"
    shutil.copytree(tiny_folder, folder)
    tokenizer = folder / "tokenizer.json"
    said = json.loads(tokenizer.read_text())
    said["model"]["vocab"]["mouldy"] = len(said["model"]["vocab"])
    tokenizer.write_text(json.dumps(said))
    with serving(Served(Embedder(folder), ("tiny",))) as address:
        reply = ask(address, body=body("mouldy rye"))
        assert ask(address, body=body("rye")).status == 200
    assert (reply.status, reply.content["error"]["type"]) == (500, "server_error")
    assert "torn" not in reply.error
    assert "torn' gives token" in capsys.readouterr().err


def test_a_key_is_asked_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_KEY", KEY)
    with serving(served, key_name="SERVE_KEY") as address:
        for sent in (
            "",
            "Bearer",
            f"Bearer {KEY[:-1]}",
            f"Bearer {KEY}x",
            KEY,
            f"Basic {KEY}",
            "Bearer \xfc",
        ):
            for path in ("/v1/embeddings", "/v1/models", "/v1/models/tiny", "/other"):
                reply = ask(address, path, authorization=sent)
                assert (reply.status, reply.content["error"]["code"]) == (401, "invalid_api_key")
                assert KEY not in reply.error
        assert ask(address, body=b"x" * 100_000).status == 401
        assert ask(address, body=body("rye"), authorization=f"bearer  {KEY} ").status == 200
        assert ask(address, "/health").status == 200


def test_scores_are_those_of_a_local_reranker(served: Served, cross_encoder_folder: Path) -> None:
    reranker = Reranker(cross_encoder_folder)
    both = Served(served.embedder, ("tiny",), reranker, "judge")
    documents = ["rye keeps", "salt the dough", "water", "rye keeps"]
    want = reranker.score("which bread keeps", documents)
    order = [position for position, _ in reranker.rank("which bread keeps", documents)]
    asked = {"model": "judge", "query": "which bread keeps", "documents": documents}
    with serving(both) as address:
        content = ask(address, "/v1/rerank", asked).content
        assert [item["index"] for item in content["results"]] == order
        scores = [item["relevance_score"] for item in content["results"]]
        np.testing.assert_allclose(scores, want[order], atol=1e-6)
        assert content["usage"]["total_tokens"] > 0
        some = {"model": None, "top_n": 2, "return_documents": True, "raw_scores": False}
        content = ask(address, "/rerank", {**asked, **some}).content
        assert [item["document"]["text"] for item in content["results"]] == [
            documents[position] for position in order[:2]
        ]
        scores = [item["relevance_score"] for item in content["results"]]
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-want[order[:2]])), atol=1e-6)
        long = {**asked, "documents": ["rye " * 100]}
        assert ask(address, "/v1/rerank", long).headers["x-toastrack-truncated"] == "1"
        assert ask(address, "/v1/rerank", {**long, "truncate": False}).status == 400
        wrongs: list[dict[str, Any]] = [
            {"query": " "},
            {"query": None},
            {"documents": []},
            {"top_n": 0},
        ]
        for wrong in wrongs:
            assert ask(address, "/v1/rerank", {**asked, **wrong}).status == 400
        assert ask(address, "/v1/rerank", {**asked, "model": "tiny"}).status == 404
        listed = ask(address, "/v1/models").content["data"]
        assert listed[-1]["id"] == "judge"


# -- a process of its own -------------------------------------------------------------------------


def test_a_signal_ends_it_once_what_runs_is_finished(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is in nothing that it says, either."""
    began, go = tmp_path / "began", tmp_path / "go"
    os.mkfifo(began)
    os.mkfifo(go)
    hold = (
        "from toastrack.serve.server import Server\n"
        "run = Server.run\n"
        "def run_held(server, on_ready):\n"
        "    engine = server._served.embedder._worker().engine\n"
        "    embed = engine.run\n"
        "    def held(batch, *, prompt):\n"
        f"        open({str(began)!r}, 'w').close()\n"
        f"        open({str(go)!r}).read()\n"
        "        return embed(batch, prompt=prompt)\n"
        "    engine.run = held\n"
        "    run(server, on_ready)\n"
        "Server.run = run_held\n"
    )
    arguments = ("--model", tiny_folder, "--name", "tiny")
    with (
        Process(*arguments, before=hold, TOASTRACK_API_KEY=KEY) as process,
        ThreadPoolExecutor() as pool,
    ):
        signed = {"authorization": f"Bearer {KEY}"}
        running = pool.submit(ask, process.address, body=body("rye"), **signed)
        began.read_text()
        queued = pool.submit(ask, process.address, body=body("salt"), **signed)
        wait_for(process.address, 2)
        os.kill(process.pid, SIGTERM)
        while True:
            try:
                connected(process.address).close()
            except ConnectionError:
                break
        go.write_text("")
        assert running.result().status == 200
        began.read_text()
        go.write_text("")
        assert queued.result().status == 200
        status, printed, errors = process.program.finish()
    assert (status, printed) == (0, "")
    assert errors == f"tiny at {process.address}/v1\n"


def test_an_address_of_other_machines_needs_a_key(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toastrack.serve.server import Server

    monkeypatch.delenv("SERVE_KEY", raising=False)
    with pytest.raises(ValueError, match="openssl rand -hex 32` prints"):
        Server(served, host="0.0.0.0", key_name="SERVE_KEY")
    monkeypatch.setenv("SERVE_KEY", "two words")
    with pytest.raises(ValueError, match="SERVE_KEY is no key") as caught:
        Server(served, key_name="SERVE_KEY")
    assert "two words" not in str(caught.value)
