"""Models in and out: bundles, PyTorch's names and layouts, ONNX."""

from ddbp.architecture.description import ArchitectureError, architecture, build
from ddbp.architecture.kinds import register

from .archive import BundleError
from .bundle import Bundle, load_bundle, save_bundle
from .exchange import from_torch, to_torch
from .onnx.model import to_onnx
from .run import load_run

__all__ = [
    "ArchitectureError",
    "Bundle",
    "BundleError",
    "architecture",
    "build",
    "from_torch",
    "load_bundle",
    "load_run",
    "register",
    "save_bundle",
    "to_onnx",
    "to_torch",
]
