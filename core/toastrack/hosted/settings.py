"""Where a hosted model runs, and how its server wants to be asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from types import BuiltinFunctionType, FunctionType
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import SplitResult, urlsplit

from toastrack.errors import ModelError
from toastrack.utils.arguments import check_choice, check_positive

PromptBy = Literal["auto", "role", "field", "prefix"]
DimensionsBy = Literal["client", "server"]

MIXEDBREAD_URL = "https://api.mixedbread.com/v1"

# The inputs of one request: https://www.mixedbread.com/api-reference/endpoints/embeddings, and what
# text-embeddings-inference takes unless it is told otherwise.
_MIXEDBREAD_BATCH = 256
_BATCH = 32

# A key goes to the host that it is for, whatever a store recorded.
_MIXEDBREAD_HOST = "api.mixedbread.com"
_KEYS_OF_HOSTS = {_MIXEDBREAD_HOST: "MXBAI_API_KEY", "api.openai.com": "OPENAI_API_KEY"}
_KEY_OF_OTHERS = "TOASTRACK_API_KEY"


class Usage(NamedTuple):
    """How many requests a server answered in this process, and how many tokens it counted.

        print(embedder.usage.requests, embedder.usage.tokens)

    A server that counts no tokens leaves ``tokens`` at 0.
    """

    requests: int
    tokens: int


@dataclass(frozen=True, repr=False)
class Hosted:
    """An engine for models that run on a server: mixedbread's API, or any like OpenAI's.

        engine = Hosted(base_url="http://127.0.0.1:8080/v1")
        embedder = Embedder("mixedbread-ai/mxbai-embed-large-v1", engine=engine)

    The key is read from the environment, or asked for, whenever a request is sent. It is kept
    nowhere. What an embedder sends is text; vectors are checked, cut and normalised here.

    Args:
        base_url: The server's address as OpenAI's client takes it, with its ``/v1``; None is
            mixedbread's API.
        api_key: A function that returns the key; never the key itself.
        api_key_env: The environment variable that holds the key. None is ``MXBAI_API_KEY`` for
            mixedbread, ``OPENAI_API_KEY`` for OpenAI, and ``TOASTRACK_API_KEY`` for any other
            server, which may be unset if it asks for none.
        batch_size: How many texts a request holds at most; None is 256 for mixedbread, else 32.
        timeout: Seconds for a request with all its tries; one of them takes half of it at most.
        prompt_by: How a text's prompt gets there: "role" names the role and leaves the prompt to
            the server, "field" sends it beside the texts, "prefix" puts it in front of each.
            "auto" is "field" for mixedbread, "role" for ``toastrack serve``, else "prefix".
        dimensions_by: Who cuts vectors to ``Embedder(dimensions=)``: "client", here, or "server".
        allow_http: Let texts and key go unencrypted to another machine.

    Raises:
        TypeError: ``api_key`` is no function.
        ValueError: An argument has a value that it cannot have.
    """

    base_url: str | None = None
    api_key: Callable[[], str] | None = field(default=None)
    api_key_env: str | None = None
    batch_size: int | None = None
    timeout: float = 60
    prompt_by: PromptBy = "auto"
    dimensions_by: DimensionsBy = "client"
    allow_http: bool = False

    def __post_init__(self) -> None:
        check_choice("prompt_by", self.prompt_by, get_args(PromptBy))
        check_choice("dimensions_by", self.dimensions_by, get_args(DimensionsBy))
        check_positive("batch_size", self.batch_size)
        if isinstance(self.timeout, bool) or not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout={self.timeout!r} must be a number of seconds over 0.")
        if self.api_key is not None and not callable(self.api_key):
            raise TypeError(
                "api_key= takes a function that returns the key, so that it is written nowhere. "
                "Put the key into the environment and name that with api_key_env=."
            )
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("api_key= and api_key_env= both say where the key is. Give one.")
        if self.base_url is not None:
            object.__setattr__(self, "base_url", _checked_url(self.base_url, self.allow_http))

    def __repr__(self) -> str:
        given = [
            # Even the name of a function may hold what was bound to it.
            f"{item.name}={'...' if item.name == 'api_key' else repr(getattr(self, item.name))}"
            for item in fields(self)
            if getattr(self, item.name) != item.default
        ]
        return f"Hosted({', '.join(given)})"

    def __copy__(self) -> Hosted:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Hosted:
        return self

    def __reduce__(self) -> tuple[type[Hosted], tuple[Any, ...]]:
        # A function is pickled by its name. Anything else that can be called, by what is in it.
        if not isinstance(self.api_key, (FunctionType, BuiltinFunctionType, type(None))):
            raise TypeError(
                "Hosted(api_key=) is no plain function, and a pickle of it might hold the key. Give "
                "a function of a module, or api_key_env=."
            )
        return Hosted, tuple(getattr(self, item.name) for item in fields(self))

    @property
    def url(self) -> str:
        """The address that paths are put behind."""
        return MIXEDBREAD_URL if self.base_url is None else self.base_url

    @property
    def host(self) -> str:
        """The name of the server's machine."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_mixedbread(self) -> bool:
        """Whether this is mixedbread's own API."""
        return self.host == _MIXEDBREAD_HOST

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine."""
        return _is_loopback(self.host)

    @property
    def most_texts(self) -> int:
        """How many texts a request holds."""
        if self.batch_size is not None:
            return self.batch_size
        return _MIXEDBREAD_BATCH if self.is_mixedbread else _BATCH

    @property
    def key_name(self) -> str:
        """Where the key is looked for, for people."""
        if self.api_key is not None:
            return "what api_key= returns"
        return self.api_key_env or _KEYS_OF_HOSTS.get(self.host, _KEY_OF_OTHERS)

    def key(self) -> str | None:
        """Return the key; None for a server that may want none.

        Raises ``ModelError`` if there is none where one must be, or what is there is no key.
        """
        name = self.key_name
        key = os.environ.get(name) if self.api_key is None else self.api_key()
        if not isinstance(key, (str, type(None))):
            raise ModelError(f"api_key= returned {type(key).__name__} where a str was expected.")
        key = (key or "").strip()
        if not key:
            if name == _KEY_OF_OTHERS:
                return None
            raise ModelError(f"{self.host} wants a key. Put it into {name}.")
        # What http refuses it would show in its error.
        if not key.isascii() or not key.isprintable() or " " in key:
            key = ""  # a traceback may show it
            raise ModelError(f"{name} is no key: it holds signs that no request can carry.")
        return key


def hosted_engine(engine: object, *elsewhere: str) -> Hosted | None:
    """Return where the engine asked for runs; None if that is here.

    ``elsewhere`` names the arguments that came with it and are of use only for a model that runs here.
    Raises ``ValueError`` if there are some.
    """
    hosted = Hosted() if engine == "hosted" else engine
    if not isinstance(hosted, Hosted):
        return None
    if elsewhere:
        raise ValueError(
            f"{elsewhere[0]}= is for a model that runs here, and engine={engine!r} runs on a server. "
            "Leave it out."
        )
    return hosted


def _checked_url(url: str, allow_http: bool) -> str:
    """Return an address without a slash at its end; no error shows what might hold a secret."""
    if not isinstance(url, str):
        raise TypeError(f"base_url= takes a str such as {MIXEDBREAD_URL!r}.")
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        raise ValueError("base_url= is no address. Its port or host cannot be read.") from None
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "base_url= holds a user, a password or a query. Leave them out: a key is read from the "
            "environment (api_key_env=)."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"base_url={url!r} is no address of a server. Write it as 'https://host/v1'."
        )
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname):
        raise ValueError(
            f"base_url={url!r} would send texts and key unencrypted to another machine. Take https, "
            "or allow_http=True in a network that you trust."
        )
    path = parts.path.rstrip("/")
    return SplitResult(parts.scheme, parts.netloc.lower(), path, "", "").geturl()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
