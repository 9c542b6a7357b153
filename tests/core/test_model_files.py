"""What is said when a model cannot be fetched: what really happened, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from programs import run

CODE = """
from toastrack import Embedder
from toastrack.errors import ModelError
try:
    Embedder("no-such/model").query_prompt
except ModelError as error:
    print(error)
"""


@contextmanager
def hub(status: int) -> Iterator[str]:
    """A hub of our own that has one file under every name, or one error."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path == "/" else status)
            self.send_header("ETag", '"0"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", "2")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(b"{}")

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def message(endpoint: str, cache: Path) -> str:
    """What a process says that asks this hub for a model, with its cache in that folder."""
    return run(CODE, HF_ENDPOINT=endpoint, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="0").strip()


def test_a_cache_that_cannot_be_written_is_not_called_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with hub(200) as endpoint:
        said = message(endpoint, tmp_path / "file" / "hub")
    assert said.startswith("'no-such/model' cannot be kept in or read from the hub's cache: ")
    assert "Not a directory" in said
    assert str(tmp_path) in said
    assert "HF_HOME" in said
    assert "reached" not in said


def test_an_answer_of_the_hub_is_not_called_unreachable(tmp_path: Path) -> None:
    with hub(400) as endpoint:
        said = message(endpoint, tmp_path)
    assert "'no-such/model' is not in the local cache and the hub answered 400." in said
    assert "reached" not in said


def test_a_hub_that_is_not_there_is_called_unreachable(tmp_path: Path) -> None:
    with hub(200) as endpoint:
        pass
    said = message(endpoint, tmp_path)
    assert "the hub cannot be reached ([Errno" in said
    assert said.endswith("Connect once to download it, or give a local folder.")
