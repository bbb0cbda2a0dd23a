"""The twins of `layers.gradient_check.cases.residual`."""

from .linear import affine

TWINS = {
    "Residual": lambda p, x: affine(x, p["body.weight"], p["body.bias"]) + x,
    "Residual with shortcut": lambda p, x: (
        affine(x, p["body.weight"], p["body.bias"]) + affine(x, p["shortcut.weight"])
    ),
}
