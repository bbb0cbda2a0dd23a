"""The cases of activations."""

from layers.activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh

from .case import BATCH, Case, layer, off_zero, real

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)

CASES = (
    Case("ReLU", layer(ReLU), off_zero(_DEEP)),
    Case("LeakyReLU", layer(LeakyReLU), off_zero(_DEEP)),
    Case("LeakyReLU of slope 0.3", layer(LeakyReLU, 0.3), off_zero(_ROWS)),
    Case("Sigmoid", layer(Sigmoid), real(_DEEP)),
    Case("Tanh", layer(Tanh), real(_DEEP)),
    Case("SiLU", layer(SiLU), real(_DEEP)),
    Case("GELU", layer(GELU), real(_DEEP)),
    Case("GELU of tanh form", layer(GELU, "tanh"), real(_DEEP)),
    Case("Softmax", layer(Softmax), real(_ROWS)),
    Case("Softmax of 3-D inputs", layer(Softmax), real(_DEEP)),
    Case("Softmax of a vector", layer(Softmax), real((5,)), per_sample=False),
)
