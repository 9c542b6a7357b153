"""A request's body, read in pieces, and its fields, looked at before they are believed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from toastrack.serve.queue import Queue
from toastrack.serve.refusals import Refusal, wrong, wrong_value

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_TOKEN_IDS = (
    "holds token ids, and they are another tokenizer's. Send the texts: langchain-openai does with "
    "OpenAIEmbeddings(check_embedding_ctx_length=False)."
)


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Body:
    """The bytes of one request, counted against what all requests may hold."""

    def __init__(self, held: Queue, *, most: int, seconds: float) -> None:
        self._held = held
        self._most = most
        self._seconds = seconds
        self._parts: list[bytes] = []
        self._size = 0

    async def read(self, receive: Receive, declared: int | None) -> dict[str, Any]:
        """Return the JSON object that a client sends.

        Raises ``Refusal`` if it is too large (413), too slow (408) or none (400), and
        ``ClientGone``.
        """
        if declared is not None and declared > self._most:
            raise self._too_large()
        try:
            await asyncio.wait_for(self._receive_all(receive), self._seconds)
        except asyncio.TimeoutError:
            raise Refusal(
                408,
                f"The request did not come within {self._seconds:g} s.",
                headers={"connection": "close"},
            ) from None
        return _object(b"".join(self._parts))

    def let_go(self) -> None:
        """Forget the bytes."""
        self._held.give_back(self._size)
        self._size = 0
        self._parts.clear()

    async def _receive_all(self, receive: Receive) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            if self._size + len(part) > self._most:
                raise self._too_large()
            self._held.take(len(part))
            self._size += len(part)
            self._parts.append(part)
            more = message.get("more_body", False)

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"The request is larger than {self._most:,} bytes. Send the texts in several requests.",
            code="request_too_large",
        )


def _object(data: bytes) -> dict[str, Any]:
    import orjson

    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"The request is no JSON: {error}.", code="invalid_json") from None
    if not isinstance(found, dict):
        raise Refusal(
            400,
            f"The request is a JSON {type(found).__name__}, and should be an object such as "
            '{"input": ["a text"]}.',
            code="invalid_json",
        )
    return found


def texts_of(body: Mapping[str, Any], names: Sequence[str], most: int) -> list[str]:
    """Return the texts of a request: a string, strings, or objects with a "text".

    ``names`` are those that the field goes by. Raises ``Refusal`` for anything else, and for none.
    """
    name = next((name for name in names if body.get(name) is not None), None)
    if name is None:
        raise wrong(names[0], f"{names[0]} is missing. It takes a text or a list of texts.")
    value = body[name]
    items = value if isinstance(value, list) else [value]
    if not items:
        raise wrong(name, f"{name} is an empty list. It takes a text or a list of texts.")
    if len(items) > most:
        raise Refusal(
            413,
            f"{name} has {len(items):,} items, over the {most:,} of a request. Send them in several.",
            param=name,
            code="too_many_inputs",
        )
    texts = []
    for position, item in enumerate(items):
        text = item.get("text") if isinstance(item, Mapping) else item
        if not isinstance(text, str):
            where = f"{name}[{position}]" if isinstance(value, list) else name
            if _is_ids(text):
                raise wrong(name, f"{where} {_TOKEN_IDS}")
            raise wrong(name, f"{where} is no text. {name} takes a text or a list of texts.")
        texts.append(text)
    return texts


def _is_ids(item: object) -> bool:
    """Tell whether this is a token's id, or a list of them."""
    first = item[0] if isinstance(item, list) and item else item
    return isinstance(first, int) and not isinstance(first, bool)


def whole_number(body: Mapping[str, Any], names: Sequence[str], most: int) -> int | None:
    """Return a number from 1 to ``most``; None where it is left out."""
    name = next((name for name in names if body.get(name) is not None), None)
    if name is None:
        return None
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise wrong_value(name, value, f"a whole number from 1 to {most:,}")
    return value


def flag(body: Mapping[str, Any], names: Sequence[str], default: bool) -> bool:
    """Return what a switch is set to."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, bool):
            raise wrong_value(name, value, "true or false")
        return value
    return default
