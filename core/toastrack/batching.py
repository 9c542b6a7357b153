"""Cut a window of texts into engine batches by a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield the positions of each batch, longest texts first.

    ``sizes`` are tokens per text. A batch is padded to its longest text, so sorting by length
    wastes least; ``budget`` bounds its padded tokens. A text over the budget goes alone.
    """
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        if not batch:
            longest = sizes[position]
        batch.append(position)
    if batch:
        yield batch
