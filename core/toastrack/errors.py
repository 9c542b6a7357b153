"""Everything toastrack raises on purpose.

    ToastrackError
    ├── MissingExtraError (ModuleNotFoundError)   a package that an extra brings is not installed
    ├── ModelError                                a model cannot be found, read or run
    │   ├── NoAnswerError                         a server does not answer now, and may later on
    │   └── RefusedError                          a server does not take these texts
    ├── TruncationError (ValueError)              a text is over the limit and on_truncate="error"
    ├── SpaceMismatchError                        a collection was built in another embedding space
    ├── StoreError                                a table or collection cannot be used as it is
    │   └── ConnectionLostError                   the host does not answer, or went and did not come back
    ├── RecordError (ValueError)                  a record cannot be stored; names the record
    ├── FilterError (ValueError)                  a filter says what no store can compare
    ├── SourceError (ValueError)                  an input of ingest cannot be read; names file and line
    └── UnsupportedError                          the host or the model cannot do what was asked

    TruncationWarning (UserWarning)               texts were cut at the model's limit
    GuessWarning (UserWarning)                    a model does not say how it wants to be run
    UnprovenWarning (UserWarning)                 too few texts show that vectors are an embedder's

Errors of a host (psycopg, a database) pass through unless we can add the reader's next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from toastrack.space import EmbeddingSpace
from toastrack.utils.install import install_command
from toastrack.utils.peers import explain_argument

truncation_remedy = ContextVar("truncation_remedy", default="embedder.split(text)")
"""What splits a text that is over the limit, as those know it whose class was called."""


@contextmanager
def suggesting(remedy: str) -> Iterator[None]:
    """In the block, texts over the limit are said to be split with this."""
    token = truncation_remedy.set(remedy)
    try:
        yield
    finally:
        truncation_remedy.reset(token)


class ToastrackError(Exception):
    """Base class: catch this to catch them all.

        try:
            store.search("rye", filter={"flour": None})
        except ToastrackError as error:
            print(error)

    Each message names the value and what to do next.
    """


class MissingExtraError(ToastrackError, ModuleNotFoundError):
    """A package is needed that one of toastrack's extras brings.

        try:
            embedder.load()
        except MissingExtraError as error:
            print("lacks the extra", error.extra)

    A ``ModuleNotFoundError``, so that ``except ImportError`` and ``pytest.importorskip`` see it.

    Attributes:
        extra: The extra that brings the package; several stand with commas between them. The message
            is the command that installs it.
    """

    def __init__(self, package: str, extra: str, hint: str = "") -> None:
        names = package.split(", ")
        is_or_are = "is" if len(names) == 1 else "are"
        super().__init__(
            f"{hint and f'{hint} '}{', '.join(map(repr, names))} {is_or_are} not installed. "
            f"Run: {install_command(extra)}",
            name=package,
        )
        self.extra = extra
        self._hint = hint

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return type(self), (self.name or "", self.extra, self._hint)


class ModelError(ToastrackError):
    """A model cannot be found, read or run as asked.

        try:
            Embedder("./no-such-folder").load()
        except ModelError as error:
            print(error)

    The hub cannot be reached, a folder holds no model, an engine cannot run it: the message says
    which, and what to do.
    """


class NoAnswerError(ModelError):
    """A server that runs a model does not answer, however often it was asked, and may later on.

        try:
            embedder.embed_documents(["Rye bread keeps for a week."])
        except NoAnswerError as error:
            print(error)

    It is away, full or starting, asks to wait for longer than ``Hosted(timeout=)`` allows, or what
    it sends is no answer. All that was stored before stays.
    """


class RefusedError(ModelError):
    """A server refuses the texts of a request, and may well take others.

        try:
            embedder.embed_documents(["Rye bread keeps for a week."])
        except RefusedError as error:
            print(error)

    A text is too long for it or of a kind that it does not take. Who shares the request is not
    affected: theirs is sent again without it.
    """


class TruncationError(ToastrackError, ValueError):
    """A text has more tokens than fit and the embedder was told not to cut it.

        careful = Embedder(max_tokens=64, on_truncate="error")
        try:
            careful.embed_documents([text])
        except TruncationError:
            careful.embed_documents(careful.split(text))

    The message names the text by its position or its record, its length and the limit, in tokens.
    """


class TruncationWarning(UserWarning):
    """Texts were cut at the limit: what lies behind it is not in the vector.

        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("error", TruncationWarning)
            embedder.embed_documents(["short"])

    One warning a call says how many texts were cut, and how many tokens the longest has.
    """


class GuessWarning(UserWarning):
    """A model does not say how it wants to be run, and something was taken for it.

        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("error", GuessWarning)
            embedder.load()

    There is no ``modules.json`` to say how it pools, or no prompt, and its family wants one. Said
    once for each model; the message says what was taken.
    """


class UnprovenWarning(UserWarning):
    """Vectors agree with their texts, and too few of them for a proof.

        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnprovenWarning)
            QdrantStore(client, "bread", embedder=embedder, verify=True).open()

    Said where a filled collection is adopted or verified that has fewer than 8 texts that fit.
    """


class SpaceMismatchError(ToastrackError):
    """A collection was built in another embedding space, so its scores would be meaningless.

        try:
            QdrantStore(client, "bread", embedder=Embedder(query_prompt="")).open()
        except SpaceMismatchError as error:
            print(error.differences)  # {"query_prompt": (stored, ours)}

    Attributes:
        stored: The space that the collection recorded; None if it recorded none.
        ours: The space of the embedder it was opened with.
        differences: Each field that differs, with both values: ``(stored, ours)``.
    """

    def __init__(
        self,
        message: str,
        *,
        stored: EmbeddingSpace | None = None,
        ours: EmbeddingSpace | None = None,
        differences: Mapping[str, tuple[object, object]] | None = None,
    ) -> None:
        super().__init__(message)
        self.stored = stored
        self.ours = ours
        self.differences = dict(differences or {})


class StoreError(ToastrackError):
    """A table or collection cannot be used as it is.

        try:
            QdrantStore(client, "nowhere", embedder=embedder, create=False).open()
        except StoreError as error:
            print(error)

    It is missing and ``create=False``, lacks a column, compares by another distance than cosine,
    was deleted meanwhile, or its client was made by the parent of this process: the message says
    which, and what to do.
    """


class ConnectionLostError(StoreError):
    """A host does not answer, or went away and did not come back in time.

        try:
            store.upsert([Record("1", "Rye bread keeps for a week.")])
        except ConnectionLostError as error:
            print(error)

    What was written stays, and whether the last write came through is not known: the same call
    can be made again, and goes on from there. Postgres' own is a ``psycopg.OperationalError``, too.
    """


class RecordError(ToastrackError, ValueError):
    """A record cannot be stored; nothing of its batch was written.

        try:
            store.upsert([Record("salt", "Salt the dough.", {"price": float("nan")})])
        except RecordError as error:
            print(error)

    The message names the record by its id and says what is wrong with which part of it.
    """


class FilterError(ToastrackError, ValueError):
    """A filter is no mapping of field names to values or operators.

        try:
            store.search("rye", filter={"flour": ["rye", "wheat"]})
        except FilterError as error:
            print(error)  # it is {"flour": {"$in": ["rye", "wheat"]}}

    The message names the field. For other conditions each store takes its host's own filter.
    """


class SourceError(ToastrackError, ValueError):
    """An input of ``ingest`` cannot be read, or two have one id.

        try:
            ingest("no-such-folder/", store)
        except SourceError as error:
            print(error)

    The message names the file, and the line of a row.
    """


class UnsupportedError(ToastrackError):
    """The host or the model cannot do what was asked.

        try:
            store.build_index()
        except UnsupportedError as error:
            print(error)

    For instance pgvector has no index for more than 4,000 dimensions. The message says what there
    is in its place.
    """


def unknown_argument(owner: str, *names: str) -> str:
    """Say that a class has no arguments of these names, and what stands for each that others call so."""
    return " ".join(explain_argument(owner, name) for name in names)


@contextmanager
def needs_extra(extra: str, *packages: str) -> Iterator[None]:
    """Turn "No module named 'x'" into the command that installs it.

    Only a missing one of ``packages`` is translated: a broken install keeps its own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in packages or isinstance(error, MissingExtraError):
            raise
        raise MissingExtraError(error.name, extra) from None
