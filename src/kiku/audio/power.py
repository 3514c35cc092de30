"""How much power there is in sound, summed in one thread."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 4_096


def energy(values: NDArray[np.floating[Any]]) -> float:
    """Sum of the squares of some samples.

    For few values `dot` is several times as fast as anything else. For more than 10,000 it uses
    threads of OpenBLAS, and waits for them for ever if the process is forked meanwhile: before a
    fork OpenBLAS ends its threads, and uvloop forks for every process that it starts.

    Args:
        values: [S], of any length.
    """
    if values.size <= _FEW:
        return float(values.dot(values))
    return float(np.einsum("s,s->", values, values))
