"""`toastrack serve` on the command line: what it wants to know, and what it says."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest
from programs import Run

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("orjson", reason="the extra 'serve' is not installed")


def test_other_machines_need_a_key(
    run: Run, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOASTRACK_API_KEY", raising=False)
    code, _, err = run("serve", "--model", tiny_folder, "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "--host 0.0.0.0 is an address that other machines reach" in err
    assert "TOASTRACK_API_KEY" in err


def test_an_address_that_cannot_be_had(run: Run, tiny_folder: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("serve", "--model", tiny_folder, "--port", port)
    assert code == 2
    assert f"--port {port} at 127.0.0.1 cannot be had" in err
    code, _, err = run("serve", "--model", tiny_folder, "--host", "no.such.host.invalid")
    assert code == 2
    assert "--host no.such.host.invalid is no address" in err


def test_a_model_that_is_not_there_is_said_before_it_listens(run: Run, tmp_path: Path) -> None:
    code, _, err = run("serve", "--model", tmp_path / "none", "--port", "0")
    assert code == 2
    assert "none" in err
    assert "http://" not in err


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "--name judge is what requests call the reranker"),
        (("tiny", "judge:query"), "--name judge:query is"),
        (("tiny", "tiny:document"), "--name tiny:document says which role"),
        (("",), "is no name that a request could ask for"),
    ],
)
def test_two_that_would_go_by_one_name(
    run: Run, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    """A reranker would take the embedder's place in the list, and hide its space."""
    words = [word for name in names for word in ("--name", name)]
    reranker = "judge:query" if "judge:query" in names else tmp_path / "other" / "judge"
    model = tmp_path / "judge"
    code, _, err = run("serve", "--model", model, "--reranker", reranker, "--port", 0, *words)
    assert code == 2
    assert said in " ".join(err.split())


def test_its_help_teaches(run: Run) -> None:
    code, out, _ = run("serve", "--help")
    assert code == 0
    for word in ("/v1/embeddings", "MODEL:query", "TOASTRACK_API_KEY", "--reranker", "--port"):
        assert word in out
