"""What may be sent while backward goes on: gradients that a hook is told of are final, for every
layer.
"""

import numpy as np

from ..spy import Ready
from .contract import Run, make, trained


@trained
def test_gradients_are_complete_when_a_hook_is_told(case):
    layer, inputs = make(case)
    told = {}

    def keep(parameter):
        assert id(parameter) not in told
        told[id(parameter)] = np.array(parameter.gradients)

    Run(case, layer, inputs, hooks=[Ready(keep)])
    for parameter in layer.parameters():
        assert told[id(parameter)].tobytes() == np.array(parameter.gradients).tobytes()
