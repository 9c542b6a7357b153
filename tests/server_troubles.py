"""What a server that runs a model may do wrong, and what becomes of it: the right numbers, or one error."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from model_server import (
    Fault,
    bytewise,
    changed,
    closing,
    endless,
    endless_head,
    hang_up,
    hinting,
    items,
    no_http,
    packed,
    raw,
    reset,
    said_to_be,
    silent,
    status,
    too_large,
    trickle,
)

from toastrack import Hosted

KEY = "sk-s3cret-0123456789"
OURS = ("toastrack", "http", "langchain", "llama_index", "chromadb")
"""What stands between a caller and a server."""
ALWAYS = 40
LATE = "it took longer than|no time was left"
"""More requests than anything here sends."""


@dataclass(frozen=True)
class Trouble:
    """Something that a server does; ``says`` is what the error says, None: there is none."""

    name: str
    faults: Sequence[Fault]
    says: str | None = None
    away: bool = False
    """It may be over later on."""
    usual: bool = False
    """``make test`` tries it on everything that asks servers, and the others on the core alone."""
    of_scores: bool = True
    """It can befall a reranker."""
    of_vectors: bool = True
    """It can befall an embedder."""
    seconds: float | None = None
    """The deadline that is waited for."""


def _each(**values: Any) -> Fault:
    return changed(lambda answer: [item.update(values) for item in items(answer)] and None)


def _last(**values: Any) -> Fault:
    return changed(lambda answer: items(answer)[-1].update(values))


def _first(change: Callable[[dict[str, Any]], Any]) -> Fault:
    return changed(lambda answer: change(items(answer)[0]))


def _vectors(name: str, value: Any, says: str, **settings: Any) -> Trouble:
    return Trouble(name, [_each(embedding=value)], says, of_scores=False, **settings)


def _twice(answer: dict[str, Any]) -> None:
    found = items(answer)
    if len(found) > 1:
        found[-1]["index"] = found[0]["index"]
    else:
        found.append(found[0])


def _longer(answer: dict[str, Any]) -> None:
    for item in answer["data"]:
        item["embedding"] *= 2


def _ragged(answer: dict[str, Any]) -> None:
    answer["data"][-1]["embedding"] = answer["data"][-1]["embedding"][:-1]


TROUBLES = [
    # What passes, or does no harm.
    Trouble("500 once", [status(500)], usual=True),
    Trouble("502, then 503", [status(502), status(503)]),
    Trouble("408", [status(408)]),
    Trouble("409", [status(409)]),
    Trouble("425", [status(425)]),
    Trouble("429", [status(429)]),
    Trouble("429, wait 1 s", [status(429, retry_after="1")], usual=True),
    Trouble("429, wait until 2015", [status(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")]),
    Trouble("429, wait 'soon'", [status(429, retry_after="soon")]),
    Trouble("429, wait -5 s", [status(429, retry_after="-5")]),
    Trouble("429, wait NaN", [status(429, retry_after="nan")]),
    Trouble("half an answer", [raw(b'{"data": [')]),
    Trouble("an empty answer", [raw(b"")]),
    Trouble("a page of a proxy", [raw(b"<html>busy</html>")]),
    Trouble("nested for ever", [raw(b"[" * 200_000)]),
    Trouble("no UTF-8", [raw(b'{"data": "\xff"}')]),
    Trouble("hangs up in the middle", [hang_up], usual=True),
    Trouble("reset in the middle", [reset, reset]),
    Trouble("another protocol once", [no_http]),
    Trouble("closes kept connections", [closing] * ALWAYS),
    Trouble("byte by byte", [bytewise] * ALWAYS),
    Trouble("hints before the answer", [hinting] * ALWAYS),
    Trouble("text/html", [said_to_be("text/html; charset=latin-1")] * ALWAYS),
    Trouble("packed with gzip", [packed("gzip")] * ALWAYS),
    Trouble("shuffled", [changed(lambda answer: items(answer).reverse())] * ALWAYS, usual=True),
    Trouble("more fields", [changed(lambda answer: answer.update(warning="old"))] * ALWAYS),
    Trouble("413 for two texts", [too_large(1)] * ALWAYS),
    # What does not.
    Trouble(
        "500 for ever",
        [status(500)] * ALWAYS,
        "did not answer after 4 tries: status 500",
        away=True,
    ),
    Trouble(
        "429 for ever", [status(429, retry_after="1")] * ALWAYS, "4 tries: status 429", away=True
    ),
    Trouble(
        "429, wait 1e9 s", [status(429, retry_after="1e9")], "asks to wait 1000000000 s", away=True
    ),
    Trouble("429, wait inf", [status(429, retry_after="inf")], "asks to wait inf s", away=True),
    Trouble(
        "503, wait until 2195",
        [status(503, retry_after="Wed, 21 Oct 2195 07:28:00 GMT")],
        "asks to wait",
        away=True,
    ),
    Trouble("always cut", [raw(b"{")] * ALWAYS, "4 tries: what it sent is no JSON", away=True),
    Trouble("always hangs up", [hang_up] * ALWAYS, "4 tries: RemoteProtocolError", away=True),
    Trouble("another protocol", [no_http] * ALWAYS, "4 tries: RemoteProtocolError", away=True),
    Trouble("400", [status(400, "no")], r"refuses \d texts?, the longest of .*: no", usual=True),
    Trouble(
        "401", [status(401, "who?")], r"does not take the key \(status 401\): who\?", usual=True
    ),
    Trouble("401 with the key", [status(401, f"bad key {KEY}")], r"bad key \.\.\.", usual=True),
    Trouble("403", [status(403, "no")], r"does not take the key \(status 403\)"),
    Trouble(
        "404, the model is gone", [status(404, "no such model")], "no such model.*ends with /v1"
    ),
    Trouble("413 for one text", [status(413)] * ALWAYS, r"refuses 1 text.*status 413"),
    Trouble("422", [status(422, "no")], r"refuses \d text"),
    Trouble("418", [status(418, "teapot")], r"cannot be asked \(status 418\): teapot"),
    Trouble(
        "204", [lambda handler, answer: handler.send(b"", 204)], r"cannot be asked \(status 204\)"
    ),
    Trouble(
        "redirect",
        [status(307, location="https://elsewhere/?key=1")],
        "sends elsewhere, to elsewhere",
        usual=True,
    ),
    Trouble(
        "redirect to nowhere", [status(301, location="http://[")] * ALWAYS, "elsewhere|location"
    ),
    Trouble(
        "200 with an error", [raw(b'{"error": {"message": "no model"}}')], "an error: no model"
    ),
    Trouble("a terminal's escapes", [status(418, "\x1b[31mred\x07")], r"\): \[31mred\."),
    Trouble("a long story", [status(418, "x" * 100_000)], r"status 418\): x{200}\."),
    Trouble("over the cap", [endless], "an answer of more than 1 MiB"),
    Trouble("a gzip bomb", [packed("gzip", 1 << 24)], "an answer of more than 1 MiB"),
    Trouble("packed twice", [packed("deflate, gzip")], "packs its answer as 'deflate, gzip'"),
    Trouble("packed with br", [packed("br")], "packs its answer as 'br'"),
    Trouble(
        "says gzip and is none",
        [lambda handler, answer: handler.send(answer, 200, {"content-encoding": "gzip"})] * ALWAYS,
        "cannot be unpacked",
        away=True,
    ),
    Trouble(
        "too few", [changed(lambda answer: items(answer).pop() and None)], r"\d results where \d w"
    ),
    Trouble(
        "too many",
        [changed(lambda answer: items(answer).append(items(answer)[0]))],
        r"\d results where \d w",
    ),
    Trouble("one text twice", [changed(_twice)], "two results for one text|results where"),
    Trouble("no index", [_first(lambda item: item.pop("index"))], "which text it is for"),
    Trouble("index out of range", [_last(index=99)], "which text it is for"),
    Trouble("index no number", [_last(index="0")], "which text it is for"),
    Trouble("index true", [_last(index=True)], "which text it is for"),
    Trouble(
        "no list",
        [changed(lambda answer: [answer.pop(name, None) for name in ("data", "results")] and None)],
        "no list called",
    ),
    Trouble(
        "null for the list",
        [changed(lambda answer: answer.update(dict.fromkeys({"data", "results"} & {*answer})))],
        "no list called",
    ),
    Trouble("a list of words", [raw(b'{"data": ["x"], "results": ["x"]}')], "no list called"),
    Trouble("a number", [raw(b"17")], "no list called"),
    _vectors("NaN", [float("nan")] * 4, "not finite", usual=True),
    _vectors("infinite", [1e39] * 4, "not finite"),
    _vectors("zeros", [0.0] * 4, "zeros"),
    _vectors("null", None, "no list of numbers"),
    _vectors("an empty vector", [], "empty vector"),
    _vectors("words", ["1.0"] * 4, "no list of numbers"),
    _vectors("nested", [[1.0] * 4], "no list of numbers"),
    _vectors("ragged", [[1.0], 2.0], "no list of numbers"),
    _vectors("no base64", "!!", "no base64"),
    _vectors("half a number", "AAAA", "no base64"),
    Trouble(
        "of two sizes", [changed(_ragged)], "numbers in one answer|another model", of_scores=False
    ),
    Trouble(
        "another size",
        [changed(_longer)] * ALWAYS,
        "8 numbers, and did with 4: another",
        of_scores=False,
    ),
    Trouble(
        "a score that is NaN", [_each(relevance_score=float("nan"))], "not finite", of_vectors=False
    ),
    Trouble("a score that is a word", [_each(relevance_score="1")], "no number", of_vectors=False),
    Trouble(
        "no score",
        [_first(lambda item: item.pop("relevance_score"))],
        "no number",
        of_vectors=False,
    ),
    # What takes for ever.
    Trouble("silent", [silent] * ALWAYS, LATE, seconds=0.3, usual=True, away=True),
    Trouble("a byte now and then", [trickle] * ALWAYS, LATE, seconds=0.3, away=True),
    Trouble("headers for ever", [endless_head] * ALWAYS, LATE, seconds=0.3, away=True),
]
OF_VECTORS = [trouble for trouble in TROUBLES if trouble.of_vectors]
OF_SCORES = [trouble for trouble in TROUBLES if trouble.of_scores]


class _Hurried:
    """Stands for the deadline of every engine that there is or will be."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __get__(self, engine: object, kind: type) -> float:
        return self.seconds

    def __set__(self, engine: object, seconds: float) -> None:
        pass


def hurry(trouble: Trouble, patch: pytest.MonkeyPatch) -> None:
    """Wait no time between tries, read little, and have a deadline that a test can wait for."""
    patch.setattr("toastrack.hosted.client.sleep", lambda seconds: None)
    patch.setattr("toastrack.hosted.client._MOST_BYTES", 1 << 20)
    if trouble.seconds is not None:
        patch.setattr(Hosted, "timeout", _Hurried(trouble.seconds))


def is_clear(message: str) -> bool:
    """Tell whether an error is one short line without the key."""
    return len(message) < 600 and "\n" not in message and KEY not in message


def with_locals(error: BaseException) -> str:
    """An error and all behind it, with what the variables on the way hold, two levels deep."""
    whole: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        whole += [repr(seen), repr(vars(seen))]
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            if frame.f_globals["__name__"].startswith(OURS):
                for value in frame.f_locals.values():
                    whole += [repr(value), repr(getattr(value, "__dict__", ""))]
        seen = seen.__cause__ or seen.__context__
    return "".join(whole)
