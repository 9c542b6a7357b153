"""What arrays are called in annotations; numpy is imported when one of them is looked at.

Written ``arrays.FloatMatrix``, never imported by name: so ``typing.get_type_hints`` finds what it
needs, and ``import toastrack`` stays without numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatVector = NDArray[np.float32]
    FloatMatrix = NDArray[np.float32]
    Vector = Sequence[float] | NDArray[np.floating[Any]]
else:

    def __getattr__(name: str) -> Any:
        if name not in ("FloatVector", "FloatMatrix", "Vector"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import numpy as np
        from numpy.typing import NDArray

        if name == "Vector":
            return Sequence[float] | NDArray[np.floating[Any]]
        return NDArray[np.float32]
