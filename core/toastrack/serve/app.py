"""The ASGI application: which path is answered by what, to whom, and how much at once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from toastrack.embedder import Embedder
from toastrack.models.prompts import Role
from toastrack.reranker import Reranker
from toastrack.serve.answers import Answer, EmbeddingRequest, RerankRequest
from toastrack.serve.queue import Queue
from toastrack.serve.reading import Body, ClientGone, Receive
from toastrack.serve.refusals import Refusal, wrong_value
from toastrack.serve.roles import split_name

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

_RERANK = ("/rerank", "/reranking")
_METHODS = {"/embeddings": "POST", "/rerank": "POST", "/reranking": "POST", "/models": "GET"}
# What all bodies together may hold in memory, in bodies of the largest size.
_LARGEST_BODIES = 16


@dataclass(frozen=True)
class Limits:
    """How much a request may hold, and how much may wait.

    ``texts`` and ``bytes`` are a request's; ``waiting`` texts of each kind may be in the queue or
    in work, and ``seconds`` is how long a request may take to arrive.
    """

    texts: int = 2048
    bytes: int = 4 * 1024 * 1024
    waiting: int = 4096
    seconds: float = 30


@dataclass(frozen=True)
class Served:
    """What a server serves: an embedder and perhaps a reranker, under their names.

    The first of an embedder's ``names`` is the one that is listed. ``raw_scores`` are a reranker's
    own; otherwise they lie between 0 and 1. ``cuts`` says whether texts over the limit are cut.

    Raises ``ValueError`` for two that would go by one name.
    """

    embedder: Embedder
    names: tuple[str, ...]
    reranker: Reranker | None = None
    reranker_name: str = ""
    cuts: bool = True
    raw_scores: bool = True

    def __post_init__(self) -> None:
        roles = [f"{name}:{role}" for name in self.names for role in ("query", "document")]
        if not all(self.names):
            raise ValueError("names='' is no name that a request could ask for.")
        if twice := [name for name in self.names if name in roles]:
            raise ValueError(
                f"names={twice[0]!r} says which role the texts have behind another name. Take another."
            )
        if self.reranker is not None and self.reranker_name in (*self.names, *roles):
            raise ValueError(
                f"names={self.reranker_name!r} is what requests call the reranker, so the embedder needs "
                "another one."
            )


class App:
    """Answers requests with what one embedder makes, and one reranker.

    Both are shared by all requests, so those that come at once share batches of the model.
    """

    def __init__(
        self, served: Served, *, key: str | None = None, limits: Limits | None = None
    ) -> None:
        self._served = served
        self._limits = limits or Limits()
        self._key = None if key is None else _digest(key.encode())
        self._started = int(time.time())
        waiting = self._limits.waiting
        self._queues = {
            "query": Queue(waiting, "queries"),
            "document": Queue(waiting, "documents"),
            "rerank": Queue(waiting, "pairs"),
        }
        self._held = Queue(self._limits.bytes * _LARGEST_BODIES, "bytes")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"This server speaks http alone, and not {scope['type']}.")
        try:
            answer, status = await self._answer(scope, receive), 200
        except ClientGone:
            return
        except Refusal as refusal:
            answer, status = Answer(refusal.content(), refusal.headers), refusal.status
        await _send(send, status, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = {name.lower(): value for name, value in scope["headers"]}
        path, method = _short(scope["path"]), scope["method"]
        if path in ("/health", ""):
            _check_method(method, "GET")
            waiting = {queue.unit: queue.taken for queue in self._queues.values()}
            return Answer({"status": "ok", "waiting": waiting})
        self._check_key(headers.get(b"authorization", b""))
        if path.startswith("/models/"):
            _check_method(method, "GET")
            return Answer(self._described(path.removeprefix("/models/")))
        if path not in _METHODS:
            raise Refusal(
                404,
                "There is no such address. There are /v1/embeddings, /v1/rerank, /v1/models and /health.",
                code="unknown_url",
            )
        _check_method(method, _METHODS[path])
        if path == "/models":
            return Answer({"object": "list", "data": list(self._list().values())})
        body = Body(self._held, most=self._limits.bytes, seconds=self._limits.seconds)
        try:
            content = await body.read(receive, _declared(headers.get(b"content-length")))
            if path in _RERANK:
                return await self._rerank(content, receive, of_mixedbread=path == "/reranking")
            return await self._embed(content, receive)
        finally:
            body.let_go()

    async def _embed(self, content: Mapping[str, Any], receive: Receive) -> Answer:
        served = self._served
        model, named = self._model(content, dict.fromkeys(served.names), served.names[0])
        request = EmbeddingRequest.read(
            content, served.embedder, named=named, most=self._limits.texts, cuts=served.cuts
        )
        with self._queues[request.role].place(len(request.texts)):
            return await _while_asked(request.answer(served.embedder, model), receive)

    async def _rerank(
        self, content: Mapping[str, Any], receive: Receive, *, of_mixedbread: bool
    ) -> Answer:
        served = self._served
        if served.reranker is None:
            raise Refusal(
                404,
                "No reranker is served. Start the server with --reranker MODEL.",
                code="model_not_found",
            )
        model, _ = self._model(content, {served.reranker_name: None}, served.reranker_name)
        request = RerankRequest.read(
            content, most=self._limits.texts, cuts=served.cuts, raw=served.raw_scores
        )
        with self._queues["rerank"].place(len(request.documents)):
            answer = request.answer(served.reranker, model, of_mixedbread=of_mixedbread)
            return await _while_asked(answer, receive)

    def _model(
        self, content: Mapping[str, Any], names: Mapping[str, Any], default: str
    ) -> tuple[str, Role | None]:
        """Return which model is asked for, and the role if it stands behind its name."""
        given = content.get("model")
        if given is None:
            return default, None
        if not isinstance(given, str):
            raise wrong_value("model", given, f"a name such as {default!r}")
        model, role = split_name(given, names)
        if model not in names:
            raise Refusal(
                404,
                f"The model {given[:100]!r} is not served. There is {', '.join(map(repr, names))}.",
                param="model",
                code="model_not_found",
            )
        return given, role

    def _check_key(self, sent: bytes) -> None:
        """Raise ``Refusal`` (401) unless the request has the key; takes as long for any."""
        if self._key is None:
            return
        scheme, _, key = sent.strip().partition(b" ")
        fits = hmac.compare_digest(_digest(key.strip()), self._key)
        if scheme.lower() != b"bearer" or not fits:
            raise Refusal(
                401,
                "The key is wrong or missing. Send it as 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def _list(self) -> dict[str, dict[str, Any]]:
        """Describe each model by its name; the embedder's has its space, by which vectors are compared."""
        served = self._served
        space = replace(served.embedder.space, model=served.names[0], revision=None)
        models: dict[str, dict[str, Any]] = {}
        for name in served.names:
            # A role behind the name is said already, so that is no name for who names roles.
            models[name] = self._item(name) | {"space": space.to_dict()}
            for role in ("query", "document"):
                models[f"{name}:{role}"] = self._item(f"{name}:{role}")
        if served.reranker is not None:
            models[served.reranker_name] = self._item(served.reranker_name)
        return models

    def _item(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "toastrack"}

    def _described(self, name: str) -> dict[str, Any]:
        models = self._list()
        if name not in models:
            raise Refusal(
                404,
                f"The model {name[:100]!r} is not served. There is {', '.join(map(repr, models))}.",
                param="model",
                code="model_not_found",
            )
        return models[name]


def _short(path: str) -> str:
    """Return a path without what stands before it at some makers, and without a slash at its end."""
    for version in ("/v1/", "/v2/"):
        if path.startswith(version):
            path = path[len(version) - 1 :]
    return path.rstrip("/")


def _check_method(method: str, expected: str) -> None:
    allowed = ("GET", "HEAD") if expected == "GET" else (expected,)
    if method not in allowed:
        raise Refusal(
            405, f"It takes {expected}, not {method[:20]}.", headers={"allow": ", ".join(allowed)}
        )


def _declared(length: bytes | None) -> int | None:
    return int(length) if length is not None and length.isdigit() else None


def _digest(key: bytes) -> bytes:
    """Two digests have one length, whatever the keys have."""
    return hashlib.sha256(key).digest()


async def _while_asked(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Do the work unless its client goes away; raises ``ClientGone`` then, with the work dropped.

    What raises an error that is no ``Refusal`` is the server's fault, and said on its terminal.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    except (ClientGone, Refusal, asyncio.CancelledError):
        raise
    except ValueError as error:
        raise Refusal(400, str(error), code="invalid_request") from None
    except Exception as error:
        traceback.print_exception(error)
        raise Refusal(
            500, "The model could not be run. The server's terminal says why.", code="model_failed"
        ) from None
    finally:
        for part in (task, gone):
            part.cancel()
        with suppress(asyncio.CancelledError):
            await gone


async def _disconnected(receive: Receive) -> None:
    """Wait until the client is not there any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, status: int, answer: Answer) -> None:
    import orjson

    body = orjson.dumps(answer.content, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **answer.headers,
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
