"""Array aliases. Shapes stand in docstrings: N samples, D input features, O output features, S
shards.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of the model's floating type."""
Integers = NDArray[np.int64]
"""An array of 64-bit integers: row numbers, labels."""
