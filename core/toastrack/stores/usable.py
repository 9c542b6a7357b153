"""What keeps a collection from being used, told at once."""

from __future__ import annotations

from collections.abc import Sequence

from toastrack.errors import StoreError


def check_usable(where: str, problems: Sequence[str], *, instead: str) -> None:
    """Raise ``StoreError`` that tells at once everything that keeps a collection from being used.

    Args:
        where: Which one it is, e.g. "Table 'docs'".
        problems: What is wrong with it: clauses, each with "it" or "its".
        instead: A sentence that says what else there is to do.
    """
    if problems:
        raise StoreError(f"{where} cannot be used: {'; '.join(problems)}. {instead}")
