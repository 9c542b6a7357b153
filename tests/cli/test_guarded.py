"""Collections that a framework filled and our guard described, seen by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import Run

from toastrack import Embedder

pytest.importorskip("langchain_chroma", reason="langchain-chroma is not installed")

from langchain_chroma import Chroma

from toastrack_langchain import ToastrackEmbeddings

TEXTS = [f"{flour} bread keeps {days} days" for flour in ("rye", "wheat") for days in range(6)]


def test_doctor_proves_what_was_guarded(run: Run, tmp_path: Path, embedder: Embedder) -> None:
    ours = ToastrackEmbeddings(embedder=embedder)
    ours.guard(Chroma("bread", ours, persist_directory=str(tmp_path))).add_texts(TEXTS)
    code, out, _ = run("doctor", "--in", f"chroma:{tmp_path}/bread", "--json")
    found = {finding["subject"]: finding for finding in json.loads(out)}
    assert found["store"]["state"] == "ok", out
    assert f"space {embedder.space.digest[:12]}" in found["store"]["message"]
    assert found["vectors"]["state"] == "ok"
    assert found["vectors"]["message"].startswith("12 texts embedded again agree")
    assert code == 0
    code, out, _ = run("list", f"chroma:{tmp_path}")
    assert code == 0
    assert "bread" in out
