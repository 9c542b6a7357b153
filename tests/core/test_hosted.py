"""Models on a server: right vectors or one clear error, whatever the server does."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

import numpy as np
import pytest
from forks import Child
from model_server import (
    Handler,
    ModelServer,
    changed,
    hang_up,
    random_vectors,
    raw,
    serving,
    status,
)
from models import MXBAI_PROMPT
from server_troubles import KEY, with_locals

from toastrack import Embedder, EmbeddingSpace, Hosted, Reranker
from toastrack.errors import ModelError, NoAnswerError, RefusedError, TruncationError
from toastrack.utils import arrays

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")

TEXTS = ["Rye bread keeps for a week.", "Salt the dough.", "why is the crust brown?"]

Start = Callable[..., ModelServer]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers that end with the test."""
    with ExitStack() as stack:

        def started(**options: Any) -> ModelServer:
            options.setdefault("embed", random_vectors(24))
            return stack.enter_context(serving(ModelServer(**options)))

        yield started


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MXBAI_API_KEY", "OPENAI_API_KEY", "TOASTRACK_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note how long would have been waited between two tries, and wait no time."""
    waits: list[float] = []
    monkeypatch.setattr("toastrack.hosted.client.sleep", waits.append)
    return waits


def hosted(server: ModelServer, **options: Any) -> Embedder:
    """An embedder over a server, with settings of its own and of its engine."""
    own = {
        name: options.pop(name)
        for name in ("query_prompt", "document_prompt", "dimensions", "max_tokens", "on_truncate")
        if name in options
    }
    return Embedder(server.model, engine=Hosted(base_url=server.url, **options), **own)


def expected(texts: Sequence[str], size: int = 24, keep: int | None = None) -> arrays.FloatMatrix:
    rows = random_vectors(size)(texts, "")[:, :keep]
    unit: arrays.FloatMatrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


# -- right answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["openai", "tei"])
@pytest.mark.parametrize("encodes", [False, True])
def test_vectors_are_those_of_the_server_at_length_one(
    start: Start, encodes: bool, shape: str
) -> None:
    server = start(encodes=encodes, shape=shape)
    embedder = hosted(server)
    vectors = embedder.embed_documents(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(TEXTS), atol=1e-6)
    np.testing.assert_allclose(embedder.embed_query(TEXTS[0]), expected(TEXTS)[0], atol=1e-6)


def test_nothing_but_text_model_and_format_is_sent(start: Start) -> None:
    server = start()
    hosted(server, dimensions=8).embed_documents(TEXTS)
    for body in server.asked:
        assert sorted(body) == ["encoding_format", "input", "model"]
        assert all(isinstance(text, str) for text in body["input"])


def test_dimensions_are_cut_here_or_by_the_server(start: Start) -> None:
    server = start()
    here = hosted(server, dimensions=8)
    there = hosted(server, dimensions=8, dimensions_by="server")
    for embedder in (here, there):
        np.testing.assert_allclose(
            embedder.embed_documents(TEXTS), expected(TEXTS, keep=8), atol=1e-6
        )
        assert embedder.dimensions == embedder.space.dimensions == 8
    assert {body.get("dimensions") for body in server.asked} == {None, 8}
    with pytest.raises(ValueError, match="more than the 24"):
        hosted(server, dimensions=25).embed_documents(TEXTS)


def test_a_prompt_goes_in_front_or_beside(start: Start) -> None:
    server = start()
    prompts = {"query_prompt": "query: ", "document_prompt": "passage: "}
    for prompt_by in ("prefix", "field"):
        embedder = hosted(server, prompt_by=prompt_by, **prompts)
        query = embedder.embed_query("rye")
        np.testing.assert_allclose(query, expected(["query: rye"])[0], atol=1e-6)
        document = embedder.embed_documents(["rye", "passage: salt"])
        np.testing.assert_allclose(document, expected(["passage: rye", "passage: salt"]), atol=1e-6)
    sent = [(body.get("prompt"), body["input"]) for body in server.asked]
    assert (None, ["query: rye"]) in sent
    assert ("query: ", ["rye"]) in sent


def test_a_role_is_named_where_it_was_asked_for(start: Start) -> None:
    server = start()
    embedder = hosted(server, prompt_by="role", query_prompt="query: ")
    embedder.embed_query("rye")
    embedder.embed_documents(["rye"])
    asked = [(body.get("input_type"), body["input"]) for body in server.asked[-2:]]
    assert asked == [("query", ["rye"]), ("document", ["rye"])]


def test_the_prompt_of_a_known_model_is_put_in_front(start: Start) -> None:
    server = start(model="mixedbread-ai/mxbai-embed-large-v1")
    embedder = hosted(server)
    embedder.embed_query("rye")
    assert server.asked[-1]["input"] == [MXBAI_PROMPT + "rye"]
    assert embedder.query_prompt == MXBAI_PROMPT


def test_mixedbread_gets_prompts_beside_the_texts_and_256_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hosted, "is_mixedbread", True)
    server = start(model="mixedbread-ai/mxbai-embed-large-v1")
    embedder = hosted(server)
    query = embedder.embed_query("rye")
    np.testing.assert_allclose(query, expected([MXBAI_PROMPT + "rye"])[0], atol=1e-6)
    assert (server.asked[-1]["prompt"], server.asked[-1]["input"]) == (MXBAI_PROMPT, ["rye"])
    texts = [f"text {number}" for number in range(600)]
    np.testing.assert_allclose(embedder.embed_documents(texts), expected(texts), atol=1e-6)
    # Several are under way at once.
    assert sorted(len(body["input"]) for body in server.asked[-3:]) == [88, 256, 256]
    assert all("prompt" not in body for body in server.asked[-3:])
    assert {seen.path for seen in server.seen} == {"/v1/embeddings"}


def test_batches_hold_so_many_texts_as_the_server_takes(start: Start) -> None:
    texts = [f"text {number}" for number in range(70)]
    server = start()
    vectors = hosted(server, batch_size=32).embed_documents(texts)
    np.testing.assert_allclose(vectors, expected(texts), atol=1e-6)
    assert sorted(len(body["input"]) for body in server.asked) == [1, 6, 32, 32]


def test_what_is_too_much_is_sent_in_halves(start: Start) -> None:
    texts = [f"text {number}" for number in range(30)]
    server = start(most_texts=8)
    embedder = hosted(server)
    np.testing.assert_allclose(embedder.embed_documents(texts), expected(texts), atol=1e-6)
    asked = len(server.asked)
    again = [f"other {number}" for number in range(30)]
    np.testing.assert_allclose(embedder.embed_documents(again), expected(again), atol=1e-6)
    assert all(len(body["input"]) <= 8 for body in server.asked[asked:])


def test_no_texts_are_no_request(start: Start) -> None:
    server = start()
    assert hosted(server, dimensions=8).embed_documents([]).shape == (0, 8)
    assert not server.seen


def test_usage_counts_requests_and_tokens(start: Start) -> None:
    server = start()
    embedder = hosted(server).load()
    before = embedder.usage
    embedder.embed_documents(["one two three", "four"])
    assert tuple(now - then for now, then in zip(embedder.usage, before, strict=True)) == (1, 4)


def test_a_model_that_runs_here_uses_nothing() -> None:
    assert Embedder("runs/here").usage == (0, 0)


# -- many at once ---------------------------------------------------------------------------------


def test_queries_at_once_share_requests(start: Start) -> None:
    server = start()
    embedder = hosted(server, batch_size=256).load()
    texts = [f"question {number}" for number in range(64)]

    def held(ask: Callable[[], Any]) -> tuple[Any, int]:
        """Ask while the server is busy with the first; it goes on when all are there."""
        asked = len(server.asked)
        server.release = Event()
        with ThreadPoolExecutor(1) as one:
            answers = one.submit(ask)
            _wait_until(lambda: _waiting(embedder) + _sent(server, asked) == len(texts))
            server.release.set()
            return answers.result(), len(server.asked) - asked

    def threads() -> list[arrays.FloatVector]:
        with ThreadPoolExecutor(len(texts)) as pool:
            return list(pool.map(embedder.embed_query, texts))

    async def tasks() -> list[arrays.FloatVector]:
        return await asyncio.gather(*map(embedder.aembed_query, texts))

    for ask in (threads, lambda: asyncio.run(tasks())):
        vectors, requests = held(ask)
        np.testing.assert_allclose(vectors, expected(texts), atol=1e-6)
        assert requests <= 4


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_load_of_documents_has_four_requests_under_way(start: Start, asynchronous: bool) -> None:
    server = start()
    embedder = hosted(server, batch_size=8).load()
    texts = [f"text {number}" for number in range(100)]
    asked = len(server.asked)
    server.release = Event()

    def load() -> arrays.FloatMatrix:
        if asynchronous:
            return asyncio.run(embedder.aembed_documents(texts))
        return embedder.embed_documents(texts)

    with ThreadPoolExecutor(1) as one:
        vectors = one.submit(load)
        _wait_until(lambda: len(server.asked) - asked == 4)
        server.release.set()
        np.testing.assert_allclose(vectors.result(), expected(texts), atol=1e-6)
    assert server.most_running == 4
    assert len(server.asked) - asked == 13


def test_a_question_passes_documents_that_are_under_way(start: Start) -> None:
    server = start()
    embedder = hosted(server, batch_size=8).load()

    def held(texts: Sequence[str], role: str) -> arrays.FloatMatrix:
        if texts[0].startswith("text"):
            server.over.wait()
        return random_vectors(24)(texts, role)

    server.embed = held
    with ThreadPoolExecutor(1) as one:
        documents = one.submit(embedder.embed_documents, [f"text {n}" for n in range(100)])
        _wait_until(lambda: server.running == 4)
        np.testing.assert_allclose(embedder.embed_query("rye"), expected(["rye"])[0], atol=1e-6)
        server.over.set()
        assert documents.result().shape == (100, 24)


def _waiting(embedder: Embedder) -> int:
    return len(embedder._encoder("query")._worker._queries)


def _sent(server: ModelServer, since: int) -> int:
    return sum(len(body["input"]) for body in server.asked[since:])


def _wait_until(is_so: Callable[[], bool]) -> None:
    turn = Event()
    while not is_so():
        turn.wait(0.001)


def test_three_event_loops_and_twenty_threads_share_an_embedder(start: Start) -> None:
    server = start()
    embedder = hosted(server)
    texts = [f"text {number}" for number in range(40)]

    async def ask() -> list[arrays.FloatVector]:
        return await asyncio.gather(*map(embedder.aembed_query, texts))

    with ThreadPoolExecutor(20) as pool:
        single = [pool.submit(embedder.embed_query, text) for text in texts[:17]]
        loops = [pool.submit(asyncio.run, ask()) for _ in range(3)]
        np.testing.assert_allclose(
            [one.result() for one in single], expected(texts[:17]), atol=1e-6
        )
        for loop in loops:
            np.testing.assert_allclose(loop.result(), expected(texts), atol=1e-6)


@pytest.mark.parametrize("what", ["queries", "documents", "tasks", "refused", "reranked"])
def test_the_connection_goes_with_the_last_who_asked(start: Start, what: str) -> None:
    server = start(most_characters=50, score=lambda query, documents: [1.0] * len(documents))
    if what == "reranked":
        reranker: Any = Reranker(server.model, engine=Hosted(base_url=server.url))
        reranker.score("bread", TEXTS)
    embedder: Any = hosted(server)
    if what == "queries":
        embedder.embed_query(TEXTS[0])
    elif what == "documents":
        embedder.embed_documents(TEXTS)
    elif what == "tasks":
        asyncio.run(embedder.aembed_documents(TEXTS))
    elif what == "refused":
        with pytest.raises(RefusedError):
            embedder.embed_query("x" * 51)
    assert not server.ended.acquire(blocking=False)
    reranker = embedder = None
    gc.collect()
    assert server.ended.acquire(timeout=30)


def test_a_text_that_is_refused_fails_for_who_sent_it_alone(start: Start) -> None:
    server = start(most_characters=50)
    embedder = hosted(server, batch_size=256).load()
    texts = [f"question {number}" for number in range(8)]
    server.release = Event()
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(embedder.embed_query, "first")
        _wait_until(lambda: len(server.asked) == 2)
        bad = pool.submit(embedder.embed_query, "x" * 51)
        good = [pool.submit(embedder.embed_query, text) for text in texts]
        _wait_until(lambda: _waiting(embedder) == 9)
        server.release.set()
        assert first.result().shape == (24,)
        np.testing.assert_allclose([one.result() for one in good], expected(texts), atol=1e-6)
        with pytest.raises(RefusedError, match=r"51 characters .status 400.: a text is too long"):
            bad.result()


def test_a_cancelled_question_holds_nobody_up(start: Start) -> None:
    server = start()
    embedder = hosted(server).load()

    async def main() -> arrays.FloatVector:
        server.release = Event()
        waiting = asyncio.create_task(embedder.aembed_query("gone"))
        while len(server.asked) < 2:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        server.release.set()
        return await embedder.aembed_query("rye")

    np.testing.assert_allclose(asyncio.run(main()), expected(["rye"])[0], atol=1e-6)


# -- servers that misbehave -----------------------------------------------------------------------


# What else they do is in tests/contract_embeddings/test_server_troubles.py.


def test_the_second_try_answers_where_the_first_was_silent(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[float | None] = []

    class Impatient(SimpleQueue[Any]):
        """Waits no time for the first answer."""

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if not given_up:
                given_up.append(timeout)
                raise Empty  # as if the server had been silent
            return super().get(block, timeout)

    server = start()
    embedder = hosted(server).load()
    monkeypatch.setattr("toastrack.hosted.client.SimpleQueue", Impatient)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert given_up[0] is not None
    assert given_up[0] <= 30


def test_a_text_that_is_too_large_makes_no_later_request_smaller(start: Start) -> None:
    def one_text_is(handler: Handler, answer: dict[str, Any]) -> dict[str, Any] | None:
        if any(len(text) > 50 for text in server.asked[-1]["input"]):
            handler.send({"error": "too large"}, 413)
            return None
        return answer

    server = start()
    embedder = hosted(server).load()
    server.faults = [one_text_is] * 9
    with pytest.raises(RefusedError, match="refuses 1 texts, the longest of 60 characters"):
        embedder.embed_documents([*TEXTS, "x" * 60])
    server.faults = []
    asked = len(server.asked)
    embedder.embed_documents([f"text {number}" for number in range(32)])
    assert len(server.asked) - asked == 1


def test_waits_grow_and_are_as_long_as_the_server_asks(start: Start, no_waits: list[float]) -> None:
    server = start()
    embedder = hosted(server).load()
    server.faults = [status(500), status(429, retry_after="7"), status(500)]
    embedder.embed_documents(TEXTS)
    first, asked, third = no_waits
    assert 0 < first <= 0.5
    assert asked == 7
    assert 1 < third <= 2


def test_a_server_that_is_not_there_is_one_error() -> None:
    embedder = Embedder("m", engine=Hosted(base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(
        ModelError, match=r"127\.0\.0\.1 did not answer after 4 tries: ConnectError"
    ):
        embedder.embed_query("rye")


def test_a_certificate_that_is_not_trusted_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waits: list[float]
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes a certificate, is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    named = ["-subj", "/CN=bakery", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *named]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(ModelServer(random_vectors(24)), tls) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(ModelError, match=r"certificate is not trusted .*SSL_CERT_FILE"):
            Embedder(server.model, engine=Hosted(base_url=url)).embed_query("rye")
        assert not no_waits
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = Embedder(server.model, engine=Hosted(base_url=url, timeout=59))
        np.testing.assert_allclose(trusting.embed_query("rye"), expected(["rye"])[0], atol=1e-6)


def test_https_where_http_is_spoken_is_one_error(start: Start) -> None:
    url = start().url.replace("http:", "https:")
    with pytest.raises(NoAnswerError, match=r"4 tries: ConnectError.*SSL"):
        Embedder("tiny", engine=Hosted(base_url=url)).embed_query("rye")


def test_another_size_later_on_is_another_model(start: Start) -> None:
    server = start()
    embedder = hosted(server).load()
    server.embed = random_vectors(25)
    with pytest.raises(ModelError, match="25 numbers, and did with 24: another model"):
        embedder.embed_documents(TEXTS)


def test_a_server_without_dimensions_of_its_own_is_found_out(start: Start) -> None:
    server = start()
    server.faults = [changed(lambda answer: None)]
    embed = server.embed
    server.embed = lambda texts, role: np.repeat(embed(texts, role), 2, axis=1)[:, ::2]

    def whole(answer: dict[str, Any]) -> None:
        for item in answer["data"]:
            item["embedding"] += [1.0] * 16

    server.faults = [changed(whole)]
    with pytest.raises(ModelError, match="24 numbers where 8 were asked for"):
        hosted(server, dimensions=8, dimensions_by="server").embed_documents(TEXTS)


def test_text_that_is_no_unicode_is_named(start: Start) -> None:
    server = start()
    with pytest.raises(ValueError, match="text 1 holds a lone surrogate"):
        hosted(server).embed_documents(["rye", "\ud800"])


# -- the key --------------------------------------------------------------------------------------


def _return_key() -> str:
    return KEY


def test_the_key_is_nowhere_but_in_the_request(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOASTRACK_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server = start(key=KEY)
    embedder = hosted(server).load()
    embedder.embed_query("rye")
    assert {seen.headers.get("authorization") for seen in server.seen} == {f"Bearer {KEY}"}
    written = [repr(embedder), repr(embedder.space.to_dict()), embedder.running_on, caplog.text]
    written += [repr(pickle.dumps(embedder)), repr(embedder.settings())]
    for faults in (
        [status(500, KEY)] * 4,
        [status(401, f"bad {KEY}")],
        [hang_up] * 4,
        [raw(KEY.encode())] * 4,
    ):
        server.faults = list(faults)
        with pytest.raises(ModelError) as caught:
            embedder.embed_query("rye")
        written += [str(caught.value), with_locals(caught.value), repr(pickle.dumps(caught.value))]
    assert not [text for text in written if KEY in text]


def test_a_function_is_asked_for_the_key_each_time(start: Start) -> None:
    server = start(key="first")
    keys = ["first"]
    embedder = hosted(server, api_key=lambda: keys[-1]).load()
    keys.append("second")
    server.key = "second"
    embedder.embed_query("rye")
    assert "lambda" not in repr(embedder)
    with pytest.raises(TypeError, match="takes a function that returns the key") as caught:
        Hosted(api_key=KEY)  # type: ignore[arg-type]
    assert KEY not in str(caught.value)


def test_a_function_is_pickled_by_its_name_or_not_at_all() -> None:
    from functools import partial

    kept = pickle.loads(pickle.dumps(Embedder("m", engine=Hosted(api_key=_return_key))))
    assert kept.engine.api_key() == KEY
    bound = Embedder("m", engine=Hosted(api_key=partial(str, KEY)))
    with pytest.raises(TypeError, match="might hold the key"):
        pickle.dumps(bound)
    assert copy.deepcopy(bound).engine == bound.engine
    assert KEY not in repr(bound)


@pytest.mark.parametrize("key", ["two words", "ü", "line\nbreak"])
def test_what_is_no_key_is_not_shown(
    start: Start, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_KEY", key)
    with pytest.raises(ModelError, match="OWN_KEY is no key") as caught:
        hosted(start(), api_key_env="OWN_KEY").embed_query("rye")
    assert key not in str(caught.value)


def test_a_missing_key_is_named_before_anything_is_sent(start: Start) -> None:
    server = start()
    with pytest.raises(ModelError, match="Put it into OWN_KEY"):
        hosted(server, api_key_env="OWN_KEY").embed_query("rye")
    assert not server.seen
    with pytest.raises(
        ModelError, match=r"api\.mixedbread\.com wants a key. Put it into MXBAI_API_KEY"
    ):
        Embedder(engine="hosted").embed_query("rye")


def test_a_key_goes_to_its_own_host_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXBAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = start()
    hosted(server).embed_query("rye")
    assert all("authorization" not in seen.headers for seen in server.seen)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://user:s3cret@host/v1", "holds a user"),
        ("https://host/v1?api-key=s3cret", "holds a user"),
        ("http://192.168.0.7:8080/v1", "unencrypted"),
        ("ftp://host/v1", "no address of a server"),
        ("host:8080", "no address of a server"),
        ("https://host:port/v1", "no address"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Hosted(base_url=url)
    assert "s3cret" not in str(caught.value)


def test_http_goes_to_this_machine_or_where_it_is_allowed() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "127.8.8.8"):
        assert Hosted(base_url=f"http://{host}:1/v1/").url == f"http://{host}:1/v1"
    assert Hosted(base_url="http://192.168.0.7/v1", allow_http=True).host == "192.168.0.7"


def test_no_proxy_is_asked_for_this_machine(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert hosted(start()).embed_query("rye").shape == (24,)


# -- settings and space ---------------------------------------------------------------------------


def test_a_copy_and_a_pickle_ask_the_same_server(start: Start) -> None:
    embedder = hosted(start(), query_prompt="query: ")
    for again in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
        assert again.settings() == embedder.settings()
        np.testing.assert_array_equal(again.embed_query("rye"), embedder.embed_query("rye"))
    assert embedder.usage == again.usage


@pytest.mark.parametrize(
    "setting", [{"device": "cpu"}, {"precision": "float32"}, {"revision": "main"}]
)
def test_settings_of_a_model_that_runs_here_are_refused(setting: dict[str, Any]) -> None:
    name = next(iter(setting))
    with pytest.raises(ValueError, match=f"{name}= is for a model that runs here"):
        Embedder(engine="hosted", **setting)


def test_the_space_names_server_and_model_and_finds_them_again(start: Start) -> None:
    server = start()
    embedder = hosted(server, query_prompt="query: ", dimensions=8)
    space = embedder.space
    assert (space.weights, space.tokenizer, space.pooling) == ("hosted:tiny", "", "")
    assert (space.model, space.base_url, space.max_tokens) == ("tiny", server.url, None)
    again = Embedder.from_space(EmbeddingSpace.from_dict(space.to_dict()))
    assert again.space == space
    np.testing.assert_array_equal(again.embed_query("rye"), embedder.embed_query("rye"))


def test_the_address_of_a_server_is_no_part_of_its_space(start: Start) -> None:
    assert hosted(start()).space == hosted(start()).space
    assert hosted(start()).space != hosted(start(model="other")).space


def test_building_one_asks_nobody(start: Start) -> None:
    server = start()
    embedder = hosted(server)
    assert repr(embedder)
    assert embedder._known_space is None
    assert not server.seen


def test_a_served_space_is_that_of_the_local_model(start: Start, embedder: Embedder) -> None:
    def embed(texts: Sequence[str], role: str) -> arrays.FloatMatrix:
        many = embedder.embed_queries if role == "query" else embedder.embed_documents
        return many(texts)

    server = start(embed=embed, space=embedder.space.to_dict(), shape="serve")
    served = hosted(server)
    assert served.space == embedder.space
    assert served.max_tokens == embedder.max_tokens
    np.testing.assert_allclose(served.embed_query("rye"), embedder.embed_query("rye"), atol=1e-6)
    np.testing.assert_allclose(
        served.embed_documents(TEXTS), embedder.embed_documents(TEXTS), atol=1e-6
    )
    with pytest.raises(ValueError, match="is not what the server puts in front"):
        hosted(server, query_prompt="other: ").embed_query("rye")
    with pytest.raises(ValueError, match="it cuts at 64"):
        hosted(server, max_tokens=32).embed_query("rye")


# -- tokens ---------------------------------------------------------------------------------------


def test_without_a_tokenizer_it_is_said_what_is_missing(start: Start) -> None:
    embedder = hosted(start())
    assert embedder.max_tokens is None
    for count in (embedder.count_tokens, embedder.split):
        with pytest.raises(ModelError, match="cannot be had: 'tiny' is no name on the hub"):
            count("rye")


def test_with_the_hubs_tokenizer_texts_are_counted_split_and_cut(
    start: Start, minilm_folder: Path, newcomer: Path
) -> None:
    name = "mixedbread-ai/mxbai-embed-large-v1"
    local = Embedder(minilm_folder, query_prompt=MXBAI_PROMPT)
    server = start(model=name)
    embedder = hosted(server)
    assert embedder.max_tokens == local.max_tokens
    long = "Rye bread keeps for a week. " * 200
    assert embedder.count_tokens(long) == local.count_tokens(long)
    assert embedder.split(long) == local.split(long)
    with pytest.warns(UserWarning, match="1 of 1 texts were cut"):
        embedder.embed_documents([long])
    sent = server.asked[-1]["input"][0]
    assert long.startswith(sent)
    assert local.count_tokens(sent) == local.max_tokens
    with pytest.raises(TruncationError, match="over the limit"):
        hosted(server, on_truncate="error").embed_documents([long])


def test_a_forked_child_asks_over_a_connection_of_its_own(start: Start) -> None:
    embedder = hosted(start())
    before = embedder.embed_query("rye")
    child = Child(lambda: embedder.embed_query("rye"))
    np.testing.assert_array_equal(child.answer(), before)
    np.testing.assert_array_equal(embedder.embed_query("rye"), before)
