"""What text may be."""

from __future__ import annotations


def check_unicode(text: str, what: str) -> None:
    """Raise ``ValueError`` if a text holds a lone surrogate, which no encoding can write."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds a lone surrogate (U+{ord(text[error.start]):04X} at offset "
            f"{error.start}), which is not text. Read its source with errors='replace'."
        ) from None


def shown(value: object, width: int = 60) -> str:
    """Return the beginning of a value's ``repr`` for an error, which itself never fails."""
    try:
        return repr(value)[:width]
    except Exception:  # an int of too many digits, or somebody's class
        return f"a {type(value).__name__}"
