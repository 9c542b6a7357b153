"""What a cross-encoder returned, looked at before it is handed out."""

from __future__ import annotations

from toastrack.errors import ModelError
from toastrack.utils import arrays


class Scores:
    """The logits of one batch, which can belong to several callers: rows of ``size`` numbers."""

    def __init__(self, raw: arrays.FloatMatrix, size: int) -> None:
        import numpy as np

        self._raw = raw[:, :size]
        self._usable = np.atleast_1d(np.isfinite(self._raw).all(axis=1))

    def rows(self, start: int, end: int) -> arrays.FloatMatrix:
        """Return some of the rows: float32 of shape ``(end - start, size)``.

        Raises ``ModelError`` if one of them is no number, which would stand anywhere in an order.
        """
        if not self._usable[start:end].all():
            raise ModelError(
                "The model returned a score that is not finite. Its weights are damaged, or "
                "precision= is too low for it."
            )
        return self._raw[start:end].copy()
