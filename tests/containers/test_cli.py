"""The command line from end to end, over TCP."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
from programs import toastrack


@pytest.fixture(params=["postgres", "chroma", "qdrant"])
def url(request: pytest.FixtureRequest) -> str:
    name = f"cli_{uuid4().hex[:12]}"
    if request.param == "postgres":
        return f"{request.getfixturevalue('postgres_dsn')}?table={name}"
    if request.param == "chroma":
        host, port = request.getfixturevalue("chroma_server")
        return f"chroma+http://{host}:{port}/{name}"
    return f"qdrant+{request.getfixturevalue('qdrant_url')}/{name}"


def test_ingest_search_and_doctor(url: str, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rye.md").write_text("Rye bread keeps fresh.\n")
    (tmp_path / "salt.md").write_text("Salt is in the dough.\n")
    ingest = ("ingest", str(tmp_path), "--to", url, "--model", str(tiny_folder), "--json")

    first = json.loads(toastrack(*ingest))
    assert (first["embedded"], first["written"]) == (2, 2)
    assert json.loads(toastrack(*ingest))["embedded"] == 0

    found = json.loads(toastrack("search", "rye", "--in", url, "-k", "5", "--json"))
    assert {match["id"] for match in found} == {"rye.md", "salt.md"}

    (tmp_path / "salt.md").unlink()
    assert json.loads(toastrack(*ingest, "--prune"))["deleted"] == 1
    assert "1 records of 1 documents" in toastrack("doctor", "--in", url)
