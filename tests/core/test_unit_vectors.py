"""What an engine returned, as unit vectors: cut, scaled, or refused to whoever it belongs to."""

import numpy as np
import pytest

from toastrack.batching.unit_vectors import UnitVectors
from toastrack.errors import ModelError

RAW = np.array([[3, 4, 12], [0, 0, 5], [1, 0, 0]], dtype=np.float32)


def test_rows_have_length_1() -> None:
    unit = UnitVectors(RAW, 3).rows(0, 3)
    assert unit.dtype == np.float32
    expected = np.array([[3 / 13, 4 / 13, 12 / 13], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(unit, expected, rtol=0, atol=1e-6)


def test_they_are_cut_before_they_are_scaled() -> None:
    unit = UnitVectors(RAW[[0, 2]], 2).rows(0, 2)
    np.testing.assert_allclose(unit, np.array([[0.6, 0.8], [1, 0]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [0, np.nan, np.inf, -np.inf])
def test_only_a_row_without_a_direction_is_refused(number: float) -> None:
    """Others in its batch can belong to somebody else."""
    raw = RAW.copy()
    raw[1] = number
    vectors = UnitVectors(raw, 3)
    assert np.isfinite(vectors.rows(0, 1)).all()
    assert np.isfinite(vectors.rows(2, 3)).all()
    for start, end in ((1, 2), (0, 3)):
        with pytest.raises(ModelError, match="zero or not finite"):
            vectors.rows(start, end)
