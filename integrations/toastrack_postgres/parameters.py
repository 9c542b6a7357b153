"""Texts as parameters of the caller's own statements."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from toastrack.errors import ToastrackError


@dataclass(frozen=True)
class _Text:
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(
                f"{type(self).__name__} takes one text, not {type(self.text).__name__}. For many, "
                f"make a list: [{type(self).__name__}(text) for text in texts]"
            )


@dataclass(frozen=True)
class QueryText(_Text):
    """A search query that stands where a vector belongs, embedded when the statement is sent.

        question = QueryText("which bread stays fresh?")
        connection.execute("select id from loaves order by embedding <=> %s limit 5", [question])

    The connection must know an embedder: see ``register_embedder``. It is no ``str``, so that a
    column of texts does not take it for one.

    Args:
        text: The query, without its prompt.
    """


@dataclass(frozen=True)
class DocumentText(_Text):
    """A text to be found that stands where a vector belongs, embedded when the statement is sent.

        text = "Rye keeps longer than wheat."
        loaf = [2, text, DocumentText(text)]
        connection.execute("insert into loaves (id, text, embedding) values (%s, %s, %s)", loaf)

    Args:
        text: The document, without its prompt; what is over the model's limit is cut, as the
            embedder's ``on_truncate`` says.
    """


class ParameterError(ToastrackError, psycopg.ProgrammingError):
    """A ``QueryText`` or ``DocumentText`` stands where it cannot become a vector.

        try:
            connection.execute("insert into loaves (text) values (%s)", [DocumentText("Rye.")])
        except ParameterError as error:
            print(error)  # parameter 1 lands in a column of texts

    The message names the parameter by its place or name, and says what to do. It is a
    ``psycopg.ProgrammingError``, too.
    """


Text = QueryText | DocumentText
TEXT_TYPES = (QueryText, DocumentText)
