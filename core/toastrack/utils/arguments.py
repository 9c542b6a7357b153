"""What may be given as an argument, and the error for what may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ``ValueError`` for a word that is not one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def check_positive(name: str, value: int | None) -> None:
    """Raise ``ValueError`` for what is not a whole number of at least 1; None may be."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1.")


def check_count(name: str, value: int) -> None:
    """Raise ``ValueError`` for what is not a whole number of at least 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name}={value!r} must be a whole number of at least 0.")


def check_setting(name: str, value: str | None, *, none: str, example: str) -> None:
    """Raise ``TypeError`` for what is not a str; ``none`` says what None stands for."""
    if value is not None and not isinstance(value, str):
        raise TypeError(
            f"{name}={value!r:.60} must be a str such as {example}, or None for {none}."
        )


def check_text(text: str, caller: str) -> None:
    """Raise ``TypeError`` for what is not one text."""
    if not isinstance(text, str):
        raise TypeError(
            f"{caller} takes one str, not {type(text).__name__}: {text!r:.40}.{_decode(text)}"
        )


def checked_texts(texts: Iterable[str], caller: str) -> list[str]:
    """Return a list of texts, or raise ``TypeError`` naming the position of what is none."""
    if isinstance(texts, str):
        raise TypeError(f"{caller} takes a list of texts and was given one str. Write [text].")
    # Of a mapping it would be the keys, which is hardly ever meant.
    if isinstance(texts, (bytes, Mapping)) or not isinstance(texts, Iterable):
        raise TypeError(
            f"{caller} takes a list of texts, not {type(texts).__name__}: {texts!r:.40}."
            f"{_decode(texts)}"
        )
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise TypeError(
                f"{caller} takes str, but text {position} is {type(text).__name__}: {text!r:.40}."
                f"{_decode(text)}"
            )
    return checked


def _decode(value: object) -> str:
    return " Decode it first: .decode('utf-8')." if isinstance(value, bytes) else ""
