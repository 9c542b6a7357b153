"""The command line and a server that misbehaves: what is right, or one clear line and an exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_server import ModelServer, random_vectors, serving
from programs import Run
from server_troubles import KEY, OF_VECTORS, Trouble, hurry, is_clear

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")
pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

QUERY = "which bread keeps?"
COMMANDS = ["ingest", "search", "doctor", "embed"]
# A program that has just started does not know of any other size.
TROUBLES = [trouble for trouble in OF_VECTORS if "size" not in trouble.name]


def cases() -> Iterator[Any]:
    """Yield each trouble with each command; ``make test`` has what is usual, with two of them."""
    for trouble in TROUBLES:
        for command in COMMANDS:
            is_usual = trouble.usual and command in ("ingest", "search")
            marks = () if is_usual else pytest.mark.rest
            yield pytest.param(command, trouble, marks=marks, id=f"{command}-{trouble.name}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setenv("TOASTRACK_API_KEY", KEY)
    with serving(ModelServer(random_vectors(4), key=KEY)) as running:
        yield running


@pytest.mark.filterwarnings("ignore:Texts for .tiny. are split at")
@pytest.mark.parametrize(("command", "trouble"), list(cases()))
def test_what_is_right_or_one_clear_line(
    command: str,
    trouble: Trouble,
    run: Run,
    docs: Path,
    tmp_path: Path,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    url = f"qdrant:{tmp_path}/qdrant/docs"
    code, _, err = run("ingest", docs, "--to", url, "--base-url", server.url, "--model", "tiny")
    assert code == 0, err
    (docs / "crust.md").write_text("Steam makes the crust thin.\n")
    words = {
        "ingest": ("ingest", docs, "--to", url, "--json"),
        "search": ("search", QUERY, "--in", url, "--json"),
        "doctor": ("doctor", "--in", url, "--json"),
        "embed": ("embed", QUERY, "--base-url", server.url, "--model", "tiny"),
    }[command]
    with monkeypatch.context() as patch:
        hurry(trouble, patch)
        server.faults = list(trouble.faults)
        code, out, err = run(*words)
    server.faults = []
    assert KEY not in out + err
    record_property("outcome", f"exit code {code}")
    if trouble.says is not None:
        _check_error(command, trouble, code, out, err)
    else:
        assert code == 0, out + err
        if command == "embed":
            np.testing.assert_allclose(json.loads(out)[0], _unit(QUERY), atol=1e-6)
    if command == "doctor":
        return
    # Whatever happened, what is stored is right; and what is not can be stored now.
    code, out, err = run("ingest", docs, "--to", url, "--json")
    assert code == 0, err
    code, out, err = run("search", QUERY, "--in", url, "--json")
    found = json.loads(out)
    assert len(found) == 3
    for match in found:
        assert match["score"] == pytest.approx(float(_unit(match["text"]) @ _unit(QUERY)), abs=1e-5)


def _check_error(command: str, trouble: Trouble, code: int, out: str, err: str) -> None:
    says = trouble.says or ""
    if command == "doctor":
        wrong = [finding["message"] for finding in json.loads(out) if finding["state"] == "wrong"]
        assert code == 1
        assert any(re.search(says, message) and is_clear(message) for message in wrong), wrong
        return
    assert code == (1 if trouble.away else 2)
    assert not out
    lines = err.splitlines()
    assert len(lines) == 1
    assert re.search(says, lines[0]), err
    assert is_clear(lines[0])


def _unit(text: str) -> Any:
    vector = random_vectors(4)([text], "")[0]
    return vector / np.linalg.norm(vector)
