"""What an engine returned, cut to size and scaled to length 1."""

from __future__ import annotations

from toastrack.errors import ModelError
from toastrack.utils import arrays


class UnitVectors:
    """The raw vectors of one batch, which can belong to several callers, as unit vectors.

    ``size`` is how many numbers of a vector are kept.
    """

    def __init__(self, raw: arrays.FloatMatrix, size: int) -> None:
        import numpy as np

        vectors = raw[:, :size]
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        self._usable = np.isfinite(norms) & (norms > 0)
        unit = vectors / np.where(self._usable, norms, 1)
        self._unit: arrays.FloatMatrix = unit.astype(np.float32)

    def rows(self, start: int, end: int) -> arrays.FloatMatrix:
        """Return some of the rows: float32 of shape ``(end - start, size)``.

        Raises ``ModelError`` if one of them has no direction, rather than hand out NaN.
        """
        if not self._usable[start:end].all():
            raise ModelError(
                "The model returned a vector that is zero or not finite. Its weights are damaged, "
                "or precision= is too low for it."
            )
        rows = self._unit[start:end]
        # Whoever keeps a row of a batch that others share would keep all of it.
        return rows if len(rows) == len(self._unit) else rows.copy()
