"""Everything toastrack raises on purpose.

    ToastrackError
    ├── MissingExtraError (ModuleNotFoundError)   a package that an extra brings is not installed
    ├── ModelError                                a model cannot be found, read or run
    ├── TruncationError (ValueError)              a text is over the limit and on_truncate="error"
    ├── SpaceMismatchError                        a collection was built in another embedding space
    ├── StoreError                                a table or collection cannot be used as it is
    ├── RecordError (ValueError)                  a record cannot be stored; names the record
    ├── FilterError (ValueError)                  a filter is not a flat mapping of scalars
    ├── SourceError (ValueError)                  an input of ingest cannot be read; names file and line
    └── UnsupportedError                          the host or the model cannot do what was asked

    TruncationWarning (UserWarning)               texts were cut at the model's limit

Errors of a host (psycopg, a database) pass through unless we can add the reader's next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from toastrack.space import EmbeddingSpace

# The one place that knows how an extra is installed; it changes when the package is on PyPI.
INSTALL_COMMAND = "pip install '.[{extra}]'"


class ToastrackError(Exception):
    """Base class: catch this to catch them all."""


class MissingExtraError(ToastrackError, ModuleNotFoundError):
    """A package is needed that one of toastrack's extras brings.

    A ``ModuleNotFoundError``, so that ``except ImportError`` and ``pytest.importorskip`` see it.
    """

    def __init__(self, package: str, extra: str) -> None:
        command = INSTALL_COMMAND.format(extra=extra)
        super().__init__(f"{package!r} is not installed. Run: {command}", name=package)
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.name or "", self.extra)


class ModelError(ToastrackError):
    """A model cannot be found, read or run as asked."""


class TruncationError(ToastrackError, ValueError):
    """A text has more tokens than fit and the embedder was told not to cut it."""


class TruncationWarning(UserWarning):
    """Texts were cut at the limit: what lies behind it is not in the vector."""


class SpaceMismatchError(ToastrackError):
    """A collection was built in another embedding space, so its scores would be meaningless.

    ``differences`` maps each differing field to ``(stored, ours)``.
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
    """A table or collection cannot be used as it is."""


class RecordError(ToastrackError, ValueError):
    """A record cannot be stored; nothing of its batch was written."""


class FilterError(ToastrackError, ValueError):
    """A filter is not a flat mapping of field names to str, int, float or bool."""


class SourceError(ToastrackError, ValueError):
    """An input of ``ingest`` cannot be read."""


class UnsupportedError(ToastrackError):
    """The host or the model cannot do what was asked."""


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
