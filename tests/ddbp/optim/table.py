"""All optimizers, for tests of what they have in common."""

import ddbp

BY_BLOCKS = {
    "SGD": lambda: ddbp.SGD(0.1, weight_decay=0.01),
    "momentum": lambda: ddbp.SGD(0.1, momentum=0.9),
    "Nesterov": lambda: ddbp.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "RMSProp": lambda: ddbp.RMSProp(0.01),
    "RMSProp with momentum": lambda: ddbp.RMSProp(0.01, momentum=0.9),
    "Adam": lambda: ddbp.Adam(0.01, weight_decay=0.1),
    "AMSGrad": lambda: ddbp.Adam(0.01, amsgrad=True),
    "AdamW": lambda: ddbp.AdamW(0.01, weight_decay=0.1),
    "groups": lambda: ddbp.AdamW(
        0.01, groups={"*bias": {"learning_rate": 0.1}, "*[c2]*[dt]": {"amsgrad": True}}
    ),
    "RAdam": lambda: ddbp.RAdam(0.01),
    "AdaGrad": lambda: ddbp.AdaGrad(0.01, weight_decay=0.1),
    "Lion": lambda: ddbp.Lion(0.01, weight_decay=0.1),
    "momentum in 8 bits": lambda: ddbp.SGD(0.1, momentum=0.9, state_bits=8),
    "RMSProp in 8 bits": lambda: ddbp.RMSProp(0.01, momentum=0.9, state_bits=8),
    "AdamW in 8 bits": lambda: ddbp.AdamW(0.01, weight_decay=0.1, amsgrad=True, state_bits=8),
    "Lion in 8 bits": lambda: ddbp.Lion(0.01, weight_decay=0.1, state_bits=8),
}
"""Optimizers that update by blocks, with all of their kernels."""
WHOLE = {
    "Adafactor": lambda: ddbp.Adafactor(0.01, weight_decay=0.1),
    "LARS": lambda: ddbp.LARS(0.1),
    "LAMB": lambda: ddbp.LAMB(0.01),
    "Muon": lambda: ddbp.Muon(0.01),
}
"""Optimizers that do not."""
