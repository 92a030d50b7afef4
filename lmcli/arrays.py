"""Names for the types of NumPy arrays.

**In:** nothing.
**Out:** aliases for annotations; importing them loads NumPy and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.integer[Any]]
Offsets = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
