"""The commands that only look: ``list``, ``embed``, ``doctor``, and what a search shows."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import SECONDS, Run

from toastrack import Embedder, Record
from toastrack.cli import doctor, extras
from toastrack.stores import open_store

RECORDS = [Record("rye", "Rye keeps.", {"n": 1}, document_id="a"), Record("salt", "Salt slows.")]


def fill(url: str, embedder: Embedder) -> None:
    with open_store(url, embedder) as store:
        store.upsert(RECORDS)
        store.build_index()


# -- list ---------------------------------------------------------------------------------------


def check_list(run: Run, base: str, embedder: Embedder, of: Callable[[str], str]) -> Any:
    """Fill two collections and list them; ``of`` makes a URL of a collection's name."""
    for name in ("one", "two"):
        fill(of(name), embedder)
    code, out, err = run("list", base, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["name"].rpartition(".")[2] for row in rows] == ["one", "two"]
    for row in rows:
        assert (row["records"], row["documents"]) == (2, 2)
        assert row["model"] == embedder.model
        assert row["space"] == embedder.space.digest
        assert row["dimensions"] == 32
        assert row["host"]
        assert row["index"]
    (row,) = json.loads(run("list", of("two"), "--json")[1])
    assert row["name"].endswith("two")
    code, out, _ = run("list", base)
    assert code == 0
    assert "one" in out
    assert "records" in out
    return rows


def test_list_names_the_tables_of_a_server(
    run: Run, url: str, embedder: Embedder, schema: str
) -> None:
    base = url.replace("table=docs&", "")
    rows = check_list(run, base, embedder, lambda name: f"{base}&table={name}")
    assert rows[0]["name"] == f"{schema}.one"
    assert rows[0]["index"] == "hnsw (m=16, ef_construction=64)"
    assert rows[0]["storage"] == "halfvec(32)"
    assert rows[0]["bytes"] > 0
    assert ", pgvector 0." in rows[0]["host"]


def test_list_names_the_collections_of_a_qdrant(
    run: Run, tmp_path: Path, embedder: Embedder
) -> None:
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    base = f"qdrant:{tmp_path / 'store'}"
    check_list(run, base, embedder, lambda name: f"{base}/{name}")


def test_list_names_the_collections_of_a_chroma(
    run: Run, tmp_path: Path, embedder: Embedder
) -> None:
    pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    base = f"chroma:{tmp_path / 'store'}"
    rows = check_list(run, base, embedder, lambda name: f"{base}/{name}")
    assert rows[0]["index"].startswith("hnsw (")


def test_list_names_those_of_a_chroma_server(
    run: Run, chroma_database: tuple[str, int, str], embedder: Embedder
) -> None:
    host, port, _ = chroma_database
    base = f"chroma+http://{host}:{port}"
    fill(f"{base}/three", embedder)
    code, out, _ = run("list", base, "--json")
    assert code == 0
    assert "three" in [row["name"] for row in json.loads(out)]


def test_list_leaves_others_tables_alone(
    run: Run, url: str, postgres_dsn: str, schema: str
) -> None:
    import psycopg

    base = url.replace("table=docs&", "")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"create table {schema}.mine (id int, embedding vector(3))")
        connection.execute(f"comment on column {schema}.mine.embedding is 'toastrack is nice'")
    code, out, _ = run("list", base)
    assert (code, out.strip()) == (0, "Nothing is stored there by toastrack.")


def test_list_tells_of_a_collection_that_cannot_be_opened(
    run: Run, url: str, embedder: Embedder, postgres_dsn: str, schema: str
) -> None:
    import psycopg

    base = url.replace("table=docs&", "")
    for name in ("one", "two"):
        fill(f"{base}&table={name}", embedder)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"alter table {schema}.one drop column chunk")
    code, out, _ = run("list", base, "--json")
    one, two = json.loads(out)
    assert code == 0
    assert (one["name"], "lacks the columns chunk" in one["error"]) == ("one", True)
    assert two["records"] == 2
    assert "\none cannot be opened: Table " in run("list", base)[1]


@pytest.mark.parametrize("command", ["list", "search"])
@pytest.mark.parametrize("scheme", ["postgres+embedded", "qdrant", "chroma"])
def test_looking_makes_no_folder(run: Run, tmp_path: Path, scheme: str, command: str) -> None:
    folder = tmp_path / "typo"
    place = f"{scheme}:{folder}" + ("" if scheme.startswith("postgres") else "/docs")
    code, _, err = run(*(("list", place) if command == "list" else ("search", "x", "--in", place)))
    assert code == 2
    assert "There is no " in err
    assert not folder.exists()


# -- embed --------------------------------------------------------------------------------------


def test_embed_prints_vectors(run: Run, tiny_folder: Path, embedder: Embedder) -> None:
    texts = ["rye bread", "salt"]
    words = ("embed", *texts, "--model", tiny_folder)
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    # To the bit, or as close as another run of the model is.
    expected = embedder.embed_documents(texts)
    np.testing.assert_allclose(np.array(json.loads(out), np.float32), expected, atol=1e-6)
    code, out, _ = run(*words, "--role", "query", "--format", "pgvector")
    lines = out.splitlines()
    assert all(line.startswith("[") and " " not in line for line in lines)
    found = np.array([json.loads(line) for line in lines], np.float32)
    np.testing.assert_allclose(found, embedder.embed_queries(texts), atol=1e-6)


@pytest.mark.rest
def test_embed_prints_a_file_for_numpy(tiny_folder: Path, embedder: Embedder) -> None:
    program = Path(sys.executable).with_name("toastrack")
    words: list[str | Path] = [
        program,
        "embed",
        "rye",
        "--model",
        str(tiny_folder),
        "--format",
        "numpy",
    ]
    printed = subprocess.run(words, capture_output=True, check=True, timeout=SECONDS).stdout
    found = np.load(io.BytesIO(printed))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, embedder.embed_documents(["rye"]), atol=1e-6)


# -- doctor -------------------------------------------------------------------------------------


def findings(run: Run, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    code, out, _ = run("doctor", *words, "--json")
    return code, {finding["subject"]: finding for finding in json.loads(out)}


def test_doctor_describes_how_a_store_is_kept(run: Run, url: str, embedder: Embedder) -> None:
    fill(url, embedder)
    code, found = findings(run, "--in", url)
    assert code == 0
    assert found["index"]["message"] == "hnsw (m=16, ef_construction=64)"
    assert "; halfvec(32), " in found["storage"]["message"]
    assert ", pgvector 0." in found["storage"]["message"]
    assert list(found)[-1] == "next"
    assert "toastrack search" in found["next"]["message"]


def test_doctor_tries_what_is_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError(f"{name}: no such shared object")

    monkeypatch.setattr(doctor, "import_module", broken)
    code, found = findings(run)
    assert code == 1
    assert found["extra postgres"]["state"] == "wrong"
    assert (
        "cannot be imported (psycopg: no such shared object)" in found["extra postgres"]["message"]
    )
    assert found["next"]["message"].startswith("see to the extra ")


def test_doctor_says_that_nothing_can_embed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = ("openvino", "sentence_transformers", "tokenizers", "httpx")
    for module in (doctor, extras):
        monkeypatch.setattr(module, "is_installed", lambda package: package not in engines)
    code, found = findings(run)
    assert code == 1
    assert "nothing can embed: " in found["engine"]["message"]
    assert "Run: pip install " in found["engine"]["message"]
    assert found["next"]["message"].startswith("see to the engine")


@pytest.mark.parametrize("words", ["search x --in", "ingest - --to"])
def test_all_that_is_missing_is_said_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    lacking = ("psycopg", "openvino", "sentence_transformers", "tokenizers", "httpx")
    monkeypatch.setattr(extras, "is_installed", lambda package: package not in lacking)
    code, _, err = run(*words.split(), "postgresql://nowhere/db")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: 'psycopg', 'openvino', 'tokenizers' are not installed. Run: pip")
    assert "[postgres,openvino]" in line
    if words.startswith("ingest"):
        letter = tmp_path / "letter.docx"
        letter.touch()
        monkeypatch.setitem(sys.modules, "mammoth", None)
        ingest = ("ingest", tmp_path, "--to", "postgresql://nowhere/db")
        _, _, err = run(*ingest)
        assert "'psycopg', 'openvino', 'tokenizers', 'mammoth' are not installed" in err
        assert "[postgres,openvino,files]" in err
        assert err.startswith(
            f"error: {letter} needs the extra 'files'; --skip-bad leaves it out. "
        )
        assert "mammoth" not in run(*ingest, "--skip-bad")[2]
    # What is wrong with the words comes first.
    assert "is no condition" in run("search", "x", "--filter", "nothing")[2]
    assert "no/folder" in run("ingest", "no/folder")[2]
    assert "NAME=TYPE" in run("ingest", "-", "--column-type", "year")[2]


# -- on a terminal ------------------------------------------------------------------------------


def on_a_terminal(*words: str | Path) -> tuple[bytes, bytes]:
    """Run the program with a terminal for its errors; return its output, and what was drawn there."""
    program = Path(sys.executable).with_name("toastrack")
    main, other = pty.openpty()
    with subprocess.Popen(
        [program, *words],
        stdout=subprocess.PIPE,
        stderr=other,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(other)
        drawn = b""
        try:
            while piece := os.read(main, 65_536):
                drawn += piece
        except OSError:  # Linux' way to say that nobody writes any more
            pass
        answer, _ = process.communicate(timeout=SECONDS)
    os.close(main)
    assert process.returncode == 0, drawn
    return answer, drawn


def left_on(drawn: bytes) -> str:
    """Return what stands on a terminal in the end, as rich draws: lines, erased and gone back over."""
    lines, at = [""], 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]+", drawn.decode()):
        if piece == "\x1b[2K":
            lines[at] = ""
        elif piece == "\x1b[1A":
            at -= 1
        elif not piece.startswith("\x1b"):
            for letter in piece:
                if letter == "\n":
                    at += 1
                    lines += [""] * (at == len(lines))
                elif letter != "\r":
                    lines[at] += letter
    return "\n".join(lines).strip()


@pytest.mark.rest
def test_a_terminal_shows_the_loading_and_keeps_no_bar(tiny_folder: Path) -> None:
    """What stands on the screen at the end is the answer alone."""
    answer, drawn = on_a_terminal("embed", "rye", "--model", tiny_folder)
    assert len(json.loads(answer)[0]) == 32
    assert b"loading the model" in drawn
    assert left_on(drawn) == ""


def test_an_ingest_shows_how_far_it_is_and_keeps_no_bar(
    url: str, tmp_path: Path, tiny_folder: Path
) -> None:
    """What stands on the screen at the end is what was left out, and on no line with a bar."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.md").write_text(f"Loaf {number} is rye.", encoding="utf-8")
    (folder / "blank.md").touch()
    answer, drawn = on_a_terminal("ingest", folder, "--to", url, "--model", tiny_folder)
    assert answer.startswith(b"40 documents (40 chunks): 40 embedded")
    assert b"loading the model" in drawn
    assert b"40 embedded, 0 unchanged" in drawn
    assert b"building the index" in drawn
    # A long path is cut into lines of the terminal's width.
    left = left_on(drawn).replace("\n", "")
    assert re.fullmatch(r"left out: .*blank\.md: there is no text in it\.", left), left
