"""Requests to a server: tried again where that helps, with one deadline, and never more than asked."""

from __future__ import annotations

import json
import random
import ssl
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import finalize

from toastrack.errors import NoAnswerError, needs_extra
from toastrack.hosted.settings import Hosted

if TYPE_CHECKING:
    import httpx

_TRIES = 4
_SECONDS_BETWEEN = 0.5
_SECONDS_TO_CONNECT = 5.0
# Over what 256 vectors of 4,096 numbers take, written out.
_MOST_BYTES = 64 * 1024 * 1024
_SHOWN = 200
# What may pass: too many requests, or a server that is starting, full or being replaced.
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Answer:
    """What a server said: its JSON, or what was wrong with the request."""

    status: int
    content: Any = field(default=None, repr=False)
    said: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether the request was answered."""
        return self.status == 200


@dataclass(frozen=True)
class _Failed:
    """A try that may go better the next time, and how long the server asks to wait."""

    why: str
    after: float | None = None


class Client:
    """Sends requests to one server, from any thread.

    The calls of this class hold no key in a variable when they raise, and raise with nothing behind
    them that does.
    """

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._lock = Lock()
        self._http: httpx.Client | None = None

    def request(self, method: str, path: str, body: object = None, *, end: float) -> Answer:
        """Send a request until it is answered; ``end`` is the deadline by ``time.monotonic``.

        An answer is anything that another try would not change.

        Raises:
            NoAnswerError: The server is away, asks to wait too long or talks nonsense.
            ModelError: There is no key.
            MissingExtraError: httpx is not installed.
        """
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        failed = _Failed("no time was left")
        tries = 0
        for tries in range(1, _TRIES + 1):
            left = end - monotonic()
            if left <= 0:
                tries -= 1
                break
            outcome = self._try(method, path, content, left if tries == _TRIES else left / 2)
            if isinstance(outcome, Answer):
                return outcome
            failed = outcome
            if tries < _TRIES and not self._wait(tries, failed, end):
                break
        raise NoAnswerError(
            f"{self._hosted.host} did not answer after {tries} "
            f"{'try' if tries == 1 else 'tries'}: {failed.why}."
        )

    def _wait(self, tries: int, failed: _Failed, end: float) -> bool:
        """Wait for the next try; False if that would be behind the deadline."""
        wait: float = _SECONDS_BETWEEN * 2 ** (tries - 1) * random.uniform(0.75, 1)
        left = end - monotonic()
        if failed.after is not None:
            if failed.after > left:
                raise NoAnswerError(
                    f"{self._hosted.host} answered with {failed.why} and asks to wait "
                    f"{failed.after:.0f} s, which is more than timeout={self._hosted.timeout:g} "
                    "leaves. Ask later, or give Hosted(timeout=) more."
                )
            wait = max(wait, failed.after)
        if wait >= left:
            return False
        sleep(wait)
        return True

    def _try(
        self, method: str, path: str, content: bytes | None, seconds: float
    ) -> Answer | _Failed:
        """Send a request once, and wait no longer than that for its answer."""
        http, outcomes = self._client(), SimpleQueue[Answer | _Failed | BaseException]()

        def send() -> None:
            try:
                outcomes.put(self._send(http, method, path, content, seconds))
            except BaseException as error:
                outcomes.put(error)

        # A name that is looked up for ever, or a head that comes a byte at a time, keeps to no
        # timeout of httpx. Such a thread is left to itself.
        Thread(target=send, name="toastrack-request", daemon=True).start()
        try:
            outcome = outcomes.get(timeout=seconds)
        except Empty:
            return _Failed(f"it took longer than {seconds:.1f} s")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _send(
        self, http: httpx.Client, method: str, path: str, content: bytes | None, seconds: float
    ) -> Answer | _Failed:
        import httpx

        sent: list[str] = []

        def sign(request: httpx.Request) -> httpx.Request:
            key = self._hosted.key()
            if key is not None:
                sent.append(key)
                request.headers["authorization"] = f"Bearer {key}"
            return request

        end = monotonic() + seconds
        data = bytearray()
        try:
            with http.stream(
                method,
                self._hosted.url + path,
                content=content,
                auth=sign,
                timeout=httpx.Timeout(seconds, connect=min(seconds, _SECONDS_TO_CONNECT)),
            ) as response:
                packed = response.headers.get("content-encoding", "identity").lower()
                unpack = _unpack(packed)
                if unpack is None:
                    return Answer(0, said=_hidden(f"it packs its answer as {packed!r}", sent))
                for part in response.iter_raw():
                    data += unpack(part, _MOST_BYTES + 1 - len(data))
                    if len(data) > _MOST_BYTES:
                        limit = _MOST_BYTES // 1024 // 1024
                        return Answer(0, said=f"an answer of more than {limit} MiB")
                    if monotonic() > end:
                        return _Failed(f"it took longer than {seconds:.1f} s")
        except zlib.error:
            return _Failed("what it sent cannot be unpacked")
        except httpx.TimeoutException:
            return _Failed(f"it took longer than {seconds:.1f} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = _hidden(f"{type(error).__name__}: {error}", sent)
            return Answer(0, said=_distrusted(why)) if _is_of_certificate(error) else _Failed(why)
        return _read(response.status_code, response.headers, bytes(data), sent)

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                with needs_extra("hosted", "httpx"):
                    import httpx
                is_plain = self._hosted.is_local and self._hosted.url.startswith("http:")
                self._http = httpx.Client(
                    follow_redirects=False,  # it would carry the key to wherever it says
                    # A proxy is for other machines, and SSL_CERT_FILE for all.
                    trust_env=not self._hosted.is_local,
                    # To read all certificates takes longer than most requests; without any of them
                    # nobody is trusted.
                    verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    if is_plain
                    else httpx.create_ssl_context(),
                    headers={
                        "content-type": "application/json",
                        "accept": "application/json",
                        "accept-encoding": "identity",
                        "user-agent": "toastrack",
                    },
                )
                finalize(self, self._http.close).atexit = False
            return self._http


def _read(
    status: int, headers: Mapping[str, str], data: bytes, sent: list[str]
) -> Answer | _Failed:
    """Tell an answer from what may go better the next time."""
    if status == 200:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return _Failed("what it sent is no JSON")
        if isinstance(found, Mapping) and found.get("error") and not {"data", "results"} & {*found}:
            return Answer(0, said=_hidden(f"what it sent is an error: {_message(data)}", sent))
        return Answer(status, found)
    if status in _PASSING:
        return _Failed(f"status {status}", _seconds_to_wait(headers.get("retry-after", "")))
    if 300 <= status < 400:
        to = _host_in(headers.get("location", ""))
        return Answer(
            status, said=_hidden(f"it sends elsewhere, to {to}; say so in base_url=", sent)
        )
    return Answer(status, said=_hidden(_message(data), sent))


def _unpack(encoding: str) -> Callable[[bytes, int], bytes] | None:
    """Return what unpacks a part of an answer into so many bytes at most; None for what it cannot.

    Every server is asked not to pack, as a few bytes could become any number.
    """
    if encoding in ("identity", ""):
        return lambda part, most: part
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress
    return None


def _is_of_certificate(error: BaseException | None) -> bool:
    """Tell whether a server was not trusted, which no other try would change."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _distrusted(why: str) -> str:
    return f"its certificate is not trusted ({why}). The file that SSL_CERT_FILE names is read"


def _host_in(url: str) -> str:
    try:
        return urlsplit(url).hostname or "another address"
    except ValueError:
        return "another address"


def _message(data: bytes) -> str:
    """Return what a server says is wrong, in one line of printable signs."""
    text = data[: 64 * 1024].decode(errors="replace")
    try:
        found = json.loads(data)
        for name in ("error", "message", "detail"):
            if isinstance(found, Mapping) and found.get(name):
                found = found[name]
        text = found if isinstance(found, str) else text
    except (ValueError, RecursionError):
        pass
    line = " ".join(text.split())
    return "".join(sign for sign in line if sign.isprintable())


def _hidden(text: str, sent: list[str]) -> str:
    """Return the beginning of a text without the key, should somebody have put it there."""
    for key in sent:
        text = text.replace(key, "...")
    return text[:_SHOWN]


def _seconds_to_wait(written: str) -> float | None:
    """Read a Retry-After: seconds or a date; None for neither."""
    try:
        return max(0.0, float(written))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(written).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return None
